"""A login service for Matrix homeservers, on Twisted.

It serves ``POST /login`` and ``POST /tokenrefresh`` of the Matrix client-server API, and the
endpoints that clients need with them. It runs as a module inside Synapse, or standalone as
``twistd -n synapse-login --config FILE``.
"""

from typing import Any

__version__ = "0.1.0"

_MODULE = "SynapseLoginModule"


def __getattr__(name: str) -> Any:
    """Import ``SynapseLoginModule`` on its first use, since standalone Synapse is not installed.

    For a mistyped name, return a class whose ``parse_config`` reports the mistake. Synapse alone
    would print a traceback that does not say where in its configuration the name is.
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
