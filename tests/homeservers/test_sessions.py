"""Tests for beginning and ending sessions together with their devices."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import capturedLogs, formatEvent

from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.common.repeats import OF_ONE, PERIOD
from synapse_login_module.errors import HomeserverUnavailable, StoreUnavailable
from synapse_login_module.homeservers.outbox import LONGEST_WAIT
from synapse_login_module.model import HomeserverAccount, HomeserverPolicy, Login, SessionInfo
from tests.homeservers.memory import ALICE, MemoryCase, account

DAY = 24 * 60 * 60


class BeginTests(MemoryCase):
    """A session begins."""

    def setUp(self) -> None:
        super().setUp()
        self.start_outbox()

    def living(self) -> list[str]:
        """The devices of the sessions."""
        return [each.device_id for each in self.done(self.store.sessions(None))]

    def devices(self) -> list[str]:
        """The devices at the homeserver."""
        return [device_id for _, device_id in self.homeserver.devices]

    def test_device_first(self) -> None:
        """The device is there, with its name, before the session begins."""
        self.homeserver.held = []
        beginning = self.begin()
        while self.homeserver.held:
            self.assertEqual(self.living(), [])
            self.homeserver.held.pop(0).callback(None)
        login = self.done(beginning)
        self.assertEqual(self.homeserver.devices, {(ALICE, login.device_id): "a phone"})
        self.assertEqual(self.living(), [login.device_id])

    def test_given_device(self) -> None:
        """A device ID that the client gives is used."""
        self.assertEqual(self.done(self.begin(device_id="MINE")).device_id, "MINE")

    def test_homeserver_away(self) -> None:
        """Without the homeserver no session begins, and no account is linked."""
        self.homeserver.failure = HomeserverUnavailable("it is away")
        self.refused(self.begin(), HomeserverUnavailable)
        self.assertEqual(self.living(), [])
        self.assertEqual(self.done(self.store.links()), [])

    def test_store_fails(self) -> None:
        """A new device is deleted when its session cannot begin."""
        of = account()
        beginning = Deferred.fromCoroutine(
            self.sessions.begin(of, None, None, lambda *_: fail(StoreUnavailable("it is away")))
        )
        self.refused(beginning, StoreUnavailable)
        self.assertEqual(self.devices(), [])

    def test_store_fails_on_a_known_device(self) -> None:
        """A device that was there before is not deleted then, as nothing brings back its keys."""
        self.homeserver.accounts[ALICE] = HomeserverAccount(ALICE)
        self.homeserver.devices[ALICE, "MINE"] = None
        self.done(self.store.reserve_name(ALICE, account().claim))
        beginning = Deferred.fromCoroutine(
            self.sessions.begin(
                account(), "MINE", None, lambda *_: fail(StoreUnavailable("it is away"))
            )
        )
        self.refused(beginning, StoreUnavailable)
        self.clock.pump([5] * 30)
        self.assertEqual(self.devices(), ["MINE"])

    def test_lost_answer(self) -> None:
        """A device that was made although the answer was lost is deleted after a minute."""
        self.done(self.begin())

        def make_device(user_id: str, device_id: str, display_name: str | None) -> Deferred[bool]:
            self.homeserver.devices[user_id, device_id] = display_name
            return fail(HomeserverUnavailable("the answer was lost"))

        self.patch(self.homeserver, "make_device", make_device)
        self.refused(self.begin(), HomeserverUnavailable)
        self.assertEqual(self.devices(), ["DEVICE0", "DEVICE1"])
        self.clock.pump([5] * 11)
        self.assertEqual(self.devices(), ["DEVICE0", "DEVICE1"])
        self.clock.pump([5] * 3)
        self.assertEqual(self.devices(), ["DEVICE0"])

    def test_client_gone(self) -> None:
        """When the client goes away, no session begins, and its device does not stay."""
        self.done(self.begin())
        self.homeserver.held = []
        beginning = self.begin()
        self.homeserver.held.pop(0).callback(None)
        beginning.cancel()
        self.refused(beginning, CancelledError)
        self.homeserver.release()
        self.clock.pump([5] * 14)
        self.assertEqual(self.devices(), self.living())

    def test_same_device_again(self) -> None:
        """A login on the same device keeps it, and has the earlier tokens forgotten."""
        self.done(self.begin(device_id="MINE"))
        self.assertEqual(self.homeserver.forgotten, [])
        self.done(self.begin(device_id="MINE"))
        self.assertEqual(self.homeserver.forgotten, [(ALICE, "MINE")])
        self.clock.pump([5] * 14)
        self.assertEqual(self.devices(), ["MINE"])
        self.assertEqual(self.living(), ["MINE"])

    def test_same_device_at_once(self) -> None:
        """Of logins on the same device at once, each begins its session after the one before."""
        self.done(self.begin(device_id="MINE"))
        self.homeserver.held = []
        beginning = [self.begin(device_id="MINE") for _ in range(4)]
        for finding in [self.homeserver.held.pop(0) for _ in beginning]:
            finding.callback(None)
        self.assertEqual(len(self.homeserver.held), 1)
        beginning[1].cancel()
        self.refused(beginning.pop(1), CancelledError)
        self.homeserver.release()
        for each in beginning:
            self.assertEqual(self.done(each).device_id, "MINE")
        self.homeserver.failure = HomeserverUnavailable("it is away")
        self.refused(self.begin(device_id="MINE"), HomeserverUnavailable)
        self.homeserver.failure = None
        self.assertEqual(self.done(self.begin(device_id="MINE")).device_id, "MINE")
        self.assertEqual(self.living(), ["MINE"])
        self.assertEqual(self.devices(), ["MINE"])

    def test_same_device_at_another_server(self) -> None:
        """A login is tried again when another server's has used up its reservation, and keeps the
        device.
        """
        of, others = account(), [self.login_elsewhere] * 3

        def issue(user_id: str, device_id: str | None) -> Deferred[Login]:
            if others:
                others.pop()()
            return self.issue(of)(user_id, device_id)

        login = self.done(self.sessions.begin(of, "MINE", None, issue))
        self.assertEqual(others, [])
        self.clock.pump([5] * 14)
        self.assertEqual(self.devices(), ["MINE"])
        self.done(self.store.session_for_access_token(login.tokens.access_token, False))
        others += [self.login_elsewhere] * 50
        beginning = Deferred.fromCoroutine(self.sessions.begin(of, "MINE", None, issue))
        self.refused(beginning, HomeserverUnavailable)
        self.assertEqual(self.devices(), ["MINE"])

    def login_elsewhere(self) -> None:
        """Begin a session on the device at another server."""
        self.done(self.issue(account())(ALICE, "MINE"))

    def test_device_that_is_being_deleted(self) -> None:
        """No session begins on a device while it is being deleted. A login waits for the deletion,
        for some seconds at most.
        """
        self.done(self.begin(device_id="MINE"))
        (session,) = self.done(self.store.sessions(ALICE))
        deleting: Deferred[None] = Deferred()
        self.patch(self.homeserver, "delete_device", lambda *_: deleting)
        self.done(self.store.revoke(session))
        self.sessions.ended()
        beginning = self.begin(device_id="MINE")
        self.assertNoResult(beginning)
        self.clock.advance(LONGEST_WAIT)
        self.refused(beginning, HomeserverUnavailable)
        beginning = self.begin(device_id="MINE")
        self.assertNoResult(beginning)
        del self.homeserver.devices[ALICE, "MINE"]
        deleting.callback(None)
        self.done(beginning)
        self.assertEqual(self.devices(), ["MINE"])


class ServiceTests(MemoryCase):
    """Users of application services."""

    policy = HomeserverPolicy(admins=frozenset(["@root:example.com"]))

    def test_administrator(self) -> None:
        """No application service logs an administrator in, whose tokens administer."""
        users = {ALICE, "@root:example.com"}
        self.homeserver.application_services["as-token"] = users
        for each in users:
            self.homeserver.accounts[each] = HomeserverAccount(each)
        owned = {each for each in users if self.done(self.sessions.owns_user("as-token", each))}
        self.assertEqual(owned, {ALICE})


class EndTests(MemoryCase):
    """Sessions end."""

    def setUp(self) -> None:
        super().setUp()
        self.start_outbox()
        self.login = self.done(self.begin())

    def session(self) -> SessionInfo:
        """The session."""
        session: SessionInfo
        (session,) = self.done(self.store.sessions(ALICE))
        return session

    def test_logout(self) -> None:
        """The device of a session that was revoked is deleted at once."""
        self.done(self.store.revoke(self.session()))
        self.sessions.ended()
        self.assertEqual(self.homeserver.devices, {})

    def test_account_gone(self) -> None:
        """The tokens of an account that is gone are forgotten now; its devices stay for a day."""
        self.assertEqual(self.done(self.sessions.end(ALICE, EndReason.GONE)), 1)
        self.assertEqual(self.homeserver.forgotten, [(ALICE, None)])
        self.clock.pump([60] * (DAY // 60 - 1))
        self.assertEqual(list(self.homeserver.devices), [(ALICE, self.login.device_id)])
        self.clock.pump([60, 60])
        self.assertEqual(self.homeserver.devices, {})

    def test_lock(self) -> None:
        """A lock has the homeserver ask again about the tokens, and tells it nothing else."""
        seen: list[tuple[str, bool]] = []
        self.sessions.lock_changed = lambda *what: seen.append(what)
        self.homeserver.calls.clear()
        self.done(self.sessions.lock(ALICE, True))
        self.assertEqual(seen, [(ALICE, True)])
        self.assertEqual(self.homeserver.calls, [("forget_tokens", ALICE, None)])

    def test_forgetting_hangs(self) -> None:
        """A request waits for a second at most for the homeserver to forget tokens."""
        self.homeserver.held = []
        forgetting = Deferred.fromCoroutine(self.sessions.forget(self.session(), True))
        self.clock.advance(0.9)
        self.assertNoResult(forgetting)
        self.clock.advance(0.1)
        self.successResultOf(forgetting)

    def test_forgetting_goes_on(self) -> None:
        """Neither the timeout nor a client that goes away stops the homeserver from forgetting."""
        self.homeserver.held = []
        forgetting = Deferred.fromCoroutine(self.sessions.forget(self.session(), True))
        self.clock.advance(1)
        self.successResultOf(forgetting)
        forgetting = Deferred.fromCoroutine(self.sessions.forget(self.session(), True))
        forgetting.cancel()
        self.refused(forgetting, CancelledError)
        self.homeserver.release()
        self.assertEqual(len(self.homeserver.forgotten), 2)

    def test_outage(self) -> None:
        """A long outage writes some lines a minute, and the number of those that it omits."""
        self.homeserver.failure = HomeserverUnavailable("it is away")
        with capturedLogs() as events:
            for _ in range(100):
                self.done(self.sessions.forget(self.session(), True))
            self.assertEqual(len(events), OF_ONE)
            self.clock.advance(PERIOD)
        self.assertIn(f"{100 - OF_ONE} times: it is away", formatEvent(events[-1]) or "")

    def test_unexpected_error(self) -> None:
        """An error that no homeserver should raise is logged, and fails nothing."""

        def raising(user_id: str, device_id: str | None) -> Deferred[None]:
            raise OSError("a bug")

        for broken in (raising, lambda *_: fail(OSError("a bug"))):
            self.patch(self.homeserver, "forget_tokens", broken)
            self.done(self.sessions.forget(self.session(), True))
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_forgetting_fails(self) -> None:
        """A homeserver that cannot forget is a line in the log, and nothing else."""
        self.homeserver.failure = HomeserverUnavailable("it is away")
        with capturedLogs() as events:
            self.done(self.sessions.forget(self.session(), True))
        (event,) = events
        self.assertIn("it is away", formatEvent(event) or "")
