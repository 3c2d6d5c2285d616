"""Password providers, as the configuration names them."""

from typing import Any

from synapse_login_module.providers.bcrypt import BcryptProvider

__all__ = ["BcryptProvider"]


def __getattr__(name: str) -> Any:
    """Import a provider that needs more than is always installed once it is named."""
    if name == "SynapsePasswordProvider":
        from synapse_login_module.providers.synapse import SynapsePasswordProvider

        return SynapsePasswordProvider
    if name == "LDAPProvider":
        from synapse_login_module.providers.ldap import LDAPProvider

        return LDAPProvider
    raise AttributeError(name)
