"""What a client sees from the other side of a reverse proxy: the shipped snippets, the conformance
suite, and real Matrix clients. Tests whose program is not installed are skipped.
"""
