"""Tests for what stores keep for a homeserver that delegates to this server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.task import Clock
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.errors import HomeserverUnavailable, ReusedToken
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import Claim, DeviceDeletion, OwedDeletions, TokenPolicy
from synapse_login_module.plugin import Environment
from synapse_login_module.stores import MemoryTokenStore, SQLiteTokenStore
from tests.stores.test_stores import refresh_token
from tests.support.stores import start_in_postgresql

if TYPE_CHECKING:
    Mixin = TestCase
else:
    Mixin = object

ALICE = "@alice:example.com"

Call = Callable[..., Any]

reactor = cast(Any, global_reactor)


class InMemory(TestCase):
    """Makes stores in memory."""

    def build(self, environment: Environment) -> Any:
        """Make a store."""
        return MemoryTokenStore(None, environment)


class InFile(TestCase):
    """Makes stores in files."""

    def build(self, environment: Environment) -> Any:
        """Make a store."""
        store = SQLiteTokenStore(Path(self.mktemp()), replace(environment, reactor=reactor))
        store.startService()
        self.addCleanup(store.stopService)
        return store


class InPostgreSQL(TestCase):
    """Makes stores in PostgreSQL."""

    def build(self, environment: Environment) -> Any:
        """Make a store."""
        return start_in_postgresql(self, environment)


class DelegatedContract(testing.DelegatedStoreContract, testing.NameReservationsContract):
    """Tests of stores of a server that a homeserver delegates to."""

    build: Any

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        store: ITokenStore = self.build(
            testing.environment(clock=clock, policy=policy, delegated=True)
        )
        return store


class AloneContract(testing.TokenStoreContract):
    """Tests of stores of a server that stands alone.

    It keeps the contract of a token store without any reservation.
    """

    build: Any

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        store: ITokenStore = self.build(testing.environment(clock=clock, policy=policy))
        return store

    async def test_notes_nothing(self) -> None:
        """However sessions end, no device is noted."""
        given, clock = await self._store(
            reuse_interval=0, session=100_000, keep_ended=1000, login_token=1000
        )
        store: Any = given
        for number in range(3):
            await store.issue(ALICE, f"D{number}", None, True, True, claim=Claim(("ldap",), "1"))
        pair = (await store.issue(ALICE, "REUSED", None, True, True)).tokens
        await testing.refresh(store, refresh_token(pair), None, True)
        with self.assertRaises(ReusedToken):
            await testing.refresh(store, refresh_token(pair), None, True)
        await store.revoke((await store.sessions(ALICE))[0])
        clock.advance(2)
        self.assertEqual((await store.prune(None, 100, 100)).sessions, 1)
        await store.expire(None, 100)
        clock.advance(2)
        self.assertEqual((await store.prune(None, 100, 100)).sessions, 2)
        await store.issue(ALICE, "LAST", None, True, True)
        await store.revoke_all(ALICE, device_grace=1)
        await store.issue(ALICE, "LAST", None, True, True)
        self.assertEqual((await store.revoke_everybody(None, 9)).sessions, 1)
        clock.advance(1000)
        self.assertEqual(await store.owed_deletions(), OwedDeletions(0, None))
        self.assertEqual(await store.lease_deletions(9), [])


@dataclass
class Device:
    """What is known of a device from what was done with it.

    All times are milliseconds since the epoch.

    :param alive: whether a session has it.
    :param wanted: whether it has to be deleted in the end.
    :param noted: whether there may be a note that owes its deletion.
    :param due_at: before when it is not leased.
    :param reserved_until: until when a login that is under way can rely on it.
    :param attempted: whether it was leased since it was last reserved.
    :param held: the lease that may finish its deletion.
    :param blocked_until: until when a lease keeps logins and other leases from it.
    :param paused_until: until when its deletion was postponed.
    """

    alive: bool = False
    wanted: bool = False
    noted: bool = False
    due_at: int = 0
    reserved_until: int = 0
    attempted: bool = False
    held: DeviceDeletion | None = None
    blocked_until: int = 0
    paused_until: int = 0

    def ends(self, due_at: int) -> None:
        """Its session ends, or it is deleted without one."""
        self.alive, self.wanted, self.noted = False, True, True
        self.due_at = max(self.due_at, due_at)


DEVICES = ("A", "B", "C")
DEVICE = st.sampled_from(DEVICES)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), DEVICE, st.booleans()),
        st.tuples(st.just("issue"), DEVICE),
        st.tuples(st.just("log_in"), DEVICE),
        st.tuples(st.just("withdraw"), DEVICE, st.booleans()),
        st.tuples(st.just("log_out"), DEVICE),
        st.tuples(st.just("delete"), DEVICE),
        st.tuples(st.just("log_out_everywhere"), st.sampled_from([0, 45_000])),
        st.tuples(st.just("lease")),
        st.tuples(st.just("finish"), st.integers(0, 9)),
        st.tuples(st.just("postpone"), st.integers(0, 9), st.sampled_from([0, 10])),
        st.tuples(st.just("wait"), st.sampled_from([1, 15, 31, 61])),
    ),
    max_size=40,
)


class Run:
    """One sequence of steps on a store, with what has to be so after each.

    :param call: calls the store and waits for the result.
    """

    def __init__(self, test: TestCase, store: Any, clock: Clock, call: Call, user_id: str) -> None:
        self.test = test
        self.store = store
        self.clock = clock
        self.call = call
        self.user_id = user_id
        self.devices = {name: Device() for name in DEVICES}
        self.leases: list[DeviceDeletion] = []

    @property
    def now(self) -> int:
        """The time."""
        return int(self.clock.seconds() * 1000)

    def reserve(self, name: str, owed: bool) -> None:
        """Only a lease that lasts refuses a reservation."""
        device = self.devices[name]
        reserved = self.call(self.store.reserve_device, self.user_id, name, owed)
        self.test.assertIs(reserved, self.now >= device.blocked_until)
        if reserved:
            device.reserved_until = self.now + 60_000
            device.due_at = max(device.due_at, device.reserved_until)
            device.noted = device.noted or owed
            device.wanted = device.wanted or (owed and not device.alive)
            device.attempted, device.held = False, None
            device.blocked_until = device.paused_until = 0

    def issue(self, name: str) -> None:
        """A session begins on a reserved device, and never on one that may be deleted by now."""
        device = self.devices[name]
        try:
            self.call(self.store.issue, self.user_id, name, None, True, True)
        except HomeserverUnavailable:
            self.test.assertGreaterEqual(self.now, device.reserved_until)
        else:
            self.test.assertFalse(device.attempted)
            self.devices[name] = Device(alive=True)

    def log_in(self, name: str) -> None:
        """Reserve and begin."""
        self.reserve(name, False)
        self.issue(name)

    def withdraw(self, name: str, made: bool) -> None:
        """A lease of before may not finish what was made since."""
        device = self.devices[name]
        self.call(self.store.withdraw_device, self.user_id, name, made)
        device.reserved_until = 0
        if made:
            device.noted, device.due_at, device.held = True, self.now, None
            device.wanted = not device.alive
        elif not device.noted:
            device.due_at = 0

    def log_out(self, name: str) -> None:
        """End a session, if there is one."""
        for session in self.call(self.store.sessions, self.user_id):
            if session.device_id == name:
                self.call(self.store.revoke, session)
                self.devices[name].ends(self.now)

    def delete(self, name: str) -> None:
        """Delete a device."""
        self.call(self.store.delete_device, self.user_id, name)
        self.devices[name].ends(self.now)

    def log_out_everywhere(self, grace: int) -> None:
        """End all sessions."""
        self.call(self.store.revoke_all, self.user_id, grace)
        for device in self.devices.values():
            if device.alive:
                device.ends(self.now + grace)

    def lease(self) -> None:
        """Exactly the devices are leased that are to be deleted now."""
        due = {
            name: device
            for name, device in self.devices.items()
            if self.now >= max(device.due_at, device.blocked_until, device.paused_until)
        }
        found = self.call(self.store.lease_deletions, len(DEVICES))
        self.test.assertEqual(
            {(each.user_id, each.device_id) for each in found},
            {(self.user_id, name) for name, device in due.items() if device.wanted},
        )
        self.leases += found
        for each in found:
            device = due[each.device_id]
            self.test.assertFalse(device.alive)
            device.attempted, device.held = True, each
            device.blocked_until = self.now + 30_000
        for device in due.values():
            if not device.wanted:
                device.noted, device.due_at = False, 0

    def finish(self, index: int) -> None:
        """A lease finishes a deletion if no other lease and no login has come in between."""
        if index < len(self.leases):
            lease = self.leases[index]
            self.call(self.store.finish_deletion, lease)
            if self.devices[lease.device_id].held == lease:
                self.devices[lease.device_id] = Device()

    def postpone(self, index: int, seconds: int) -> None:
        """The same holds of postponing one."""
        if index < len(self.leases):
            lease = self.leases[index]
            self.call(self.store.postpone_deletion, lease, seconds)
            device = self.devices[lease.device_id]
            if device.held == lease:
                device.held, device.blocked_until = None, 0
                device.paused_until = self.now + seconds * 1000

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def end(self) -> None:
        """In the end every device is deleted that has to be, once, and no other."""
        wanted = sorted(name for name, device in self.devices.items() if device.wanted)
        self.clock.advance(300)
        finished = []
        for _ in range(3):
            for each in self.call(self.store.lease_deletions, len(DEVICES)):
                self.test.assertEqual(each.user_id, self.user_id)
                self.call(self.store.finish_deletion, each)
                finished.append(each.device_id)
            self.clock.advance(300)
        self.test.assertEqual(sorted(finished), wanted)
        alive = {name for name, device in self.devices.items() if device.alive}
        found = self.call(self.store.sessions, self.user_id)
        self.test.assertEqual({each.device_id for each in found}, alive)


class PropertyContract(Mixin):
    """A property of every store: what is noted, in any order of logins, ends and leases."""

    timeout = 300
    build: Any
    examples = 50

    async def test_any_order(self) -> None:
        """After any steps, what the model of devices says holds."""
        clock = Clock()
        clock.advance(1_000_000_000)
        store = self.build(testing.environment(clock=clock, delegated=True))
        users = itertools.count()

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            return blockingCallFromThread(reactor, function, *arguments)

        @given(STEPS)
        @settings(max_examples=self.examples, database=None)
        def holds(steps: list[tuple[Any, ...]]) -> None:
            run = Run(self, store, clock, call, f"@user{next(users)}:example.com")
            for name, *arguments in steps:
                getattr(run, name)(*arguments)
            run.end()

        await deferToThread(holds)


class MemoryPropertyTests(PropertyContract, InMemory):
    """In memory."""

    examples = 200


class SQLitePropertyTests(PropertyContract, InFile):
    """In a file."""


class PostgreSQLPropertyTests(PropertyContract, InPostgreSQL):
    """In PostgreSQL."""


class MemoryDelegatedTests(DelegatedContract, InMemory):
    """In memory."""


class SQLiteDelegatedTests(DelegatedContract, InFile):
    """In a file."""


class PostgreSQLDelegatedTests(DelegatedContract, InPostgreSQL):
    """In PostgreSQL."""


class MemoryAloneTests(AloneContract, InMemory):
    """In memory."""


class SQLiteAloneTests(AloneContract, InFile):
    """In a file."""


class PostgreSQLAloneTests(AloneContract, InPostgreSQL):
    """In PostgreSQL."""
