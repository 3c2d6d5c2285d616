"""The audit log: one line for the outcome of each login, refresh and logout.

A line is made for programs such as fail2ban. The fields that they read come first. Text that a
client chooses comes after them, quoted as JSON in ASCII, so that it cannot forge a field or a line.
No line holds a password or a token.

Clients can cause lines without end, so the lines of one kind are limited a minute: for each network
and for all networks together. Successes are limited for each user instead. One more line then gives
the number of omitted lines. The counts include them.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, LogLevel

from synapse_login_module.common.repeats import PERIOD, Omitted, Repeats
from synapse_login_module.errors import (
    AccountNotLinked,
    InvalidCredentials,
    LoginServiceError,
    RateLimited,
    ReusedToken,
)
from synapse_login_module.model import Client

_Kind = tuple[str, str, str]
_NO_BUCKET = "hashing_queue"
"""The ``limit`` field of a line when no bucket is empty."""

_MAX_NAME_LENGTH = 255
"""In characters. No user ID (Matrix, "User Identifiers") and no e-mail address is longer."""

LINE = "{line}"
"""The format of events whose text is the field ``line``, which has no line break. All their other
fields are meant for the log: in JSON, they are fields of the line.
"""

_log = Logger("synapse_login_module.audit.AuditLog")


class _Line:
    """The text of a line. It is made when it is written as text, and not for JSON.

    :param fields: the fields of the line, with those of the rate limit if one rejected.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        # Twisted's formatter would take longer than all else that writes a line.
        of = self._fields
        line = (
            f"{of['event']} outcome={of['outcome']} reason={of['reason']} address={of['address']}"
            f" provider={of['provider']} user={json.dumps(of['user'])}"
            f" device={json.dumps(of['device'])}"
        )
        if "limit" in of:
            line += f" limit={of['limit']} whose={json.dumps(of['whose'])} until={of['until']}"
        return line


def emit_to(logger: logging.Logger) -> Callable[..., None]:
    """Make an ``emit`` for :class:`AuditLog` that writes to a logger of the standard library."""

    def emit(level: LogLevel, _: str, *, line: object, **fields: object) -> None:
        logger.log(logging.WARNING if level is LogLevel.warn else logging.INFO, "%s", line)

    return emit


class AuditLog:
    """Writes the lines of the audit log, and counts outcomes.

    :param count: called with each ``(event, outcome, reason)``.
    :param count_limited: called with the name of each rate limit that rejected an attempt.
    :param emit: writes a line; it takes the arguments of :meth:`twisted.logger.Logger.emit`.
    :param clock: the wall clock, in seconds.
    :param call_later: the reactor's ``callLater``. It writes the number of omitted lines when a
        minute is over. Without it, that number is written with a later line.
    :ivar counts: the number of times that each ``(event, outcome, reason)`` occurred since the
        start.
    """

    def __init__(
        self,
        count: Callable[[str, str, str], None] | None = None,
        emit: Callable[..., None] | None = None,
        clock: Callable[[], float] = time.time,
        call_later: Callable[[float, Callable[[], None]], IDelayedCall] | None = None,
        count_limited: Callable[[str], None] | None = None,
    ) -> None:
        self._clock = clock
        self.counts: Counter[_Kind] = Counter()
        self._count = count
        self._count_limited = count_limited
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
        """Count an outcome, and write its line unless there were too many of its kind.

        :param event: ``login``, ``refresh``, ``logout``, ``get_token``, ``delete_devices``,
            ``reauth``, ``account_page`` or ``cross_signing_reset``.
        :param outcome: ``ok``, ``refused``, ``limited``, ``unavailable`` or ``failed``.
        :param reason: the reason for the outcome, one word.
        :param user: the user ID, or the identifier that the client sent.
        :param provider: the name of the password provider that accepted or rejected the password.
        :param limited: the rate limit that rejected the attempt, if one did.
        :return: whether the line was written.
        """
        self.counts[event, outcome, reason] += 1
        if self._count is not None:
            self._count(event, outcome, reason)
        if limited is not None and self._count_limited is not None:
            self._count_limited(limited.limit or _NO_BUCKET)
        # A success needs an account, and is counted by account, because many share an address.
        is_ok = outcome == "ok"
        source = f"{user} {device if event == 'refresh' else ''}" if is_ok else client.network
        if not self._repeats.is_written((event, outcome, reason), source, bounded=not is_ok):
            return False
        fields = {
            "event": event,
            "outcome": outcome,
            "reason": reason,
            "address": client.address,
            "provider": provider or "-",
            "user": user[:_MAX_NAME_LENGTH],
            "device": device[:_MAX_NAME_LENGTH],
        }
        if limited is not None:
            fields.update(self._describe(limited))
        self._emit(level, LINE, line=_Line(fields), **fields)
        return True

    def _tell_omitted(self, omitted: Omitted[_Kind]) -> None:
        event, outcome, reason = omitted.kind
        fields = {"network": omitted.source or "*"}
        whose = f"network={fields['network']}"
        if outcome == "ok":
            user, _, device = (omitted.source or "*").partition(" ")
            fields = {"user": user, "device": device}
            whose = f"user={json.dumps(user)}" + (f" device={json.dumps(device)}" if device else "")
        # Of another form than the other lines, so that fail2ban does not count it as an attempt.
        line = (
            f"more: {event} outcome={outcome} reason={reason} count={omitted.lines}"
            f" seconds={PERIOD:.0f} {whose}"
        )
        # No field is called "event", so that nothing else counts it as an attempt either.
        self._emit(
            LogLevel.info,
            LINE,
            line=line,
            omitted=event,
            outcome=outcome,
            reason=reason,
            count=omitted.lines,
            seconds=int(PERIOD),
            **fields,
        )

    def _describe(self, limited: RateLimited) -> dict[str, str]:
        """Make the fields of a rate limit: its name, its key, and until when it rejects."""
        until = math.ceil(self._clock() + limited.retry_after)
        moment = datetime.fromtimestamp(until, timezone.utc)
        return {
            "limit": limited.limit or _NO_BUCKET,
            "whose": " ".join(each[:_MAX_NAME_LENGTH] for each in limited.key),
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
        """Write the line of an attempt that ended with an error.

        Where the password is right and the account is not linked, write another line that says how
        to link it.
        """
        if isinstance(error, LoginServiceError):
            # Of the class: an error of a third party may keep any text in such an attribute.
            outcome, reason = type(error).outcome, type(error).reason
            if isinstance(error, InvalidCredentials):
                reason = error.reason
            provider = provider or error.provider
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
