"""Several processes on either side: a Synapse with a worker, and a server with workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.delegated_server import (
    CLIENT,
    WHOAMI,
    DelegatedCase,
    OnPostgreSQL,
    Session,
    asked,
)
from tests.support.ports import free_port
from tests.support.synapse.delegating import delegating
from tests.support.waiting import together, until

ENDPOINT_PORT = free_port()
MODULE = {"module": "synapse_login_module.SynapseLoginModule", "config": {"delegated": True}}
PROFILE = delegating(
    "delegation-workers", ENDPOINT_PORT, worker=True, synapse={"modules": [MODULE]}
)


class WorkersCase(DelegatedCase):
    """A test with a Synapse of a main process and a worker."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT

    async def everywhere(self, token: str) -> list[int]:
        """Return the statuses of the main process's and of the worker's answers to a token."""
        ports = (self.synapse.client_port, self.synapse.worker_client_port)
        return [(await asked(port, "GET", WHOAMI, token=token)).status for port in ports]

    async def used_everywhere(self) -> Session:
        """Log in, and use the token at both processes, which then know it."""
        session = await self.server.login()
        self.assertEqual(await self.everywhere(session.token), [200, 200])
        return session

    async def log_out(self, session: Session) -> None:
        """Log out."""
        reply = await self.server.ask("POST", f"{CLIENT}/logout", {}, session.token)
        self.assertEqual(reply.status, 200, reply)


class ForgettingTests(WorkersCase):
    """``forget_tokens`` lists both processes of the Synapse."""

    def homeserver_keys(self) -> Mapping[str, Any]:
        return {"forget_tokens": [self.synapse.client_url, self.synapse.worker_client_url]}

    async def test_strict_refresh(self) -> None:
        """A strict refresh ends the old token at both at once, and the new one works at both."""
        before = await self.used_everywhere()
        after = await self.server.refresh(before, strict=True)
        self.assertEqual(await self.everywhere(before.token), [401, 401])
        self.assertEqual(await self.everywhere(after.token), [200, 200])

    async def test_logout(self) -> None:
        """A logout ends the token at both, and no other one."""
        session, stays = await self.used_everywhere(), await self.used_everywhere()
        await self.log_out(session)
        await self.until_devices(session, [stays.device_id])
        self.assertEqual(await self.everywhere(session.token), [401, 401])
        self.assertEqual(await self.everywhere(stays.token), [200, 200])

    async def test_account_gone(self) -> None:
        """An account that is gone loses its tokens at both, while its devices stay."""
        session = await self.used_everywhere()
        self.server.remove_user(self.server.alice)
        await until(lambda: " is gone at " in self.server.process.log(), "the end of its sessions")
        self.assertEqual(await self.everywhere(session.token), [401, 401])
        self.assertEqual(await self.devices(session), [session.device_id])


class RememberingTests(WorkersCase):
    """Without ``forget_tokens`` each process remembers tokens for two minutes."""

    async def test_strict_refresh(self) -> None:
        """After a strict refresh both still accept the old token, and the new one too."""
        before = await self.used_everywhere()
        after = await self.server.refresh(before, strict=True)
        self.assertEqual(await self.everywhere(before.token), [200, 200])
        self.assertEqual(await self.everywhere(after.token), [200, 200])

    async def test_half_known(self) -> None:
        """The process that does not know the token refuses it."""
        before = await self.server.login()
        port = self.synapse.worker_client_port
        self.assertEqual((await asked(port, "GET", WHOAMI, token=before.token)).status, 200)
        await self.server.refresh(before, strict=True)
        self.assertEqual(await self.everywhere(before.token), [401, 200])


class ServerWorkersTests(ForgettingTests, OnPostgreSQL):
    """The same, with a server of two workers that share one PostgreSQL."""

    options = ("--workers", "2")

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        await until(lambda: "workers serve" in self.server.process.log(), "the workers")

    async def test_one_device_at_once(self) -> None:
        """Of logins on one device at once, each succeeds, and one session is left."""
        sessions = await together(*(self.server.login(device_id="THESAME") for _ in range(8)))
        statuses = [await self.everywhere(each.token) for each in sessions]
        self.assertEqual(sorted(statuses), [[200, 200], *[[401, 401]] * 7])
        self.assertEqual(await self.devices(sessions[0]), ["THESAME"])

    async def test_many_at_once(self) -> None:
        """Many clients log in, are known at the Synapse, refresh and log out."""
        self.assertEqual(len(self.server.process.workers), 2)

        async def live() -> list[list[int]]:
            session = await self.server.login()
            statuses = [await self.everywhere(session.token)]
            after = await self.server.refresh(session, strict=True)
            statuses += [await self.everywhere(each.token) for each in (session, after)]
            await self.log_out(after)
            return statuses

        for statuses in await together(*(live() for _ in range(12))):
            self.assertEqual(statuses, [[200, 200], [401, 401], [200, 200]])
        last = await self.server.login()
        await self.until_devices(last, [last.device_id])
