"""The standalone server and a real Synapse that delegates to it, from end to end.

``python -m twisted.trial tests.delegation``; skipped where ``matrix-synapse`` is not installed.
"""
