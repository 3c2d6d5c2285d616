"""Fakes and contract tests for providers, stores and homeservers, also those of third parties.

A contract is a mixin for :class:`twisted.trial.unittest.TestCase`. Inherit from it first and define
the method that makes the implementation. Then trial runs every test of the contract::

    class MyStoreTests(TokenStoreContract, TestCase):
        def make_store(self, policy, clock):
            return MyStore(...)
"""

from synapse_login_module.testing.delegation import DelegatedStoreContract
from synapse_login_module.testing.fakes import (
    SERVER_NAME,
    FakeHashing,
    FakeProvider,
    environment,
)
from synapse_login_module.testing.homeservers import FakeHomeserver, HomeserverContract
from synapse_login_module.testing.housekeeping import HousekeepingContract, LeasesContract
from synapse_login_module.testing.importing import ImportsSessionsContract
from synapse_login_module.testing.keys import TokenKeysContract
from synapse_login_module.testing.limits import RateLimitsContract
from synapse_login_module.testing.links import LinksContract
from synapse_login_module.testing.names import NameReservationsContract
from synapse_login_module.testing.providers import (
    DiagnosableContract,
    FindsAccountsContract,
    NamesAdministratorsContract,
    PasswordProviderContract,
)
from synapse_login_module.testing.sessions import refresh
from synapse_login_module.testing.stores import TokenStoreContract

__all__ = [
    "SERVER_NAME",
    "DelegatedStoreContract",
    "DiagnosableContract",
    "FakeHashing",
    "FakeHomeserver",
    "FakeProvider",
    "FindsAccountsContract",
    "HomeserverContract",
    "HousekeepingContract",
    "ImportsSessionsContract",
    "LeasesContract",
    "LinksContract",
    "NameReservationsContract",
    "NamesAdministratorsContract",
    "PasswordProviderContract",
    "RateLimitsContract",
    "TokenKeysContract",
    "TokenStoreContract",
    "environment",
    "refresh",
]
