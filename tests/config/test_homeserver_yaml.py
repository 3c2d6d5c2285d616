"""Tests for finding the module in Synapse's configuration."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config.homeserver_yaml import own_entries


class OwnEntriesTests(SynchronousTestCase):
    """The entries of the module among those of ``modules``."""

    def test_found(self) -> None:
        """It is known by each path in the package, and modules of others are left out."""
        ours = [
            {"module": "synapse_login_module.SynapseLoginModule"},
            {"module": "synapse_login_module.synapse.module.SynapseLoginModule"},
        ]
        others = [
            {"module": "another.SynapseLoginModule"},
            {"module": "synapse_login_module"},
            {"module": None},
            {},
            "synapse_login_module.SynapseLoginModule",
        ]
        found = list(own_entries({"modules": [*others, *ours]}))
        self.assertEqual(found, [(len(others) + index, each) for index, each in enumerate(ours)])

    def test_mistaken(self) -> None:
        """A configuration without a list of modules has none."""
        for given in ({}, {"modules": None}, {"modules": {"module": "x"}}):
            self.assertEqual(list(own_entries(given)), [])
