"""One line in the log for the outcome of each login, refresh and logout.

A line is made for programs such as fail2ban: words without spaces first, whatever a client chose
last and quoted as JSON in ASCII, so that no name can forge a field or a line. No password and no
token comes here.

What anybody can make without end is bounded: of each network's lines of one kind, and of those of
all networks, so many are written a minute, and then one that says how many more there were. The
totals count all of them.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, LogLevel

from synapse_login_module.errors import (
    AccountNotLinked,
    LoginServiceError,
    RateLimited,
    ReusedToken,
)
from synapse_login_module.model import Client
from synapse_login_module.repeats import PERIOD, Omitted, Repeats

_Kind = tuple[str, str, str]
_NO_BUCKET = "hashing_queue"
"""What limits where no bucket does."""

_MOST_OF_A_NAME = 255
"""Characters: no user ID is longer (Matrix, "User Identifiers"), and no e-mail address."""

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
    :param clock: the wall clock.
    :param call_later: the reactor's, for lines that come when a minute is over; without it they
        wait for another line.
    :ivar counts: how often each ``(event, outcome, reason)`` has come since the start.
    """

    def __init__(
        self,
        count: Callable[[str, str, str], None] | None = None,
        emit: Callable[..., None] | None = None,
        clock: Callable[[], float] = time.time,
        call_later: Callable[[float, Callable[[], None]], IDelayedCall] | None = None,
    ) -> None:
        self._clock = clock
        self.counts: Counter[_Kind] = Counter()
        self._count = count
        self._emit = emit or _log.emit
        self._repeats: Repeats[_Kind] = Repeats(clock, self._tell_omitted, call_later)
        self.flush = self._repeats.flush

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
        limited: RateLimited | None = None,
    ) -> bool:
        """Count an outcome, and write its line unless there were too many like it.

        :param event: ``login``, ``refresh``, ``logout``, ``get_token`` or ``reauth``.
        :param outcome: ``ok``, ``refused``, ``limited``, ``unavailable`` or ``failed``.
        :param reason: why, one word.
        :param user: the user ID, or what the client gave as such.
        :param provider: the password provider that vouched or refused.
        :param limited: the limit that refused, where one did.
        :return: whether the line was written.
        """
        self.counts[event, outcome, reason] += 1
        if self._count is not None:
            self._count(event, outcome, reason)
        # What has gone well needs an account, and is counted by it: many share an address.
        is_ok = outcome == "ok"
        source = f"{user} {device if event == 'refresh' else ''}" if is_ok else client.network
        if not self._repeats.is_written((event, outcome, reason), source, bounded=not is_ok):
            return False
        provider = provider or "-"
        # Formatted here: Twisted's formatter costs more than the rest of a refresh's log line.
        line = (
            f"{event} outcome={outcome} reason={reason} address={client.address}"
            f" provider={provider} user={json.dumps(user[:_MOST_OF_A_NAME])}"
            f" device={json.dumps(device)}"
        )
        limit = {} if limited is None else self._describe(limited)
        if limit:
            line += " limit={limit} whose={quoted} until={until}".format(
                quoted=json.dumps(limit["whose"]), **limit
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
            **limit,
        )
        return True

    def _tell_omitted(self, omitted: Omitted[_Kind]) -> None:
        event, outcome, reason = omitted.kind
        source = omitted.source or "*"
        whose = f"user={json.dumps(source)}" if outcome == "ok" else f"network={source}"
        # Not of the form of the lines themselves: nobody is to be banned for it twice.
        line = (
            f"more: {event} outcome={outcome} reason={reason} count={omitted.lines}"
            f" seconds={PERIOD:.0f} {whose}"
        )
        self._emit(LogLevel.info, LINE, line=line, count=omitted.lines)

    def _describe(self, limited: RateLimited) -> dict[str, str]:
        """The fields that say which limit it is, whose, and until when it refuses."""
        until = math.ceil(self._clock() + limited.retry_after)
        moment = datetime.fromtimestamp(until, timezone.utc)
        return {
            "limit": limited.limit or _NO_BUCKET,
            "whose": " ".join(each[:_MOST_OF_A_NAME] for each in limited.key),
            "until": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def failed(
        self,
        event: str,
        error: Exception,
        client: Client,
        *,
        user: str,
        device: str = "",
        provider: str = "",
    ) -> None:
        """Write the line of an attempt that ended with an error; and, where a right password is
        refused for want of a link, another that says what would make it.
        """
        if isinstance(error, LoginServiceError):
            outcome, reason, provider = error.outcome, error.reason, provider or error.provider
        else:
            outcome = "failed"
            reason = "disconnected" if isinstance(error, CancelledError) else "error"
        level = LogLevel.warn if isinstance(error, ReusedToken) else LogLevel.info
        limited = error if isinstance(error, RateLimited) else getattr(error, "limited", None)
        is_written = self.record(
            event,
            outcome,
            reason,
            client,
            user=user,
            device=device,
            provider=provider,
            level=level,
            limited=limited,
        )
        if is_written and isinstance(error, AccountNotLinked):
            _log.warn(
                "{user_id} is not linked, and the login of a provider's account of that name is"
                " refused: {problem} (to link it: {setting})",
                user_id=error.user_id,
                problem=error.problem,
                setting=error.setting,
            )
