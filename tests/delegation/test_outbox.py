"""Devices are deleted at a real Synapse, whatever fails meanwhile."""

from __future__ import annotations

import signal

from twisted.internet.task import deferLater

from tests.support.delegated_server import (
    CLIENT,
    DelegatedCase,
    DelegatedServer,
    OnPostgreSQL,
    Session,
    fresh,
)
from tests.support.ports import free_port
from tests.support.synapse.delegating import delegating
from tests.support.waiting import reactor, together, until

ENDPOINT_PORT = free_port()
PROFILE = delegating("delegation-outbox", ENDPOINT_PORT)


class OutboxCase(DelegatedCase):
    """A test with the Synapse of these tests."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT

    async def log_out(self, session: Session, server: DelegatedServer | None = None) -> None:
        """Log out at a server, which has to succeed."""
        server = server or self.server
        reply = await server.ask("POST", f"{CLIENT}/logout", {}, session.token)
        self.assertEqual(reply.status, 200, reply)

    async def away(self) -> None:
        """Stop the Synapse; it is started again at the end at the latest."""
        await self.synapse.stop()
        self.addCleanup(self.back)

    async def back(self) -> None:
        """Start the Synapse, if it does not run."""
        if not self.synapse.running:
            await self.synapse.start()


class AwayTests(OutboxCase):
    """The Synapse is away."""

    async def test_logout(self) -> None:
        """A logout succeeds at once, and the device is deleted when the Synapse is back."""
        gone, stays = await together(self.server.login(), self.server.login())
        await self.away()
        await self.log_out(gone)
        await until(lambda: "wait to be deleted" in self.server.process.log(), "an attempt")
        await self.back()
        await self.until_devices(stays, [stays.device_id])
        self.assertEqual((await self.whoami(stays.token)).status, 200)
        self.assertEqual((await self.whoami(gone.token)).status, 401)

    async def test_killed_meanwhile(self) -> None:
        """What is still to be deleted survives ``kill -9``."""
        gone = await self.server.login()
        await self.away()
        await self.log_out(gone)
        self.server.process.kill()
        await self.server.process.start()
        await self.back()
        await self.until_devices(gone, [])

    async def test_login(self) -> None:
        """A login is 503 with the time to wait, and counts as no attempt."""
        await self.away()
        for _ in range(7):
            reply = await self.server.try_login(self.server.alice)
            self.assertEqual(reply.status, 503, reply)
        self.assertIn("outcome=unavailable reason=homeserver", self.server.process.log())
        await self.back()
        # After five outages in a row the Synapse is left alone for ten seconds.
        statuses = [503]
        while statuses[-1] == 503:
            await deferLater(reactor, 0.5)
            statuses.append((await self.server.try_login(self.server.alice)).status)
        self.assertEqual(statuses[-1], 200)

    async def test_refresh(self) -> None:
        """A refresh needs no Synapse."""
        session = await self.server.login()
        await self.away()
        for strict in (False, True):
            session = await self.server.refresh(session, strict)


class EmptiedTests(OutboxCase):
    """Accounts disappear from the file."""

    async def log_in_many(self, number: int) -> list[Session]:
        """Log in this many users, and remove them from the file."""
        names = [fresh("many") for _ in range(number)]
        for name in names:
            self.server.change_user(name)
        sessions = [await self.server.login(name) for name in names]
        for name in names:
            self.server.remove_user(name)
        return sessions

    async def test_brake(self) -> None:
        """When many vanish at once, their tokens go on working and their devices stay."""
        sessions = await self.log_in_many(11)
        await until(lambda: "the brake is on" in self.server.process.log(), "the brake")
        for session in sessions:
            self.assertEqual((await self.whoami(session.token)).status, 200)
            self.assertEqual(await self.devices(session), [session.device_id])

    async def test_grace(self) -> None:
        """When a few vanish, their tokens die; their devices and keys outlive the mistake."""
        sessions = await self.log_in_many(3)
        await until(
            lambda: self.server.process.log().count(" is gone at ") == 3, "the end of the sessions"
        )
        for session in sessions:
            self.assertEqual((await self.whoami(session.token)).status, 401)
            self.assertEqual(await self.devices(session), [session.device_id])
            name = session.user_id.partition(":")[0].removeprefix("@")
            self.server.change_user(name)
            again = await self.server.login(name, device_id=session.device_id)
            self.assertEqual((await self.whoami(again.token)).status, 200)


class TwoServersTests(OutboxCase, OnPostgreSQL):
    """Two servers share one PostgreSQL."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        tokens = {"key_file": str(self.server.folder / "token.key")}
        self.other = DelegatedServer(self, self.synapse, free_port(), **self.config, tokens=tokens)
        self.other.write_users(self.server.users)
        await self.other.process.start()

    async def test_a_session_of_both(self) -> None:
        """A session that began at one server is ended by the other."""
        session = await self.server.login()
        after = await self.other.refresh(session)
        self.assertEqual((await self.whoami(after.token)).status, 200)
        await self.log_out(after, self.other)
        await self.until_devices(session, [])

    async def test_one_is_killed(self) -> None:
        """What a killed server had begun or still had to do, the other one does."""
        sessions = [await self.server.login() for _ in range(6)]
        await self.away()
        for session in sessions:
            await self.log_out(session)
        self.server.process.send_signal(signal.SIGKILL)
        await self.back()
        await self.until_devices(sessions[0], [])
