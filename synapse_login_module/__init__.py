"""A login service for Matrix homeservers, on Twisted.

It serves ``POST /login`` and ``POST /tokenrefresh`` of the Matrix client-server API, and what
clients need around them: inside Synapse as a module, or alone as ``twistd -n synapse-login
--config FILE``.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the module for Synapse when Synapse asks for it: standalone there is no Synapse."""
    if name == "SynapseLoginModule":
        from synapse_login_module.synapse.module import SynapseLoginModule

        return SynapseLoginModule
    raise AttributeError(name)
