"""What commands have written down is carried out, whatever stands beside it; over fakes, and a
database of a few rows. A real Synapse is in ``test_link_commands`` and ``test_sweep``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.errors import ProviderUnavailable
from tests.accounts.fakes import Accounts
from tests.synapse.test_marks import HAS_SYNAPSE, NeedsSynapse

if HAS_SYNAPSE or TYPE_CHECKING:
    from synapse_login_module.synapse import link_rows
    from synapse_login_module.synapse.database import CursorRows
    from synapse_login_module.synapse.wishes import WishService

_EVERY = 5
_AFTER_TROUBLE = 60


class FakeHomeserver:
    """A database and nothing else."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def call_in_background(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(function, *arguments)

    def transaction(self, _: str, work: Callable[[Any], Any]) -> Deferred[Any]:
        return succeed(work(self._rows))


class WishTests(NeedsSynapse):
    """:class:`synapse_login_module.synapse.wishes.WishService`."""

    def setUp(self) -> None:
        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        self.rows = CursorRows(connection.cursor(), "?")
        for statement in link_rows.CREATE:
            self.rows.write(statement)
        self.accounts = Accounts()
        self.watch = self.accounts.watch
        homeserver: Any = FakeHomeserver(self.rows)
        self.service = WishService(
            homeserver,
            self.watch,
            self.accounts.questions,
            self.accounts.judge,
            self.watch,
            self.accounts.clock,
        )

    def start(self) -> None:
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def hold(self, number: int, provider: str = "ldap") -> list[str]:
        """Have accounts that have vanished, and that the brake is to hold no longer."""
        users = self.watch.add(number, provider)
        for user in users:
            self.watch.change(user, gone_since=1, held=True)
            link_rows.insert_wish(self.rows, user, "gone", False, 1)
        self.accounts.lose(users)
        return users

    def change(self, user: str, reason: str = "unlinked") -> None:
        """Have a command change a link."""
        link_rows.insert_wish(self.rows, user, reason, False, 2)

    def left(self) -> set[str]:
        """List the users who still have a wish."""
        found = self.rows.fetch("SELECT user_id FROM synapse_login_wishes")
        return {user for (user,) in found}

    def test_directory_away(self) -> None:
        """A changed link ends at once while a directory is away with hundreds to be let go."""
        held = self.hold(250)
        self.accounts.lose(held, ProviderUnavailable("gone away"))
        self.change("@changed:x")
        self.start()
        self.assertEqual(self.watch.done, [("unlinked", "@changed:x")])
        self.change("@later:x", "relinked")
        self.accounts.clock.advance(_EVERY)
        self.assertEqual(self.watch.done[1:], [("relinked", "@later:x")])
        self.assertEqual(self.left(), set(held))

    def test_rounds_during_an_outage(self) -> None:
        """A directory that is away is asked once a minute, and then all are let go."""
        held = self.hold(250)
        self.accounts.lose(held, ProviderUnavailable("gone away"))
        self.start()
        self.accounts.pass_time(_AFTER_TROUBLE - 1, 1)
        self.assertEqual(len(self.accounts.providers.asked), 1)
        self.accounts.lose(held)
        self.accounts.pass_time(2, 1)
        self.assertEqual(self.watch.ended(), held)
        self.assertEqual(self.left(), set())

    def test_other_provider(self) -> None:
        """Those of a provider that answers do not wait for one that is away."""
        away, gone = self.hold(150), self.hold(3, "sql")
        self.accounts.lose(away, ProviderUnavailable("gone away"))
        self.start()
        self.assertEqual(self.watch.ended(), gone)
        self.assertEqual(self.left(), set(away))

    def test_slow_provider(self) -> None:
        """A changed link does not wait for a provider that is slow to answer."""
        held = self.hold(1)
        self.accounts.providers.slow.add("ldap")
        self.start()
        self.change("@changed:x")
        self.accounts.clock.advance(_EVERY)
        self.assertEqual(self.watch.done, [("unlinked", "@changed:x")])
        self.accounts.providers.waiting[0].callback(None)
        self.assertEqual(self.watch.ended(), held)
        self.assertEqual(self.left(), set())

    def test_one_fails(self) -> None:
        """What goes wrong with one is logged and tried again; the others' is done."""
        end, broken = self.watch.end, ["@b:x"]

        def end_or_fail(user_id: str, reason: EndReason) -> Deferred[int]:
            if user_id in broken:
                raise ZeroDivisionError
            return end(user_id, reason)

        self.patch(self.watch, "end", end_or_fail)
        for name in "abc":
            self.change(f"@{name}:x")
        self.start()
        self.assertEqual(self.watch.done, [("unlinked", "@a:x"), ("unlinked", "@c:x")])
        self.assertEqual(self.left(), {"@b:x"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        broken.clear()
        self.accounts.clock.advance(_EVERY)
        self.assertEqual(self.left(), set())

    def test_one_question_fails(self) -> None:
        """So it is with those who have vanished."""
        held = self.hold(3)
        ask = self.accounts.providers.account_status
        first = self.watch.rows[held[0]].link.subject

        def ask_or_fail(provider: str, subject: str) -> Any:
            if subject == first:
                raise ZeroDivisionError
            return ask(provider, subject)

        self.patch(self.accounts.providers, "account_status", ask_or_fail)
        self.start()
        self.assertEqual(self.watch.ended(), held[1:])
        self.assertEqual(self.left(), {held[0]})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_held_no_longer(self) -> None:
        """An account that is no longer held by then keeps its sessions."""
        (user,) = self.hold(1)
        self.watch.change(user, gone_since=None, held=False)
        self.start()
        self.assertEqual((self.watch.done, self.left()), ([], set()))
