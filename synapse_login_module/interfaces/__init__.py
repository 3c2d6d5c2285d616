"""The seams of the service: password providers, token stores, homeservers, and what they are given.

Every method returns a :class:`twisted.internet.defer.Deferred`, never a bare coroutine. The mixins
in :mod:`synapse_login_module.testing` check an implementation.
"""

from synapse_login_module.interfaces.accounts import (
    IAccounts,
    ILinks,
    ILinkWatch,
)
from synapse_login_module.interfaces.diagnosis import IDiagnosable
from synapse_login_module.interfaces.homeservers import (
    IDelegatedStore,
    IHomeserver,
)
from synapse_login_module.interfaces.passwords import (
    IFindsAccounts,
    IHashing,
    INamesAdministrators,
    IPasswordProvider,
    IWatchedAccounts,
)
from synapse_login_module.interfaces.stores import (
    IHousekeeping,
    IImportsSessions,
    IRateLimits,
    ITokenKeys,
    ITokenStore,
)

__all__ = [
    "IAccounts",
    "IDelegatedStore",
    "IDiagnosable",
    "IFindsAccounts",
    "IHashing",
    "IHomeserver",
    "IHousekeeping",
    "IImportsSessions",
    "ILinkWatch",
    "ILinks",
    "INamesAdministrators",
    "IPasswordProvider",
    "IRateLimits",
    "ITokenKeys",
    "ITokenStore",
    "IWatchedAccounts",
]
