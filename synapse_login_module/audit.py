"""One line in the log for the outcome of each login, refresh and logout.

A line is made for programs such as fail2ban: words without spaces first, whatever a client chose
last and quoted as JSON in ASCII, so that no name can forge a field or a line. No password and no
token comes here.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable

from twisted.internet.defer import CancelledError
from twisted.logger import Logger, LogLevel

from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    AccountNotLinked,
    AccountRefused,
    ExpiredToken,
    InvalidCredentials,
    KeyUnavailable,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
    ReusedToken,
    SessionMismatch,
    StoreUnavailable,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.model import Client

_REASONS: dict[type[Exception], tuple[str, str]] = {
    AccountDeactivated: ("refused", "deactivated"),
    AccountLocked: ("refused", "locked"),
    AccountNotLinked: ("refused", "not_linked"),
    AccountRefused: ("refused", "homeserver"),
    InvalidCredentials: ("refused", "wrong_password"),
    ReusedToken: ("refused", "reused_token"),
    SupersededToken: ("refused", "superseded_token"),
    UnknownToken: ("refused", "unknown_token"),
    ExpiredToken: ("refused", "expired_token"),
    SessionMismatch: ("refused", "other_session"),
    Overloaded: ("limited", "overloaded"),
    RateLimited: ("limited", "rate"),
    ProviderUnavailable: ("unavailable", "provider"),
    KeyUnavailable: ("unavailable", "key"),
    StoreUnavailable: ("unavailable", "store"),
    CancelledError: ("failed", "disconnected"),
}

LINE = "{line}"
"""The format of events whose ``line`` is all of their text, and no more than one line."""

_log = Logger("synapse_login_module.audit.AuditLog")


def emit_to(logger: logging.Logger) -> Callable[..., None]:
    """Make what takes the lines of an :class:`AuditLog` to a logger of the standard library."""

    def emit(level: LogLevel, _: str, *, line: str, **fields: object) -> None:
        logger.log(logging.WARNING if level is LogLevel.warn else logging.INFO, "%s", line)

    return emit


class AuditLog:
    """Writes the lines and counts them.

    :param count: also called with each ``(event, outcome, reason)``.
    :param emit: takes each line, as :meth:`twisted.logger.Logger.emit` does.
    :ivar counts: how often each ``(event, outcome, reason)`` has come since the start.
    """

    def __init__(
        self,
        count: Callable[[str, str, str], None] | None = None,
        emit: Callable[..., None] | None = None,
    ) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._count = count
        self._emit = emit or _log.emit

    def record(
        self,
        event: str,
        outcome: str,
        reason: str,
        client: Client,
        *,
        user: str = "",
        device: str = "",
        provider: str = "",
        level: LogLevel = LogLevel.info,
    ) -> None:
        """Write one line.

        :param event: ``login``, ``refresh``, ``logout``, ``get_token`` or ``reauth``.
        :param outcome: ``ok``, ``refused``, ``limited``, ``unavailable`` or ``failed``.
        :param reason: why, one word.
        :param user: the user ID, or what the client gave as such.
        """
        self.counts[event, outcome, reason] += 1
        if self._count is not None:
            self._count(event, outcome, reason)
        provider = provider or "-"
        # Formatted here: Twisted's formatter costs more than the rest of a refresh's log line.
        line = (
            f"{event} outcome={outcome} reason={reason} address={client.address}"
            f" provider={provider} user={json.dumps(user[:512])} device={json.dumps(device)}"
        )
        self._emit(
            level,
            LINE,
            line=line,
            event=event,
            outcome=outcome,
            reason=reason,
            address=client.address,
            provider=provider,
            user=user,
            device=device,
        )

    def failed(
        self, event: str, error: Exception, client: Client, *, user: str, device: str = ""
    ) -> None:
        """Write the line of an attempt that ended with an error; and, where a right password is
        refused for want of a link, another that says what would make it.
        """
        outcome, reason = next(
            (words for kind, words in _REASONS.items() if isinstance(error, kind)),
            ("failed", "error"),
        )
        if isinstance(error, InvalidCredentials):
            reason = error.reason
        level = LogLevel.warn if isinstance(error, ReusedToken) else LogLevel.info
        self.record(event, outcome, reason, client, user=user, device=device, level=level)
        if isinstance(error, AccountNotLinked):
            _log.warn(
                "{user_id} is not linked, and the login of a provider's account of that name is"
                " refused: {problem} (to link it: {setting})",
                user_id=error.user_id,
                problem=error.problem,
                setting=error.setting,
            )
