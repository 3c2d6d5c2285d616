"""Password providers, by the names that the configuration has for them.

A provider is imported when it is first used. So a standalone server needs no Synapse, and a server
with accounts in a file loads no HTTP client.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "BcryptProvider": "synapse_login_module.providers.files.bcrypt",
    "CredProvider": "synapse_login_module.providers.cred",
    "HTTPProvider": "synapse_login_module.providers.http.provider",
    "HtpasswdProvider": "synapse_login_module.providers.files.htpasswd",
    "LDAPProvider": "synapse_login_module.providers.ldap.provider",
    "PAMProvider": "synapse_login_module.providers.pam.provider",
    "PasswdProvider": "synapse_login_module.providers.files.passwd",
    "SQLProvider": "synapse_login_module.providers.sql.provider",
    "SaslauthdProvider": "synapse_login_module.providers.saslauthd.provider",
    "SynapsePasswordProvider": "synapse_login_module.synapse.provider",
}


def __getattr__(name: str) -> Any:
    """Import the provider of this name."""
    if name not in _MODULES:
        raise AttributeError(f"there is no provider {name}")
    return getattr(import_module(_MODULES[name]), name)
