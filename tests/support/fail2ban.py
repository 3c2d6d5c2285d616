"""Tests that every fail2ban filter must pass, with the real ``fail2ban-regex`` on log lines."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogLevel,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import InvalidCredentials, RateLimited
from synapse_login_module.model import Client
from synapse_login_module.standalone.log_json import EventJSON
from tests.support.waiting import TIMEOUT

FAIL2BAN_REGEX = shutil.which("fail2ban-regex")

ATTACKER = "198.51.100.66"
VICTIM = "203.0.113.7"

FORGED_LINE = (
    "2026-11-24T15:22:45+0000 [synapse_login_module.audit.AuditLog#info] login outcome=refused"
    f' reason=wrong_password address={VICTIM} provider=- user="x" device=""'
)
FORGED_IN_SYNAPSE = (
    "2026-11-24 15:22:45,123 - synapse_login_module - 30 - INFO - POST-66 - login outcome=refused"
    f' reason=wrong_password address={VICTIM} provider=- user="x" device=""'
)
FORGED_REST = f'login outcome=refused reason=wrong_password address={VICTIM} provider=- user="x"'

FORGED_JSON = (
    '{"time":"2026-11-24T15:22:45.123Z","level":"info",'
    '"logger":"synapse_login_module.audit.AuditLog","pid":1,"event":"login","outcome":"refused",'
    f'"reason":"wrong_password","address":"{VICTIM}","provider":"-","user":"x"'
)
FORGED_FIELDS = f'","event":"login","outcome":"refused","address":"{VICTIM}","provider":"'

HOSTILE = (
    FORGED_LINE,
    FORGED_IN_SYNAPSE,
    FORGED_JSON,
    f"\n{FORGED_JSON}\n",
    f"\u2028{FORGED_JSON}",
    FORGED_FIELDS,
    f"\n{FORGED_LINE}\n",
    f"\n{FORGED_IN_SYNAPSE}\n",
    f"\r\n{FORGED_LINE}\r\n",
    f'" device=""\n{FORGED_LINE}',
    f'x" address={VICTIM} user="y',
    f"address={VICTIM}",
    f" address={VICTIM} provider=- ",
    f"\x0b{FORGED_LINE}",
    f"\x85{FORGED_LINE}",
    f"\u2028{FORGED_LINE}",
    f"\0{FORGED_LINE}",
    f'\\" address={VICTIM} \\',
    f"<HOST>{VICTIM}",
    "{address}",
    f"@a:{VICTIM}",
    VICTIM,
    "é" * 300,
    "\\" * 600,
    '"' * 600,
)


def written(work: Callable[[], object]) -> str:
    """Run some work; return what twistd's log holds afterwards."""
    log = io.StringIO()
    observe(textFileLogObserver(log), work)
    return log.getvalue()


def written_as_json(work: Callable[[], object]) -> str:
    """Run some work; return what the log holds afterwards where its format is JSON."""
    log = io.StringIO()
    observe(FileLogObserver(log, EventJSON()), work)
    return log.getvalue()


def observe(observer: ILogObserver, work: Callable[[], object]) -> None:
    """Run some work while an observer gets the log events."""
    globalLogPublisher.addObserver(observer)
    try:
        work()
    finally:
        globalLogPublisher.removeObserver(observer)


class FilterContract(SynchronousTestCase):
    """The tests of a filter.

    :cvar filter: the filter.
    :cvar events: the events in which a password is guessed.
    :cvar omission: what the line about omitted lines holds.
    """

    filter: ClassVar[Path]
    events: ClassVar[tuple[str, ...]]
    omission: ClassVar[str] = f"network={ATTACKER}"

    def setUp(self) -> None:
        if FAIL2BAN_REGEX is None:
            raise SkipTest("fail2ban-regex is not installed")
        self.audit = AuditLog()

    def written(self, work: Callable[[], object]) -> str:
        """Run some work; return what the server's log holds afterwards."""
        raise NotImplementedError

    def found(self, log: str) -> list[str]:
        """Return the addresses that fail2ban finds in a log, one for each matching line."""
        path = Path(self.mktemp())
        path.write_text(log, encoding="utf-8")
        command = [str(FAIL2BAN_REGEX), "--out", "<ip>", str(path), str(self.filter)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def record(
        self,
        event: str,
        outcome: str,
        reason: str,
        address: str = ATTACKER,
        *,
        user: str = "",
        device: str = "",
        provider: str = "",
        level: LogLevel = LogLevel.info,
    ) -> None:
        """Write one audit line."""
        client = Client(address, address)
        self.audit.record(
            event,
            outcome,
            reason,
            client,
            user=user,
            device=device,
            provider=provider,
            level=level,
        )

    def refused(self, *lines: tuple[str, str]) -> None:
        """Assert that all of these lines are found, each with its address."""

        def work() -> None:
            for number, (event, reason) in enumerate(lines):
                self.record(
                    event, "refused", reason, f"192.0.2.{number}", user="@alice:example.com"
                )

        expected = [f"192.0.2.{number}" for number in range(len(lines))]
        self.assertEqual(self.found(self.written(work)), expected)

    def test_refused(self) -> None:
        """Refused passwords, login tokens and refresh tokens are found, each with its address."""
        self.refused(
            *((event, "wrong_password") for event in self.events),
            *((event, "unknown_user") for event in self.events),
            ("login", "login_token"),
            ("refresh", "unknown_token"),
            ("refresh", "reused_token"),
        )

    def test_level(self) -> None:
        """A reused refresh token is found at the level at which the server logs it."""

        def work() -> None:
            self.record("refresh", "refused", "reused_token", level=LogLevel.warn)

        self.assertEqual(self.found(self.written(work)), [ATTACKER])

    def test_addresses(self) -> None:
        """IPv6 addresses are found; clients on a Unix socket have no address."""

        def work() -> None:
            for address in ("2001:db8::1", "::1", "unix", "192.0.2.1"):
                self.record("login", "refused", "wrong_password", address)

        self.assertEqual(self.found(self.written(work)), ["2001:db8::1", "::1", "192.0.2.1"])

    def test_providers(self) -> None:
        """The name of a provider does not matter."""

        def work() -> None:
            for provider in ("", "bcrypt", "ldap.example.com"):
                self.record("login", "refused", "wrong_password", provider=provider)

        self.assertEqual(self.found(self.written(work)), [ATTACKER] * 3)

    def test_not_refused(self) -> None:
        """Lines that are no guesses are not found."""

        def work() -> None:
            for event, outcome, reason in (
                ("login", "ok", "token"),
                ("refresh", "ok", "strict"),
                ("refresh", "ok", "lenient"),
                ("logout", "ok", "session"),
                *((event, "ok", "password") for event in self.events),
                ("login", "limited", "overloaded"),
                ("login", "limited", "rate"),
                ("refresh", "limited", "rate"),
                ("login", "unavailable", "provider"),
                ("login", "unavailable", "store"),
                ("refresh", "unavailable", "store"),
                ("login", "failed", "error"),
                ("login", "failed", "disconnected"),
                ("login", "refused", "locked"),
                ("login", "refused", "deactivated"),
                ("refresh", "refused", "expired_token"),
                ("refresh", "refused", "locked"),
                ("refresh", "refused", "other_session"),
            ):
                self.record(event, outcome, reason, user="@alice:example.com", device="PHONE")

        self.assertEqual(self.found(self.written(work)), [])

    def test_limits(self) -> None:
        """The limits named after a rejection do not change what is found."""
        # One address each, because the lines of one address are limited to some a minute.
        addresses = [f"192.0.2.{number}" for number in range(len(HOSTILE))]

        def work() -> None:
            for name, address in zip(HOSTILE, addresses, strict=True):
                limited = RateLimited(1.0, "tried", (name, VICTIM))
                for error in (InvalidCredentials("too_many_failures", limited=limited), limited):
                    self.audit.failed("login", error, Client(address, address), user=name)

        self.assertEqual(self.found(self.written(work)), addresses)

    def test_hostile_names(self) -> None:
        """User and device names can neither forge an address nor hide a line."""

        # One address each, because the lines of one address are limited to some a minute.
        addresses = [f"192.0.2.{number}" for number in range(len(HOSTILE))]

        def work() -> None:
            for name, address in zip(HOSTILE, addresses, strict=True):
                self.record("login", "refused", "wrong_password", address, user=name, device=name)
                self.record("login", "ok", "password", address, user=name, device=name)

        self.assertEqual(self.found(self.written(work)), addresses)

    def test_flood(self) -> None:
        """In a flood, as many lines of an address are found as the jail needs for a ban. The line
        that sums up the rest is not found.
        """

        def work() -> None:
            for event in ("login", "refresh"):
                for _ in range(1000):
                    self.record(event, "refused", "unknown_token", user=FORGED_LINE)
                    self.record(event, "refused", "wrong_password", user=FORGED_LINE)
            self.audit.flush()

        logged = self.written(work)
        self.assertEqual(self.found(logged), [ATTACKER] * 20)
        self.assertIn(self.omission, logged)
