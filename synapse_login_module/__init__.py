"""A login service for Matrix homeservers, on Twisted.

It serves ``POST /login`` and ``POST /tokenrefresh`` of the Matrix client-server API, and what
clients need around them: inside Synapse as a module, or alone as ``twistd -n synapse-login
--config FILE``.
"""

from typing import Any

__version__ = "0.1.0"

_MODULE = "SynapseLoginModule"


def __getattr__(name: str) -> Any:
    """Import the module for Synapse when Synapse asks for it: standalone there is no Synapse.

    For a name that is mistyped, Synapse would print a traceback that does not say where in its
    configuration the name stands. It gets a class whose configuration is a mistake instead.
    """
    if name == _MODULE:
        from synapse_login_module.synapse.module import SynapseLoginModule

        return SynapseLoginModule
    if name[:1] not in ("", "_"):
        from difflib import get_close_matches

        if get_close_matches(name.lower(), [_MODULE.lower()], cutoff=0.8):
            from synapse_login_module.synapse.mistyped import class_named

            return class_named(name, f"{__name__}.{_MODULE}")
    raise AttributeError(name)
