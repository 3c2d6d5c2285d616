"""The module inside a real Synapse: ``python -m twisted.trial tests.synapse``.

Each test class has a Synapse of its own, started in a folder of its own on free loopback ports;
:mod:`tests.support.synapse.server` says how to use it from other tests. What is not installed
(``matrix-synapse``, PostgreSQL's server, Redis, the drivers for them) is skipped with the reason.
"""
