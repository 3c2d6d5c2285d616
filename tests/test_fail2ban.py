"""Tests for the fail2ban filters."""

from __future__ import annotations

import configparser
import contextlib
import io
import logging
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.audit import AuditLog, emit_to
from synapse_login_module.config.settings import RateLimits
from synapse_login_module.errors import RateLimited
from synapse_login_module.limits.token_bucket import RateLimiter
from synapse_login_module.web.site import LoginSite
from tests.support import REPOSITORY, fail2ban
from tests.support.accounts import ALICE_PASSWORD
from tests.support.fail2ban import (
    ATTACKER,
    FORGED_JSON,
    FORGED_LINE,
    FORGED_REST,
    HOSTILE,
    VICTIM,
    written,
    written_as_json,
)
from tests.support.rig import Rig
from tests.support.site import MemoryWire, post

FOLDER = REPOSITORY / "contrib" / "fail2ban"
FILTER = FOLDER / "filter.d" / "synapse-login.conf"
JSON_FILTER = FOLDER / "filter.d" / "synapse-login-json.conf"
MODULE_FILTER = FOLDER / "filter.d" / "synapse-login-module.conf"
JAILS = ("synapse-login", "synapse-login-json", "synapse-login-module")
SYNAPSE_FORMAT = "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s"


def written_by_synapse(work: Callable[[], object]) -> str:
    """What stands in Synapse's log after it, with Synapse's default log configuration."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    # Synapse has a filter put the name of the request into each record.
    handler.setFormatter(logging.Formatter(SYNAPSE_FORMAT, defaults={"request": "POST-66"}))
    logger = logging.getLogger("synapse_login_module")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        work()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
    return log.getvalue()


class StandaloneFilterContract(fail2ban.FilterContract):
    """The tests of the filters for the standalone server."""

    events = ("login", "get_token", "delete_devices", "account_page")

    def test_other_user(self) -> None:
        """The password of somebody else is found too."""
        self.refused(("get_token", "other_user"))

    def test_other_lines(self) -> None:
        """No line of another part of the server is taken for one of these, whatever is in it."""
        log = Logger(namespace="another.part")

        def work() -> None:
            for text in (
                *HOSTILE,
                f" {FORGED_REST}",
                f"\n {FORGED_LINE}",
                f"\n\t{FORGED_LINE}",
                f"\n{FORGED_JSON}",
            ):
                log.info("about {text}", text=text)
                log.info("{text}", text=text)
                try:
                    raise ValueError(text)
                except ValueError:
                    log.failure("broken: {text}", text=text)

        logged = self.written(work)
        self.assertIn(VICTIM, logged)
        self.assertGreater(len(self.flushLoggedErrors(ValueError)), 0)
        self.assertEqual(self.found(logged), [])

    def test_real_requests(self) -> None:
        """Over the real tree, guesses are found and what is none is not."""
        rig = Rig()

        def work() -> None:
            site = LoginSite(rig.root, Clock())
            wire = MemoryWire(site)
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

        self.assertEqual(self.found(self.written(work)), ["203.0.113.9"] * 4)


class FilterTests(StandaloneFilterContract):
    """The filter for the standalone server."""

    filter = FILTER

    def written(self, work: Callable[[], object]) -> str:
        """What stands in twistd's log after the work."""
        return written(work)


class JSONFilterTests(StandaloneFilterContract):
    """The filter for the standalone server whose log is JSON."""

    filter = JSON_FILTER
    omission = f'"network":"{ATTACKER}"'

    def written(self, work: Callable[[], object]) -> str:
        """What stands in the log after the work."""
        return written_as_json(work)

    def test_workers(self) -> None:
        """The lines of a worker are found too."""
        line = (
            '{"time":"2026-11-24T15:22:45.123Z","level":"info",'
            '"logger":"synapse_login_module.audit.AuditLog","pid":4711,"worker":12,'
            '"event":"login","outcome":"refused","reason":"wrong_password",'
            f'"address":"{ATTACKER}","provider":"-","user":"x","device":""}}\n'
        )
        self.assertEqual(self.found(line), [ATTACKER])

    def test_documented(self) -> None:
        """The example in the filter's comment is a line that it finds."""
        comment = [
            line[4:] for line in self.filter.read_text().splitlines() if line.startswith("#   ")
        ]
        self.assertEqual(self.found("".join(comment) + "\n"), ["192.0.2.1"])


del StandaloneFilterContract


class ModuleFilterTests(fail2ban.FilterContract):
    """The filter for Synapse's log."""

    filter = MODULE_FILTER
    events = ("login", "reauth")

    def setUp(self) -> None:
        super().setUp()
        self.audit = AuditLog(emit=emit_to(logging.getLogger("synapse_login_module")))

    def written(self, work: Callable[[], object]) -> str:
        """What stands in Synapse's log after the work."""
        return written_by_synapse(work)

    def test_format(self) -> None:
        """The format of the log is still the one that Synapse writes by default."""
        if find_spec("synapse") is None:
            raise SkipTest("not installed: synapse")
        from synapse.config.logger import DEFAULT_LOG_CONFIG

        self.assertIn(f"'{SYNAPSE_FORMAT}'", DEFAULT_LOG_CONFIG.template.replace("\\\n", ""))


class FilesTests(SynchronousTestCase):
    """The files, as fail2ban reads them."""

    def read(self, path: Path) -> configparser.ConfigParser:
        """An INI file."""
        parser = configparser.ConfigParser()
        self.assertEqual(parser.read(path), [str(path)])
        return parser

    def test_jail(self) -> None:
        """Each jail names a filter that is there."""
        for name in JAILS:
            jail = self.read(FOLDER / "jail.d" / f"{name}.conf")[name]
            self.assertTrue((FOLDER / "filter.d" / f"{jail['filter']}.conf").exists())
            self.assertGreater(int(jail["maxretry"]), 1)

    def test_jail_and_limits(self) -> None:
        """Who guesses as fast as the default limits let is banned: what they refuse is not matched,
        and does not count.
        """
        for name in JAILS:
            jail = self.read(FOLDER / "jail.d" / f"{name}.conf")[name]
            self.assertEqual(jail["findtime"], "10m")
            clock, guesses = Clock(), 0
            address, _, _ = RateLimits().rates()
            limiter = RateLimiter(address, clock.seconds)
            for _ in range(600):
                with contextlib.suppress(RateLimited):
                    limiter.consume("attacker")
                    guesses += 1
                clock.advance(1)
            self.assertLessEqual(int(jail["maxretry"]), guesses)

    def test_filter_is_anchored(self) -> None:
        """Every expression is anchored at the start of the line, and takes addresses alone."""
        for path, start in (
            (FILTER, "^ \\["),
            (JSON_FILTER, '^","level":'),
            (MODULE_FILTER, "^ - synapse_login_module - "),
        ):
            filters = self.read(path)["Definition"]
            expressions = filters["failregex"].splitlines()
            self.assertEqual(len(expressions), 2)
            for expression in expressions:
                self.assertTrue(expression.startswith(start), expression)
                self.assertEqual(re.findall("<[A-Z]+>", expression), ["<ADDR>"])
                self.assertNotIn(".*", expression)
            self.assertTrue(filters["datepattern"].startswith("^"))
