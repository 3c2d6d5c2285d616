"""One line in the log for the outcome of each login, refresh and logout.

A line is made for programs such as fail2ban: words without spaces first, whatever a client chose
last and quoted as JSON in ASCII, so that no name can forge a field or a line. No password and no
token comes here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from twisted.logger import Logger, LogLevel

from synapse_login_module.model import Client


class AuditLog:
    """Writes the lines and counts them.

    :param count: also called with each ``(event, outcome, reason)``.
    :ivar counts: how often each ``(event, outcome, reason)`` has come since the start.
    """

    log = Logger()

    def __init__(self, count: Callable[[str, str, str], None] | None = None) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._count = count

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

        :param event: ``login``, ``refresh``, ``logout`` or ``get_token``.
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
        self.log.emit(
            level,
            "{line}",
            line=line,
            event=event,
            outcome=outcome,
            reason=reason,
            address=client.address,
            provider=provider,
            user=user,
            device=device,
        )
