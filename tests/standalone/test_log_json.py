"""Tests for the log as JSON."""

from __future__ import annotations

import io
import json
import math
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import FileLogObserver, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.audit import LINE, AuditLog
from synapse_login_module.errors import RateLimited
from synapse_login_module.model import Client
from synapse_login_module.standalone import log_json
from synapse_login_module.standalone.log_json import EventJSON
from tests.support.fail2ban import HOSTILE

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
ANY_TEXT = st.text(st.characters(), max_size=60)
"""With surrogates that have no other half."""

NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=9)
CLIENT = Client("192.0.2.1", "192.0.2.1")


def shown(text: str) -> str:
    """Return a text as a line gives it back: only halves of surrogates are written otherwise."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def no_constants(name: str) -> None:
    """Refuse ``NaN`` and ``Infinity``, which are no JSON."""
    raise ValueError(name)


class Unshowable:
    """An object that cannot be shown to users of a log."""

    def __str__(self) -> str:
        raise ZeroDivisionError("no text")


class LineCase(SynchronousTestCase):
    """A test case that reads lines back.

    :ivar worker: the number of the worker that writes.
    """

    worker: int | None = None

    def setUp(self) -> None:
        self.format = EventJSON(self.worker)
        self.out = io.StringIO()
        self.log = Logger("here", observer=FileLogObserver(self.out, self.format))

    def read(self, text: str | None) -> dict[str, Any]:
        """Parse one line as strictly as any reader does."""
        assert text is not None
        self.assertTrue(text.endswith("\n"))
        self.assertTrue(text.isascii())
        self.assertEqual(len(text.splitlines()), 1)
        self.assertFalse(any(ord(each) < 32 for each in text[:-1]))
        found: dict[str, Any] = json.loads(text, parse_constant=no_constants)
        json.dumps(found, ensure_ascii=False).encode("utf-8")
        self.assertEqual(list(found)[:4], ["time", "level", "logger", "pid"])
        self.assertRegex(found["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        return found

    def logged(self) -> list[dict[str, Any]]:
        """Return all lines that were logged."""
        return [self.read(f"{line}\n") for line in self.out.getvalue().split("\n")[:-1]]


class AnyTextTests(LineCase):
    """Whatever a field holds, an event is one line that gives it back."""

    @given(TEXT)
    def test_message(self, text: str) -> None:
        """The text of a message comes back as it was."""
        found = self.read(self.format({"log_format": "x{text}", "text": text, "log_time": 1.0}))
        self.assertEqual((found["text"], found["message"]), (text, f"x{text}"))

    @given(ANY_TEXT)
    def test_surrogates(self, text: str) -> None:
        """Half a surrogate comes back as text, which strict readers accept."""
        found = self.read(self.format({"log_format": "x{text}", "text": text, "log_time": 1.0}))
        self.assertEqual((found["text"], found["message"]), (shown(text), shown(f"x{text}")))

    @given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
    def test_audit(self, user: str, device: str, provider: str, reason: str, whose: str) -> None:
        """Each field of an audit line comes back."""
        events: list[dict[str, Any]] = []

        def emit(level: LogLevel, pattern: str, **fields: Any) -> None:
            events.append({"log_format": pattern, "log_level": level, "log_time": 1.5, **fields})

        limited = RateLimited(1.0, "tried", (whose,))
        AuditLog(emit=emit, clock=lambda: 0.0).record(
            "login",
            "limited",
            reason,
            CLIENT,
            user=user,
            device=device,
            provider=provider or "x",
            limited=limited,
        )
        found = self.read(self.format(events[0]))
        for name, text in (
            ("user", user),
            ("device", device),
            ("provider", provider or "x"),
            ("reason", reason),
            ("whose", whose),
            ("message", f"login limited {reason}"),
        ):
            self.assertEqual(found[name], shown(text), name)
        self.assertEqual((found["limit"], found["until"]), ("tried", "1970-01-01T00:00:01Z"))

    @given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
    def test_namespace_and_failure(self, where: str, system: str, text: str) -> None:
        """So do the logger's name, and a traceback with any text."""
        event = {
            "log_namespace": where,
            "log_system": system,
            "log_failure": Failure(ValueError(text)),
            "log_format": "",
        }
        found = self.read(self.format(event))
        self.assertEqual(found["logger"], shown(where or system or "-"))
        self.assertIn(shown(text), found["traceback"])

    @given(
        st.dictionaries(
            NAMES,
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats()
                | ANY_TEXT
                | st.binary()
                | st.just(Unshowable()),
                lambda each: (
                    st.lists(each, max_size=3)
                    | st.dictionaries(ANY_TEXT | st.integers(), each, max_size=3)
                ),
                max_leaves=8,
            ),
            max_size=4,
        ),
        st.sampled_from(["", "{", "{x.y}", "{x!z}", "{line}", "{x[}", "%s", "plain"]) | ANY_TEXT,
    )
    def test_any_event(self, fields: dict[str, Any], pattern: str) -> None:
        """Any event whatever gives a line, or none when it has no text."""
        pattern += "".join(f" {{{name}}}" for name in fields)
        line = self.format({"log_format": pattern, "log_time": 1.0, **fields})
        if line is not None:
            self.read(line)

    @given(TEXT)
    def test_relayed(self, text: str) -> None:
        """A line passes through the parent of a worker unchanged."""
        line = self.format({"log_format": LINE, "line": f"x{text}", "log_time": 1.0})
        assert line is not None
        self.assertTrue(log_json.is_line(line[:-1]))
        self.assertEqual(self.format({log_json.READY: line[:-1]}), line)


class EventTests(LineCase):
    """The fields of a line."""

    def test_fields(self) -> None:
        """A line has time, level, logger, process, the fields of the format, and the message."""
        self.log.warn("{a} and {b!r} of {c.real}", a="x", b=2, c=3, secret="hidden")
        (found,) = self.logged()
        del found["time"]
        self.assertEqual(
            found,
            {
                "level": "warn",
                "logger": "here",
                "pid": os.getpid(),
                "a": "x",
                "b": 2,
                "message": "x and 2 of 3",
            },
        )

    def test_time(self) -> None:
        """Times are in UTC, cut to milliseconds; an event without one has that of its writing."""
        for when, written in (
            (0.0, "1970-01-01T00:00:00.000Z"),
            (1790000000.25, "2026-09-21T14:13:20.250Z"),
            (1790000000.9999, "2026-09-21T14:13:20.999Z"),
            (951782400.5, "2000-02-29T00:00:00.500Z"),
        ):
            self.assertEqual(
                self.read(self.format({"log_format": "x", "log_time": when}))["time"], written
            )
        for bad in (None, math.nan, math.inf, -1.0, 1e300, "x"):
            found = self.read(self.format({"log_format": "x", "log_time": bad}))
            self.assertGreater(found["time"], "2026")

    def test_own_names(self) -> None:
        """A field cannot take the place of one that each line has."""
        event = {"log_format": "{time} {pid} {message}", "time": 1, "pid": 2, "message": "x"}
        found = self.read(self.format({**event, "log_time": 0.0}))
        self.assertEqual((found["time_"], found["pid_"], found["message_"]), (1, 2, "x"))
        self.assertEqual(found["time"], "1970-01-01T00:00:00.000Z")
        self.assertEqual((found["pid"], found["message"]), (os.getpid(), "1 2 x"))

    def test_traceback(self) -> None:
        """A traceback is within the line; without other text, its last line is the message."""
        try:
            raise ValueError("two\nlines")
        except ValueError:
            self.log.failure("it broke: {what}", what="x")
            self.log.failure("")
        told, bare = self.logged()
        self.assertEqual((told["level"], told["message"]), ("critical", "it broke: x"))
        self.assertIn("ValueError: two\nlines", told["traceback"])
        self.assertIn("in test_traceback", told["traceback"])
        self.assertEqual(bare["message"], "two\nlines")

    def test_unformattable(self) -> None:
        """An event whose text cannot be made gives a line that says so."""
        self.log.info("{missing}")
        self.log.info("{it}", it=Unshowable())
        self.log.info("{", it=1)
        self.log.info(LINE, line=Unshowable())
        lines = self.logged()
        self.assertEqual(len(lines), 4)
        for each in lines:
            self.assertRegex(each["message"], "Unable to format|unformattable|could not be")

    def test_bad_failure(self) -> None:
        """So does one whose failure is none."""
        found = self.read(self.format({"log_format": "x", "log_failure": 1, "log_time": 1.0}))
        self.assertEqual(found["message"], "x")
        self.assertIn("cannot be shown", found["traceback"])

    def test_nothing(self) -> None:
        """An event without any text gives no line, as in text."""
        self.assertIsNone(self.format({"log_time": 1.0}))
        self.assertIsNone(self.format({"log_format": "", "log_time": 1.0}))

    def test_numbers(self) -> None:
        """Numbers that JSON cannot write are text."""
        values: tuple[Any, ...] = (math.nan, math.inf, -math.inf, 10**5000)
        for value in values:
            found = self.read(self.format({"log_format": LINE, "line": "x", "n": value}))
            self.assertIsInstance(found["n"], str)

    def test_circle(self) -> None:
        """A value that holds itself ends somewhere."""
        circle: list[object] = []
        circle.append(circle)
        self.log.info("{it}", it=circle)
        self.assertEqual(self.logged()[0]["message"], "[[...]]")

    def test_long(self) -> None:
        """A line of any length stays one line."""
        self.log.info("{text}", text="\n\u2028x" * 1_000_000)
        self.assertEqual(len(self.logged()[0]["text"]), 3_000_000)

    def test_bytes(self) -> None:
        """Bytes are text; those that are not UTF-8 are shown as such."""
        found = self.read(self.format({"log_format": "{it}", "it": b"\xc3\xa9\xff\n"}))
        self.assertEqual(found["it"], "\u00e9\\xff\n")

    def test_names_are_cut(self) -> None:
        """As in text, a name that a client sends is cut at 255 characters."""
        AuditLog(emit=self.log.emit).record("login", "refused", "x", CLIENT, user="y" * 10_000)
        self.assertEqual(self.logged()[0]["user"], "y" * 255)

    def test_omitted(self) -> None:
        """The line about omitted lines has its number and what they were, and no event."""
        audit = AuditLog(emit=self.log.emit)
        for _ in range(15):
            audit.record("login", "refused", "x", CLIENT)
        audit.flush()
        found = self.logged()[-1]
        self.assertEqual((found["omitted"], found["count"], found["seconds"]), ("login", 5, 60))
        self.assertEqual((found["network"], found["reason"]), ("192.0.2.1", "x"))
        self.assertNotIn("event", found)

    def test_hostile(self) -> None:
        """What attacks the log as text is text within its field."""
        for name in HOSTILE:
            AuditLog(emit=self.log.emit).record("login", "refused", "x", CLIENT, user=name)
        self.assertEqual([each["user"] for each in self.logged()], [each[:255] for each in HOSTILE])


class WorkerTests(LineCase):
    """The lines of workers, and about them."""

    worker = 2

    def test_own(self) -> None:
        """A worker's lines name it."""
        self.log.info("x")
        self.assertEqual(self.logged()[0]["worker"], 2)

    def test_about(self) -> None:
        """What another process wrote names that one."""
        about = {log_json.WORKER: 3, log_json.PID: 4711}
        found = self.read(self.format({"log_format": LINE, "line": "x", **about}))
        self.assertEqual((found["worker"], found["pid"]), (3, 4711))

    def test_is_line(self) -> None:
        """Only a whole line of ours passes as one."""
        self.log.info("x")
        line = self.out.getvalue()[:-1]
        self.assertTrue(log_json.is_line(line))
        for other in (line[:-1], line[1:], line + line, "", "1", "[]", "x", '{"time":"' * 9999):
            self.assertFalse(log_json.is_line(other), other[:80])
