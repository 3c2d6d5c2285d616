"""Password providers, as the configuration names them."""

from typing import Any

from synapse_login_module.providers.bcrypt import BcryptProvider

__all__ = ["BcryptProvider"]


def __getattr__(name: str) -> Any:
    """Import the provider for Synapse when it is named: standalone there is no Synapse."""
    if name == "SynapsePasswordProvider":
        from synapse_login_module.providers.synapse import SynapsePasswordProvider

        return SynapsePasswordProvider
    raise AttributeError(name)
