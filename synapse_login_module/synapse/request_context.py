"""The request that Synapse or the module's listener serves, for the code of both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from synapse_login_module.web.routes import CLIENT, PREFIXES

# Whole paths: the path of a device that is called "login" ends the same, and Synapse asks for a
# password to delete it.
_LOGIN_PATHS = frozenset(f"{CLIENT}/{prefix}/login" for prefix in PREFIXES)


@dataclass(slots=True)
class LoginNotes:
    """Notes on a login that are needed when its session begins.

    :param on_login: called with the response's JSON object, to which it may add.
    :param auth_provider_id: the single sign-on provider that the login token came from.
    :param auth_provider_session_id: the session at that provider.
    """

    on_login: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    auth_provider_id: str | None = None
    auth_provider_session_id: str | None = None


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request that is being served.

    :param context: Synapse's logging context of the request.
    :param address: the client's IP address; ``-`` where it is unknown.
    :param user_agent: the ``User-Agent`` header.
    :param path: the path of the URL.
    """

    context: Any
    address: str = "-"
    user_agent: str | None = None
    path: str = ""
    notes: LoginNotes = field(default_factory=LoginNotes)

    @property
    def is_login(self) -> bool:
        """Whether it is a login, and not the re-authentication of a user who is logged in."""
        return self.path.rstrip("/") in _LOGIN_PATHS


serving: ContextVar[RequestContext | None] = ContextVar(
    "synapse_login_request_context", default=None
)
"""The request that this package is serving; ``None`` outside of requests."""
