"""Tests through a reverse proxy: the configurations of ``contrib/``, the conformance suite, and
real Matrix clients. Tests whose program is not installed are skipped.
"""
