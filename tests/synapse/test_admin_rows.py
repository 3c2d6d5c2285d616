"""What is noted of administrators, in a database of a few rows, while others change it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse import admin_rows, link_rows
from synapse_login_module.synapse.admin_watch import AdministratorWatch
from synapse_login_module.synapse.administrators import Administrators
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.database import CursorRows
from tests.synapse.test_linking import LinkingCase, uid

T = TypeVar("T")

ALICE = uid("alice")
CLAIM = Claim(("ldap",), "id-of-alice")


class FakeHomeserver:
    """The part of Synapse that administrators need.

    :ivar meanwhile: called before an account is changed.
    :ivar refused: the accounts that cannot be changed.
    :ivar cached: whether an account is an administrator, as Synapse still believes.
    """

    def __init__(self, rows: CursorRows) -> None:
        self._rows = rows
        self.refused: set[str] = set()
        self.cached: bool | None = None
        self.meanwhile: Callable[[], Any] = lambda: None

    def now(self) -> int:
        return 1000

    async def transaction(self, name: str, work: Callable[[Any], T]) -> T:
        return work(self._rows)

    def call_in_background(
        self, function: Callable[..., Awaitable[T]], *arguments: Any
    ) -> Deferred[T]:
        return ensureDeferred(cast("Coroutine[Any, Any, T]", function(*arguments)))

    async def is_administrator(self, user_id: str) -> bool:
        found = self._rows.fetch("SELECT admin FROM users WHERE name = ?", user_id)
        return found == [(1,)] if self.cached is None else self.cached

    async def set_administrator(self, user_id: str, is_admin: bool) -> None:
        self.meanwhile()
        if user_id in self.refused:
            raise RuntimeError("refused")
        self._rows.write("UPDATE users SET admin = ? WHERE name = ?", int(is_admin), user_id)


class AdministratorTests(LinkingCase):
    """:class:`synapse_login_module.synapse.administrators.Administrators`."""

    def setUp(self) -> None:
        super().setUp()
        self.add_user("alice")
        link_rows.insert_link(self.rows, Link(ALICE, "ldap", CLAIM.subject), 0)
        self.server = FakeHomeserver(self.rows)
        self.administrators = Administrators(cast(Homeserver, self.server))

    def settle(self, admin: bool | None, claim: Claim = CLAIM) -> tuple[bool, bool]:
        """Have a login say something; whether she is an administrator then, and noted as one."""
        settling = self.administrators.settle(ALICE, claim, admin)
        self.successResultOf(Deferred.fromCoroutine(settling))
        return self.state

    @property
    def state(self) -> tuple[bool, bool]:
        """Whether she is an administrator, and noted as one."""
        (found,) = self.rows.fetch("SELECT admin FROM users WHERE name = ?", ALICE)
        return bool(found[0]), admin_rows.is_made(self.rows, ALICE)

    def forget(self) -> None:
        """Do what the watch does about an account that it found to be no administrator."""
        self.successResultOf(Deferred.fromCoroutine(self.administrators.forget(ALICE)))

    def test_settle(self) -> None:
        """It is given, kept and taken with the note; nothing is said by ``None``."""
        for admin, expected in (
            (None, (False, False)),
            (False, (False, False)),
            (True, (True, True)),
            (None, (True, True)),
            (True, (True, True)),
            (False, (False, False)),
        ):
            self.assertEqual(self.settle(admin), expected)

    def test_otherwise(self) -> None:
        """What was given by somebody else is neither noted nor taken."""
        self.rows.write("UPDATE users SET admin = 1")
        for admin in (True, False, None):
            self.assertEqual(self.settle(admin), (True, False))

    def test_otherwise_in_the_database(self) -> None:
        """So it is if that was written to the database, of which Synapse keeps rows in memory."""
        self.rows.write("UPDATE users SET admin = 1")
        self.server.cached = False
        self.assertEqual(self.settle(True), (True, False))

    def test_changed_link(self) -> None:
        """Nothing is given to an account whose link has changed since the password was checked."""
        self.assertEqual(self.settle(True, Claim(("ldap",), "other")), (False, False))
        link_rows.delete_link(self.rows, ALICE)
        self.assertEqual(self.settle(True), (False, False))

    def test_forgotten_meanwhile(self) -> None:
        """A note that the watch deletes between note and gift is made again."""
        self.server.meanwhile = self.forget
        self.assertEqual(self.settle(True), (True, True))

    def test_given_meanwhile(self) -> None:
        """The watch forgets no account that has become an administrator since it looked."""
        self.settle(True)
        self.forget()
        self.assertEqual(self.state, (True, True))
        (made,) = admin_rows.made_administrators(self.rows)
        self.assertEqual((made.given, made.is_admin), (made.link, True))

    def test_cut_off(self) -> None:
        """A login that dies between note and gift leaves a note that the watch deletes."""

        def die() -> None:
            raise RuntimeError("killed")

        self.server.meanwhile = die
        settling = self.administrators.settle(ALICE, CLAIM, True)
        self.failureResultOf(Deferred.fromCoroutine(settling), RuntimeError)
        self.assertEqual(self.state, (False, True))
        self.forget()
        self.assertEqual(self.state, (False, False))

    def test_watch_goes_on(self) -> None:
        """If one account cannot be changed, the watch looks at those after it."""
        self.add_user("bob")
        link_rows.insert_link(self.rows, Link(uid("bob"), "ldap", "id-of-bob"), 0)
        for user_id, subject in ((ALICE, CLAIM.subject), (uid("bob"), "id-of-bob")):
            claim = Claim(("ldap",), subject)
            settling = self.administrators.settle(user_id, claim, True)
            self.successResultOf(Deferred.fromCoroutine(settling))
            link_rows.delete_link(self.rows, user_id)
        self.server.refused = {ALICE}
        server, clock = cast(Homeserver, self.server), Clock()
        watch = AdministratorWatch(server, self.administrators, {}, 60.0, clock)
        watch.startService()
        self.addCleanup(watch.stopService)
        found = self.rows.fetch("SELECT admin FROM users WHERE name = ?", uid("bob"))
        self.assertEqual(found, [(0,)])
        self.assertEqual(self.state, (True, True))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
