"""Tests for the lines in the log."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, eventAsText, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import (
    AccountNotLinked,
    InvalidCredentials,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
)
from synapse_login_module.model import Client

CLIENT = Client("2001:db8::1", "2001:db8::/64")
LINE = re.compile(
    r"login outcome=refused reason=wrong_password address=2001:db8::1 provider=bcrypt"
    r' user=("(?:[^"\\]|\\.)*") device=("(?:[^"\\]|\\.)*")',
    re.ASCII,
)
FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |\Z)')

any_text = st.text(st.characters())


def record(audit: AuditLog | None = None, **changes: Any) -> LogEvent:
    """The event of one line."""
    fields: dict[str, Any] = {
        "event": "login",
        "outcome": "refused",
        "reason": "wrong_password",
        "client": CLIENT,
        "user": "@alice:example.com",
        "device": "PHONE",
        "provider": "bcrypt",
        **changes,
    }
    with capturedLogs() as events:
        (audit or AuditLog()).record(**fields)
    (event,) = events
    return event


def line(**changes: Any) -> str:
    """One line, as a log file shows it."""
    return formatEvent(record(**changes))


class LineTests(SynchronousTestCase):
    """What a line looks like."""

    def test_line(self) -> None:
        """The words come first, what the client chose last and in quotes."""
        self.assertEqual(
            line(),
            "login outcome=refused reason=wrong_password address=2001:db8::1 provider=bcrypt"
            ' user="@alice:example.com" device="PHONE"',
        )

    def test_long_names(self) -> None:
        """A client chooses how long a device ID is, and not how long a line."""
        with capturedLogs() as events:
            AuditLog().record("login", "ok", "password", CLIENT, user="u" * 300, device="d" * 512)
        text = formatEvent(events[0])
        self.assertTrue(text.endswith(f' user="{"u" * 255}" device="{"d" * 255}"'), text)

    def test_nothing_known(self) -> None:
        """What is not known is a dash or an empty text."""
        with capturedLogs() as events:
            AuditLog().record("refresh", "refused", "unknown_token", CLIENT)
        self.assertEqual(
            formatEvent(events[0]),
            "refresh outcome=refused reason=unknown_token address=2001:db8::1 provider=-"
            ' user="" device=""',
        )

    def test_fail2ban(self) -> None:
        """A pattern as fail2ban has them finds the address."""
        text = eventAsText(record(), includeTimestamp=True, includeSystem=True)
        match = re.search(r"login outcome=refused reason=\w+ address=(\S+) ", text)
        assert match is not None
        self.assertEqual(match[1], "2001:db8::1")
        self.assertNotIn("\n", text)

    def test_level(self) -> None:
        """A line is information, unless somebody says otherwise."""
        self.assertEqual(record()["log_level"], LogLevel.info)
        self.assertEqual(record(level=LogLevel.warn)["log_level"], LogLevel.warn)

    def test_long_user(self) -> None:
        """A name that is very long is cut."""
        self.assertIn(f'user="{"a" * 255}" device', line(user="a" * 10_000))


class LimitTests(SynchronousTestCase):
    """What a line says of a limit, and of the provider."""

    def failed(self, error: Exception) -> LogEvent:
        """The event of an attempt that ended with this error."""
        with capturedLogs() as events:
            AuditLog(clock=lambda: 1_700_000_000.5).failed(
                "login", error, CLIENT, user="@alice:example.com"
            )
        return events[0]

    def test_third_party(self) -> None:
        """What an error of a third party calls its reason does not come into the line."""

        class Down(ProviderUnavailable):
            def __init__(self, reason: str) -> None:
                super().__init__(reason)
                self.reason = reason

        with capturedLogs() as events:
            AuditLog().failed("login", Down("x address=192.0.2.9"), CLIENT, user="")
        (event,) = events
        said = "outcome=unavailable reason=provider address=2001:db8::1 "
        self.assertIn(said, formatEvent(event))

    def test_bucket(self) -> None:
        """Behind all else, and behind what fail2ban reads, it says which limit refused, whose, and
        until when.
        """
        event = self.failed(RateLimited(20.8, "failures_48", ("@alice:x.org", "2001:db8::/48")))
        self.assertEqual(
            formatEvent(event),
            "login outcome=limited reason=rate address=2001:db8::1 provider=-"
            ' user="@alice:example.com" device="" limit=failures_48'
            ' whose="@alice:x.org 2001:db8::/48" until=2023-11-14T22:13:42Z',
        )
        fields = {name: event[name] for name in ("limit", "whose", "until")}
        self.assertEqual(
            fields,
            {
                "limit": "failures_48",
                "whose": "@alice:x.org 2001:db8::/48",
                "until": "2023-11-14T22:13:42Z",
            },
        )

    def test_queue(self) -> None:
        """A full queue is nobody's bucket."""
        text = formatEvent(self.failed(Overloaded(1.0)))
        self.assertIn("reason=overloaded", text)
        self.assertTrue(
            text.endswith(' limit=hashing_queue whose="" until=2023-11-14T22:13:22Z'), text
        )

    def test_too_many_failures(self) -> None:
        """So it says of the limit that refuses even the right password."""
        limited = RateLimited(1.0, "tried", ("@alice:x.org", "192.0.2.1"))
        text = formatEvent(self.failed(InvalidCredentials("too_many_failures", limited=limited)))
        self.assertIn("outcome=refused reason=too_many_failures", text)
        self.assertIn(' limit=tried whose="@alice:x.org 192.0.2.1" until=', text)

    def test_provider(self) -> None:
        """A refusal says which provider refused."""
        error = InvalidCredentials()
        error.provider = "ldap"
        self.assertIn(" provider=ldap user=", formatEvent(self.failed(error)))
        self.assertIn(" provider=- user=", formatEvent(self.failed(InvalidCredentials())))

    def test_hostile_name(self) -> None:
        """A name of a client's choice makes no field and no line there either."""
        for name in ('" until=never "', "x\nlogin outcome=ok", "\u2028", "\ud800", "x" * 10_000):
            text = formatEvent(self.failed(RateLimited(1.0, "failures", (name, "192.0.2.1"))))
            self.assertEqual(text.splitlines(), [text])
            self.assertTrue(text.isascii() and text.isprintable())
            self.assertLess(len(text), 5000)
            names = [match[1] for match in FIELD.finditer(text)]
            self.assertEqual(names[-3:], ["limit", "whose", "until"])


class InjectionTests(SynchronousTestCase):
    """What a client can do to a line."""

    def test_forged_line(self) -> None:
        """No name makes a second line."""
        forged = "x\nlogin outcome=refused reason=wrong_password address=192.0.2.99 provider=-"
        for end in ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0"):
            for field in ("user", "device"):
                text = line(**{field: forged.replace("\n", end)})
                self.assertEqual(text.splitlines(), [text])
                self.assertTrue(text.isascii() and text.isprintable(), text)

    def test_forged_field(self) -> None:
        """No name makes a field or ends its own."""
        for name in (
            '" outcome=ok address=192.0.2.99 "',
            "alice outcome=ok",
            'a\\" outcome=ok \\',
            "\\",
            '\\"',
            "'",
            "{address} {event} {log_source}",
            "{0}",
            "}{",
            "%(address)s",
        ):
            for field in ("user", "device"):
                text = line(**{field: name})
                names = [match[1] for match in FIELD.finditer(text)]
                self.assertEqual(
                    names, ["outcome", "reason", "address", "provider", "user", "device"]
                )

    @settings(max_examples=300)
    @given(any_text, any_text)
    @example("\ud800", '"')
    @example("\x7f\x9b31m", "\u202e")
    def test_any_names(self, user: str, device: str) -> None:
        """Whatever the names, the line is one of its form, and they can be read back."""
        match = LINE.fullmatch(line(user=user, device=device))
        assert match is not None
        self.assertEqual((json.loads(match[1]), json.loads(match[2])), (user, device))


class CountTests(SynchronousTestCase):
    """The counts."""

    def test_counts(self) -> None:
        """Each outcome is counted, whoever it was."""
        audit = AuditLog()
        self.assertEqual(dict(audit.counts), {})
        for changes in (
            {},
            {"user": "@bob:example.com", "client": Client("192.0.2.1", "192.0.2.1")},
            {"reason": "unknown_user"},
            {"event": "get_token"},
            {"outcome": "ok", "reason": "password"},
        ):
            record(audit, **changes)
        self.assertEqual(
            dict(audit.counts),
            {
                ("login", "refused", "wrong_password"): 2,
                ("login", "refused", "unknown_user"): 1,
                ("get_token", "refused", "wrong_password"): 1,
                ("login", "ok", "password"): 1,
            },
        )

    def test_counted_elsewhere(self) -> None:
        """Whoever counts elsewhere is told of each outcome too."""
        told: list[tuple[str, str, str]] = []
        audit = AuditLog(lambda *outcome: told.append(outcome))
        record(audit)
        record(audit, outcome="ok", reason="password")
        self.assertEqual(
            told, [("login", "refused", "wrong_password"), ("login", "ok", "password")]
        )

    def test_apart(self) -> None:
        """Two logs count apart."""
        first, second = AuditLog(), AuditLog()
        record(first)
        self.assertEqual((len(first.counts), len(second.counts)), (1, 0))


class FloodTests(SynchronousTestCase):
    """Lines that anybody can cause."""

    def flood(self, **changes: Any) -> tuple[AuditLog, list[str]]:
        """What a thousand refreshes of one client leave in the log."""
        audit = AuditLog(clock=Clock().seconds)
        fields: dict[str, Any] = {"outcome": "refused", "reason": "unknown_token", **changes}
        with capturedLogs() as events:
            for number in range(1000):
                audit.record("refresh", client=CLIENT, device=f"{number}", **fields)
            audit.flush()
        return audit, [formatEvent(event) for event in events]

    def test_junk(self) -> None:
        """A few are written, then how many more there were; the totals count all."""
        audit, lines = self.flood()
        self.assertEqual(len(lines), 11)
        self.assertEqual(
            lines[-1],
            "more: refresh outcome=refused reason=unknown_token count=990 seconds=60"
            " network=2001:db8::/64",
        )
        self.assertEqual(audit.counts["refresh", "refused", "unknown_token"], 1000)

    def test_limited(self) -> None:
        """So it is with those that the limits refuse."""
        _, lines = self.flood(outcome="limited", reason="rate")
        self.assertEqual(len(lines), 11)

    def test_not_linked(self) -> None:
        """What is said beside a line is said with the line alone."""
        audit = AuditLog(clock=Clock().seconds)
        error = AccountNotLinked("@alice:x.org", "it is Bob's", "existing_accounts")
        with capturedLogs() as events:
            for _ in range(100):
                audit.failed("login", error, CLIENT, user="@alice:x.org")
        lines = [formatEvent(event) for event in events]
        self.assertEqual(sum("is not linked" in each for each in lines), 10)

    def test_timer(self) -> None:
        """With a timer the number of the others stands there once the minute is over."""
        clock = Clock()
        audit = AuditLog(clock=clock.seconds, call_later=clock.callLater)
        with capturedLogs() as events:
            for _ in range(12):
                audit.record("refresh", "refused", "unknown_token", CLIENT)
            clock.advance(60)
        self.assertIn("count=2 seconds=60", formatEvent(events[-1]))

    def test_other_clients(self) -> None:
        """The line of another network is written all the same."""
        audit, _ = self.flood()
        other = Client("192.0.2.1", "192.0.2.1")
        with capturedLogs() as events:
            audit.record("refresh", "refused", "unknown_token", other)
        self.assertIn("address=192.0.2.1", formatEvent(events[0]))

    def test_good(self) -> None:
        """What goes well counts by session, since many users may share an address."""
        _, lines = self.flood(outcome="ok", reason="lenient", user="@alice:example.com")
        self.assertEqual(len(lines), 1000)
        audit = AuditLog(clock=Clock().seconds)
        with capturedLogs() as events:
            for _ in range(1000):
                audit.record("refresh", "ok", "lenient", CLIENT, user='@a"b:c', device="PHONE")
            audit.flush()
        self.assertEqual(len(events), 11)
        self.assertTrue(
            formatEvent(events[-1]).endswith('count=990 seconds=60 user="@a\\"b:c" device="PHONE"')
        )
