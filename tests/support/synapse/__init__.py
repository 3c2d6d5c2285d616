"""A real Synapse with the module in it: see :mod:`tests.support.synapse.server`."""
