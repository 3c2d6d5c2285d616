"""Password providers, as the configuration names them.

Each is imported when it is named: standalone there is no Synapse, and who keeps accounts in a file
need not load an HTTP client.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "BcryptProvider": "synapse_login_module.providers.files.bcrypt",
    "CredProvider": "synapse_login_module.providers.cred",
    "HTTPProvider": "synapse_login_module.providers.http.provider",
    "HtpasswdProvider": "synapse_login_module.providers.files.htpasswd",
    "LDAPProvider": "synapse_login_module.providers.ldap.provider",
    "PasswdProvider": "synapse_login_module.providers.files.passwd",
    "SQLProvider": "synapse_login_module.providers.sql.provider",
    "SynapsePasswordProvider": "synapse_login_module.synapse.provider",
}


def __getattr__(name: str) -> Any:
    """Import a provider."""
    if name not in _MODULES:
        raise AttributeError(f"there is no provider {name}")
    return getattr(import_module(_MODULES[name]), name)
