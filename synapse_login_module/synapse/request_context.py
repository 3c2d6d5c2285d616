"""The request that Synapse or the module's listener serves, as both sides of a crossing know it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from synapse_login_module.web.routes import CLIENT, PREFIXES

# Spelled out, since a device may be called "login", and Synapse asks for a password to delete it.
_LOGIN_PATHS = frozenset(f"{CLIENT}/{prefix}/login" for prefix in PREFIXES)


@dataclass(slots=True)
class LoginNotes:
    """What is learned of a login on its way, and needed when its session begins.

    :param on_login: called with the answer, to which it may add.
    :param auth_provider_id: the single sign-on provider whose login token was used up.
    :param auth_provider_session_id: the session there.
    """

    on_login: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    auth_provider_id: str | None = None
    auth_provider_session_id: str | None = None


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request that is being served.

    :param context: Synapse's logging context of it.
    :param address: where it comes from; ``-`` where that is not known.
    :param user_agent: what the client says that it is.
    :param path: what it asks for.
    """

    context: Any
    address: str = "-"
    user_agent: str | None = None
    path: str = ""
    notes: LoginNotes = field(default_factory=LoginNotes)

    @property
    def is_login(self) -> bool:
        """Whether it is a login, and not somebody who is logged in and gives a password again."""
        return self.path.rstrip("/") in _LOGIN_PATHS


serving: ContextVar[RequestContext | None] = ContextVar(
    "synapse_login_request_context", default=None
)
"""The request that is being served by this package; ``None`` outside of one."""
