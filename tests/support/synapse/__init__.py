"""Runs a real Synapse with the module: see :mod:`tests.support.synapse.server`."""
