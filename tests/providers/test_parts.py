"""Tests for the parts of providers: threads, names and JSON templates."""

from __future__ import annotations

import threading
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.providers.http.templates import fill, look_up, placeholders
from synapse_login_module.providers.identifiers import (
    Named,
    id_in,
    named,
    named_as_typed,
    names_of,
    names_of_subject,
    own_user_id,
    subject_of,
    tagged_id,
)
from synapse_login_module.providers.thread_pool import BoundedPool
from tests.providers.case import SERVER, ProviderCase, email, lines, phone, reactor, user
from tests.support.accounts import ALICE
from tests.support.waiting import TIMEOUT, until


class BoundedPoolTests(ProviderCase):
    """The threads of a backend."""

    def pool(self, threads: int = 1, queue: int = 1) -> BoundedPool:
        """Make a pool, which is stopped after the test."""
        pool = BoundedPool(reactor, threads, queue)
        pool.startService()
        self.addCleanup(pool.stopService)
        return pool

    def blocked(self) -> threading.Event:
        """Make an event that is set after the test at the latest."""
        event = threading.Event()
        self.addCleanup(event.set)
        return event

    async def test_result(self) -> None:
        """It fires with what the work returns, and fails with what it raises."""
        pool = self.pool()
        self.assertNotEqual(await pool.run(threading.get_ident), threading.get_ident())
        await self.fails(pool.run(lambda: 1 / 0), ZeroDivisionError)

    async def test_room(self) -> None:
        """Work without a place fails at once, and there is room again when work has ended."""
        pool, blocked = self.pool(), self.blocked()
        work = [pool.run(blocked.wait) for _ in range(2)]
        await self.fails(pool.run(lambda: None), ProviderUnavailable)
        blocked.set()
        for each in work:
            self.assertTrue(await each)
        self.assertIsNone(await pool.run(lambda: None))

    async def test_cancelled(self) -> None:
        """Cancelling gives up the work, once; its thread is free when it has ended."""
        pool, blocked = self.pool(queue=0), self.blocked()
        given_up: list[int] = []
        work = pool.run(blocked.wait, lambda: given_up.append(1))
        work.cancel()
        await self.fails(work, CancelledError)
        self.assertEqual(given_up, [1])
        await self.fails(pool.run(lambda: None), ProviderUnavailable)
        blocked.set()
        await until(lambda: not pool.unfinished)
        self.assertIsNone(await pool.run(lambda: None))

    async def test_cancelled_while_waiting(self) -> None:
        """Work that was given up before it began is not done."""
        pool, blocked = self.pool(), self.blocked()
        done: list[int] = []
        first = pool.run(blocked.wait)
        second = pool.run(lambda: done.append(1))
        second.cancel()
        await self.fails(second, CancelledError)
        blocked.set()
        await first
        await pool.run(lambda: None)
        self.assertEqual(done, [])

    async def test_stopping(self) -> None:
        """Stopping gives up the work under way, and rejects later work."""
        pool, blocked, begun = self.pool(), self.blocked(), threading.Event()

        def work() -> bool:
            begun.set()
            return blocked.wait()

        first, second = pool.run(work, blocked.set), pool.run(lambda: None)
        await until(begun.is_set)
        pool.stopService()
        self.assertTrue(await first)
        await self.fails(second, ProviderUnavailable)
        await self.fails(pool.run(lambda: None), ProviderUnavailable)

    async def test_stopping_without_end(self) -> None:
        """Work that does not end does not keep the pool from stopping, and its Deferred fails."""
        blocked, begun = self.blocked(), threading.Event()
        pool = BoundedPool(reactor, 1, 1, grace=0.01)
        events = self.catch_log()

        def work() -> bool:
            begun.set()
            return blocked.wait()

        running = [pool.run(work) for _ in range(2)]
        await until(begun.is_set)
        pool.stopService()
        for each in running:
            await self.fails(each, ProviderUnavailable)
        self.assertEqual(lines(events), ["1 threads are left behind: their work does not end"])

    async def test_no_more_threads(self) -> None:
        """There are never more threads than allowed, and they are reused."""
        pool = self.pool(threads=2, queue=100)
        both = threading.Barrier(2)  # else one thread might be fast enough for all of it

        def work() -> int:
            both.wait(TIMEOUT)
            return threading.get_ident()

        found = []
        for _ in range(5):
            found += await gatherResults([pool.run(work), pool.run(work)])
        self.assertEqual(len(set(found)), 2)
        self.assertEqual(len(pool._threads._threads), 2)

    async def test_without_a_start(self) -> None:
        """It works without having been started."""
        pool = BoundedPool(reactor, 1, 1)
        self.addCleanup(pool.stopService)
        self.assertEqual(await pool.run(lambda: 7), 7)


class NamesTests(SynchronousTestCase):
    """Names that clients send and backends return."""

    def test_own(self) -> None:
        """A local part or a user ID of this server is one of ours."""
        for text in ("alice", ALICE):
            self.assertEqual(own_user_id(text, SERVER), ALICE)
        for odd in ("o'brien", "a.b-c=d/e+f", "é"):
            self.assertEqual(own_user_id(odd, SERVER), f"@{odd}:example.com")

    def test_not_own(self) -> None:
        """All other values are no user ID of this server."""
        strangers: list[object] = [
            *(None, 7, b"alice", [], "", "@", "@:example.com", "@alice", "@alice:", "a:b", "a@b"),
            *("@alice:example.org", "a\n", "a\0", "\ud800", "@alice:example.com:8448"),
            *("a" * 244, "a b", " alice", "alice "),
        ]
        for stranger in strangers:
            self.assertIsNone(own_user_id(stranger, SERVER), repr(stranger))
        self.assertIsNotNone(own_user_id("a" * 242, SERVER))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Whatever the text, what comes out is the same user ID when it is read again."""
        user_id = own_user_id(text, SERVER)
        if user_id is not None:
            self.assertEqual(own_user_id(user_id, SERVER), user_id)
            self.assertLessEqual(len(user_id.encode()), 255)

    def test_names_of(self) -> None:
        """An identifier has the names of its kind; ``None`` if it is no user of this server."""
        self.assertEqual(names_of(user("alice"), SERVER), {"user_id": ALICE, "localpart": "alice"})
        self.assertEqual(names_of(email(), SERVER), {"email": "alice@example.com"})
        self.assertEqual(names_of(phone(), SERVER), {"phone": "447700900123"})
        self.assertEqual(
            names_of(email(" Straße@X.Example"), SERVER), {"email": "strasse@x.example"}
        )
        for stranger in (
            *(user("alice", "else.example"), user(""), phone("")),
            *(email("a\0@b"), email(""), email("alice"), email("a@b@c"), email("a b@c")),
        ):
            self.assertIsNone(names_of(stranger, SERVER))

    def test_names_of_subject(self) -> None:
        """A subject that is a name is a bare name or a full user ID, and keeps its spelling."""
        self.assertEqual(
            names_of_subject("Alice", SERVER),
            {"user_id": "@Alice:example.com", "localpart": "Alice", "subject": "Alice"},
        )
        self.assertEqual(
            names_of_subject(ALICE, SERVER),
            {"user_id": ALICE, "localpart": "alice", "subject": ALICE},
        )
        for stranger in ("", "@", "@alice:elsewhere.example", "a:b", "a\n"):
            self.assertIsNone(names_of_subject(stranger, SERVER), stranger)

    def test_named(self) -> None:
        """A user ID is made from a bare name, whose ASCII letters are put in lower case and nothing
        else; a full one stays as it is.
        """
        for given_name, user_id in (
            ("alice", ALICE),
            ("ALICE", ALICE),
            (ALICE, ALICE),
            ("@Old.Alice:example.com", "@Old.Alice:example.com"),
            ("a.b_c=d/e+f-0", "@a.b_c=d/e+f-0:example.com"),
            *(
                (name, None)
                for name in ("\u212aate", "aliçe", "a b", "a:b", "a@b", "a!", "a" * 243)
            ),
        ):
            self.assertEqual(named(given_name, SERVER), Named(given_name, user_id))
        for stranger in (
            None,
            7,
            b"alice",
            "",
            "@alice:elsewhere.example",
            "@",
            "@a b:example.com",
            "a\n",
        ):
            self.assertIsNone(named(stranger, SERVER), repr(stranger))

    def test_as_typed(self) -> None:
        """A name that a client typed is one account in any case."""
        for typed in ("alice", "Alice", "ALICE"):
            self.assertEqual(named_as_typed(typed, SERVER), Named("alice", ALICE))
        self.assertEqual(named_as_typed("\u212aATE", SERVER), Named("\u212aate", None))

    def test_subject_of(self) -> None:
        """An id is text, a whole number or a UUID, and never looks like a user ID."""
        uuid = UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2")
        for given_id, subject in (
            *(("u-17", "u-17"), ("a b:c", "a b:c"), (17, "17"), (0, "0"), (uuid, str(uuid))),
            *(("x" * 512, "x" * 512), ("x" * 513, None), ("", None), ("a\0", None), (ALICE, None)),
            *((None, None), (True, None), (1.5, None), (b"x", None), ([], None)),
        ):
            self.assertEqual(subject_of(given_id), subject, repr(given_id))

    def test_tagged_id(self) -> None:
        """An id gets a tag, which no name that makes a user ID has."""
        uuid = UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2")
        for given_id, text in (
            *(("u-17", "u-17"), ("a b:c", "a b:c"), (17, "17"), (uuid, str(uuid))),
            *(("id:17", "id:17"), ("alice", "alice"), ("x" * 509, "x" * 509)),
        ):
            subject = tagged_id(given_id)
            assert subject is not None
            self.assertEqual((subject, id_in(subject)), (f"id:{text}", text))
            self.assertIsNone(names_of_subject(subject, SERVER))
            who = named(subject, SERVER)
            self.assertIsNone(who and who.user_id, subject)
        for unusable in (None, "", True, 1.5, "a\0", ALICE, "x" * 510):
            self.assertIsNone(tagged_id(unusable), repr(unusable))
        for name in ("alice", "17", "id", "id:", "ID:17", ALICE, "@id:17", "@id:example.com", ""):
            self.assertIsNone(id_in(name), name)


class JSONMapTests(SynchronousTestCase):
    """JSON templates and paths."""

    def test_fill(self) -> None:
        """Placeholders are filled in wherever there is text, and nothing else changes."""
        template = {"a": "{x}-{y}", "b": ["{x}", 1, None, True, {"{x}": "y"}], "c": "{", "d": "{}"}
        self.assertEqual(
            fill(template, {"x": "1", "y": "{x}"}),
            {"a": "1-{x}", "b": ["1", 1, None, True, {"{x}": "y"}], "c": "{", "d": "{}"},
        )
        self.assertEqual(sorted(placeholders(template)), ["x", "x", "y"])

    @given(st.text(), st.text())
    def test_any_value(self, first: str, second: str) -> None:
        """A value is filled in unchanged, even if it looks like a placeholder."""
        values = {"x": first, "y": second}
        self.assertEqual(fill(["{x}", "{y}"], values), [first, second])

    def test_look_up(self) -> None:
        """A path leads through objects and lists, or to ``None``."""
        answer = {"a": {"b": [{"c": 1}, "d"]}, "0": "e", "n": None}
        for path, expected in (
            ("a.b.0.c", 1),
            ("a.b.1", "d"),
            ("0", "e"),
            ("n", None),
            *((path, None) for path in ("x", "a.x", "a.b.2", "a.b.-1", "a.b.c", "n.x", "0.0", "")),
        ):
            self.assertEqual(look_up(answer, path), expected, path)
        self.assertIsNone(look_up([1], "²"))
