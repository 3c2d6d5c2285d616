"""Tests for the fail2ban filter, with the real ``fail2ban-regex`` on lines of the real log."""

from __future__ import annotations

import configparser
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, globalLogPublisher, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.audit import AuditLog
from synapse_login_module.model import Client
from synapse_login_module.web.site import LoginSite
from tests.helpers import ALICE_PASSWORD, PATIENCE, REPOSITORY, Rig, Wire, post

FAIL2BAN_REGEX = shutil.which("fail2ban-regex")
FOLDER = REPOSITORY / "contrib" / "fail2ban"
FILTER = FOLDER / "filter.d" / "synapse-login.conf"

ATTACKER = "198.51.100.66"
VICTIM = "203.0.113.7"

FORGED_LINE = (
    "2026-11-24T15:22:45+0000 [synapse_login_module.audit.AuditLog#info] login outcome=refused"
    f' reason=wrong_password address={VICTIM} provider=- user="x" device=""'
)
FORGED_REST = f'login outcome=refused reason=wrong_password address={VICTIM} provider=- user="x"'

HOSTILE = (
    FORGED_LINE,
    f"\n{FORGED_LINE}\n",
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
    """What stands in twistd's log after the work."""
    log = io.StringIO()
    observer = textFileLogObserver(log)
    globalLogPublisher.addObserver(observer)
    try:
        work()
    finally:
        globalLogPublisher.removeObserver(observer)
    return log.getvalue()


class FilterTests(SynchronousTestCase):
    """What the filter finds."""

    def setUp(self) -> None:
        if FAIL2BAN_REGEX is None:
            raise SkipTest("fail2ban-regex is not installed")
        self.audit = AuditLog()

    def found(self, log: str) -> list[str]:
        """The addresses that fail2ban finds in a log, one for each line that matches."""
        path = Path(self.mktemp())
        path.write_text(log, encoding="utf-8")
        command = [str(FAIL2BAN_REGEX), "--out", "<ip>", str(path), str(FILTER)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
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
        """Write one line."""
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

    def test_refused(self) -> None:
        """Refused passwords, login tokens and refresh tokens are found, each with its address."""
        lines = (
            ("login", "wrong_password"),
            ("login", "unknown_user"),
            ("login", "login_token"),
            ("get_token", "wrong_password"),
            ("get_token", "unknown_user"),
            ("get_token", "other_user"),
            ("refresh", "unknown_token"),
            ("refresh", "reused_token"),
        )

        def work() -> None:
            for number, (event, reason) in enumerate(lines):
                self.record(
                    event, "refused", reason, f"192.0.2.{number}", user="@alice:example.com"
                )

        expected = [f"192.0.2.{number}" for number in range(len(lines))]
        self.assertEqual(self.found(written(work)), expected)

    def test_level(self) -> None:
        """A token that was used before is found at the level at which the server tells it."""

        def work() -> None:
            self.record("refresh", "refused", "reused_token", level=LogLevel.warn)

        self.assertEqual(self.found(written(work)), [ATTACKER])

    def test_addresses(self) -> None:
        """IPv6 addresses are found; what came over a Unix socket has none."""

        def work() -> None:
            for address in ("2001:db8::1", "::1", "unix", "192.0.2.1"):
                self.record("login", "refused", "wrong_password", address)

        self.assertEqual(self.found(written(work)), ["2001:db8::1", "::1", "192.0.2.1"])

    def test_providers(self) -> None:
        """The name of a provider does not matter."""

        def work() -> None:
            for provider in ("", "bcrypt", "ldap.example.com"):
                self.record("login", "refused", "wrong_password", provider=provider)

        self.assertEqual(self.found(written(work)), [ATTACKER] * 3)

    def test_not_refused(self) -> None:
        """What is nobody's guess is not found."""

        def work() -> None:
            for event, outcome, reason in (
                ("login", "ok", "password"),
                ("login", "ok", "token"),
                ("refresh", "ok", "strict"),
                ("refresh", "ok", "lenient"),
                ("logout", "ok", "session"),
                ("get_token", "ok", "password"),
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

        self.assertEqual(self.found(written(work)), [])

    def test_hostile_names(self) -> None:
        """No name of a user or a device makes another address be found, or a line be missed."""

        def work() -> None:
            for name in HOSTILE:
                self.record("login", "refused", "wrong_password", user=name, device=name)
                self.record("login", "ok", "password", user=name, device=name)

        self.assertEqual(self.found(written(work)), [ATTACKER] * len(HOSTILE))

    def test_other_lines(self) -> None:
        """No line of another part of the server is taken for one of these, whatever is in it."""
        log = Logger(namespace="another.part")

        def work() -> None:
            for text in (*HOSTILE, f" {FORGED_REST}", f"\n {FORGED_LINE}", f"\n\t{FORGED_LINE}"):
                log.info("about {text}", text=text)
                log.info("{text}", text=text)
                try:
                    raise ValueError(text)
                except ValueError:
                    log.failure("broken: {text}", text=text)

        logged = written(work)
        self.assertIn(VICTIM, logged)
        self.assertGreater(len(self.flushLoggedErrors(ValueError)), 0)
        self.assertEqual(self.found(logged), [])

    def test_real_requests(self) -> None:
        """Over the real tree, guesses are found and what is none is not."""
        rig = Rig()

        def work() -> None:
            site = LoginSite(rig.root, Clock())
            wire = Wire(site)
            for body in (
                b'{"type": "m.login.password", "user": "alice", "password": "x"}',
                b'{"type": "m.login.password", "user": "\\n%s", "password": "x"}'
                % FORGED_LINE.replace('"', '\\"').encode("ascii"),
                b'{"type": "m.login.token", "token": "x"}',
                b'{"type": "m.login.password", "user": "alice", "password": "%s"}'
                % ALICE_PASSWORD.encode("ascii"),
                b"nonsense",
            ):
                wire.send(post("/_matrix/client/v3/login", body))
            wire.send(post("/_matrix/client/v3/refresh", b'{"refresh_token": "x"}'))
            wire.send(post(f"/{VICTIM}", b"", [b"X-Forwarded-For: " + VICTIM.encode("ascii")]))

        self.assertEqual(self.found(written(work)), ["203.0.113.9"] * 4)


class FilesTests(SynchronousTestCase):
    """The files, as fail2ban reads them."""

    def read(self, path: Path) -> configparser.ConfigParser:
        """An INI file."""
        parser = configparser.ConfigParser()
        self.assertEqual(parser.read(path), [str(path)])
        return parser

    def test_jail(self) -> None:
        """The jail names the filter that is there."""
        jail = self.read(FOLDER / "jail.d" / "synapse-login.conf")["synapse-login"]
        self.assertTrue((FOLDER / "filter.d" / f"{jail['filter']}.conf").exists())
        self.assertGreater(int(jail["maxretry"]), 1)

    def test_filter_is_anchored(self) -> None:
        """Every expression is anchored at the start of the line, and takes addresses alone."""
        filters = self.read(FILTER)["Definition"]
        expressions = filters["failregex"].splitlines()
        self.assertEqual(len(expressions), 2)
        for expression in expressions:
            self.assertTrue(expression.startswith("^ \\["), expression)
            self.assertEqual(re.findall("<[A-Z]+>", expression), ["<ADDR>"])
            self.assertNotIn(".*", expression)
        self.assertTrue(filters["datepattern"].startswith("^"))
