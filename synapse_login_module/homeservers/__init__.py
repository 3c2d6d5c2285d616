"""The homeserver that accepts this server's tokens: its accounts, its devices, its calls.

A kind of homeserver is imported when it is first used, by the name that the configuration has for
it. So a server that stands alone loads no HTTP client.
"""

from importlib import import_module
from typing import Any

_MODULES = {"SynapseHomeserver": "synapse_login_module.homeservers.synapse"}


def __getattr__(name: str) -> Any:
    """Import the homeserver of this name."""
    if name not in _MODULES:
        raise AttributeError(f"there is no homeserver {name}")
    return getattr(import_module(_MODULES[name]), name)
