"""Password providers, as the configuration names them.

Each is imported when it is named: standalone there is no Synapse, and who keeps accounts in a file
need not load an HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synapse_login_module.providers.bcrypt import BcryptProvider
    from synapse_login_module.providers.cred import CredProvider
    from synapse_login_module.providers.htpasswd import HtpasswdProvider
    from synapse_login_module.providers.http import HTTPProvider
    from synapse_login_module.providers.ldap import LDAPProvider
    from synapse_login_module.providers.passwd import PasswdProvider
    from synapse_login_module.providers.sql import SQLProvider
    from synapse_login_module.providers.synapse import SynapsePasswordProvider

__all__ = [
    "BcryptProvider",
    "CredProvider",
    "HTTPProvider",
    "HtpasswdProvider",
    "LDAPProvider",
    "PasswdProvider",
    "SQLProvider",
    "SynapsePasswordProvider",
]

_MODULES = {
    "BcryptProvider": "bcrypt",
    "CredProvider": "cred",
    "HTTPProvider": "http",
    "HtpasswdProvider": "htpasswd",
    "LDAPProvider": "ldap",
    "PasswdProvider": "passwd",
    "SQLProvider": "sql",
    "SynapsePasswordProvider": "synapse",
}


def __getattr__(name: str) -> Any:
    """Import a provider."""
    if name not in _MODULES:
        raise AttributeError(f"there is no provider {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
