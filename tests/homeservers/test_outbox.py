"""Tests for the deletion of devices."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import capturedLogs, formatEvent

from synapse_login_module.errors import (
    DeviceBusy,
    HomeserverUnavailable,
    HomeserverUnreachable,
    StoreUnavailable,
)
from synapse_login_module.homeservers.outbox import LONGEST_WAIT, POLL, Outbox
from tests.homeservers.memory import ALICE, MemoryCase


class OutboxTests(MemoryCase):
    """The outbox deletes devices until none is left."""

    def log_in_and_out(self, *devices: str) -> None:
        """Begin sessions, and end them."""
        for device in devices:
            self.done(self.begin(device_id=device))
        for session in self.done(self.store.sessions(ALICE)):
            self.done(self.store.revoke(session))

    def deletions(self) -> list[str]:
        """The devices that the homeserver was told to delete, in order."""
        return [call[2] for call in self.homeserver.calls if call[0] == "delete_device"]

    def test_at_start(self) -> None:
        """What was left by an earlier process is carried out at the start."""
        self.log_in_and_out("ONE", "TWO")
        self.assertEqual(self.deletions(), [])
        self.start_outbox()
        self.assertEqual(sorted(self.deletions()), ["ONE", "TWO"])
        self.assertEqual(self.homeserver.devices, {})

    def test_many(self) -> None:
        """More than one batch is carried out without a pause."""
        self.log_in_and_out(*(f"D{number}" for number in range(50)))
        self.start_outbox()
        self.assertEqual(len(self.deletions()), 50)

    def test_of_other_servers(self) -> None:
        """Notes that other servers wrote are found within some seconds."""
        self.start_outbox()
        self.log_in_and_out("ONE")
        self.clock.advance(POLL)
        self.assertEqual(self.homeserver.devices, {})

    def test_away(self) -> None:
        """While the homeserver is away, it is tried again after pauses that become longer."""
        self.start_outbox()
        self.done(self.begin(device_id="ONE"))
        self.homeserver.failure = HomeserverUnavailable("it is away")
        (session,) = self.done(self.store.sessions(ALICE))
        self.done(self.store.revoke(session))
        with capturedLogs() as events:
            self.outbox.wake()
            self.clock.pump([1] * 120)
        lines = [formatEvent(event) or "" for event in events]
        self.assertEqual(set(lines), {"devices wait to be deleted, 1 in all: it is away"})
        self.assertEqual(len(lines), 3)
        attempts = len(self.deletions())
        self.assertGreater(attempts, 4)
        self.assertLess(attempts, 14)
        self.homeserver.failure = None
        self.clock.pump([1] * 70)
        self.assertEqual(self.homeserver.devices, {})
        self.assertEqual(len(self.deletions()), attempts + 1)

    def test_unknown_outcome(self) -> None:
        """After an answer that did not come, no session begins on the device for half a minute."""
        self.start_outbox()
        self.log_in_and_out("ONE")
        self.homeserver.failure = HomeserverUnavailable("no answer in time")
        self.outbox.wake()
        self.homeserver.failure = None
        self.refused(self.begin(device_id="ONE"), DeviceBusy)
        self.clock.pump([5] * 6)
        self.assertEqual(self.homeserver.devices, {})
        self.done(self.begin(device_id="ONE"))

    def test_long_outage(self) -> None:
        """While the homeserver is away, one batch is tried at a time, however many wait."""
        self.log_in_and_out(*(f"D{number}" for number in range(100)))
        self.homeserver.failure = HomeserverUnreachable("it is away")
        self.start_outbox()
        self.assertEqual(len(self.deletions()), 20)
        self.clock.advance(POLL)
        self.assertEqual(len(self.deletions()), 40)
        self.homeserver.failure = None
        self.clock.pump([5] * 12)
        self.assertEqual(self.homeserver.devices, {})

    def test_some_cannot_be_deleted(self) -> None:
        """Devices that cannot be deleted, however many, do not keep others waiting."""
        self.log_in_and_out(*(f"BAD{number}" for number in range(130)))
        delete = self.homeserver.delete_device

        def delete_device(user_id: str, device_id: str) -> Deferred[None]:
            if device_id.startswith("BAD"):
                return fail(HomeserverUnavailable("it answered 500"))
            return delete(user_id, device_id)

        self.patch(self.homeserver, "delete_device", delete_device)
        self.start_outbox()
        self.clock.pump([POLL] * 30)
        self.log_in_and_out("GOOD")
        self.clock.advance(POLL)
        self.assertEqual(self.deletions(), ["GOOD"])

    def test_once(self) -> None:
        """Two servers on one store carry out each deletion once."""
        other = Outbox(self.store, self.homeserver, self.clock)
        self.log_in_and_out(*(f"D{number}" for number in range(30)))
        self.homeserver.held = []
        self.start_outbox()
        other.startService()
        self.addCleanup(other.stopService)
        self.homeserver.release()
        self.clock.pump([1] * 60)
        self.assertEqual(len(self.deletions()), 30)
        self.assertEqual(len(set(self.deletions())), 30)

    def test_killed(self) -> None:
        """What a server had leased when it died is carried out after half a minute."""
        self.log_in_and_out("ONE")
        self.assertEqual(len(self.done(self.store.lease_deletions(10))), 1)
        self.start_outbox()
        self.clock.pump([5] * 5)
        self.assertEqual(self.deletions(), [])
        self.clock.pump([5, 5])
        self.assertEqual(self.deletions(), ["ONE"])

    def test_store_away(self) -> None:
        """While the store is away, the outbox goes on trying."""
        lease = self.store.lease_deletions
        self.log_in_and_out("ONE")
        self.patch(self.store, "lease_deletions", lambda limit: fail(StoreUnavailable("away")))
        self.start_outbox()
        self.clock.advance(POLL)
        self.patch(self.store, "lease_deletions", lease)
        self.clock.advance(POLL)
        self.assertEqual(self.homeserver.devices, {})

    def test_settle(self) -> None:
        """It can be waited for until the devices are deleted, also while a round is under way."""
        self.start_outbox()
        self.log_in_and_out("ONE")
        self.homeserver.held = []
        self.outbox.wake()
        settling = self.outbox.settle()
        self.assertNoResult(settling)
        self.homeserver.release()
        self.successResultOf(settling)
        self.assertEqual(self.homeserver.devices, {})

    def test_settle_while_away(self) -> None:
        """It is waited for no longer than some seconds, or until the attempt has failed."""
        self.start_outbox()
        self.log_in_and_out("ONE")
        self.homeserver.held = []
        settling = self.outbox.settle()
        self.clock.advance(LONGEST_WAIT - 0.1)
        self.assertNoResult(settling)
        self.clock.advance(0.1)
        self.successResultOf(settling)
        self.homeserver.release()
        self.assertEqual(self.homeserver.devices, {})
        self.log_in_and_out("TWO")
        self.homeserver.failure = HomeserverUnavailable("it is away")
        self.successResultOf(self.outbox.settle())

    def test_settle_given_up(self) -> None:
        """Who no longer waits does not stop the deletion."""
        self.start_outbox()
        self.log_in_and_out("ONE")
        self.homeserver.held = []
        settling = self.outbox.settle()
        settling.cancel()
        self.failureResultOf(settling, CancelledError)
        self.homeserver.release()
        self.assertEqual(self.homeserver.devices, {})

    def test_stop(self) -> None:
        """Stopping waits for the deletions that are under way, and begins no others."""
        self.log_in_and_out("ONE")
        self.homeserver.held = []
        self.outbox.startService()
        stopped = self.outbox.stopService()
        self.assertNoResult(stopped)
        self.homeserver.release()
        self.successResultOf(stopped)
        self.assertEqual(self.homeserver.devices, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])
