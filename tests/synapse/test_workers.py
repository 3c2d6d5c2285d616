"""A main process and a generic worker, with PostgreSQL and Redis."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.support.synapse.profile import Profile
from tests.support.waiting import reactor
from tests.synapse.case import HomeserverCase, user_id
from tests.synapse.client import SynapseClient

_POLLS = 100
_PAUSE = 0.05


class WorkerTests(HomeserverCase):
    """What the module does on a worker, and what its main process means for a worker."""

    profile = Profile("worker", worker=True)

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.worker = SynapseClient(self.server.worker_client_url, self.server.module_url)
        self.worker.secrets = self.client.secrets
        self.addCleanup(self.worker.close)

    async def test_log(self) -> None:
        """The worker logs what it does, and where /tokenrefresh is."""
        self.assertIn(
            "on worker1 the module checks passwords with faulty, bcrypt; the main process serves"
            " /tokenrefresh",
            self.server.worker_log(),
        )

    async def test_login_at_the_worker(self) -> None:
        """The worker's /login asks the providers, and makes accounts."""
        for name in ("alice", self.new_user()):
            answer = await self.worker.login(self.worker.own, name)
            self.assertEqual(answer.status, 200, str(answer))
            self.assertEqual(answer.json["user_id"], user_id(name))
        wrong = await self.worker.login(self.worker.own, password="wrong")
        self.assert_error(wrong, 403, "M_FORBIDDEN")
        locked = await self.worker.login(self.worker.own, "lock")
        self.assert_error(locked, 401, "M_USER_LOCKED", soft_logout=True)

    async def test_local_password_at_the_worker(self) -> None:
        """It falls back to local passwords too."""
        name, password = await self.local_user()
        answer = await self.worker.login(self.worker.own, name, password)
        self.assertEqual(answer.status, 200, str(answer))

    async def test_removed_with_a_local_password(self) -> None:
        """And ends what an earlier version marked as a provider's, and what has become a local
        account.
        """
        name, password = await self.local_user()
        self.users = {**self.users, name: self.users["bob"]}
        self.write_users()
        self.server.query(
            "INSERT INTO user_external_ids (auth_provider, external_id, user_id)"
            " VALUES ('synapse_login_module', ?, ?)",
            name,
            user_id(name),
        )
        theirs = await self.client.rotate(await self.client.pair_with(name, password))
        self.remove_user(name)
        answer = await self.worker.login(self.worker.own, name, password)
        self.assertEqual(answer.status, 200, str(answer))
        await self.wait_until_refused(theirs.access)
        await self.assert_not_refreshable(theirs)

    async def test_outage_at_the_worker(self) -> None:
        """An outage is 503 there too."""
        self.server.set_fault("unavailable")
        answer = await self.worker.login(self.worker.own)
        self.assert_error(answer, 503, "M_UNKNOWN")

    async def test_strict_refresh_reaches_the_worker(self) -> None:
        """After /tokenrefresh the worker refuses the old access token, and takes the new one."""
        for base in (self.worker.own, self.worker.module):
            old = await self.worker.pair(base=base)
            before = await self.worker.whoami(old.access)
            self.assertEqual(before.status, 200, str(before))
            new = await self.client.rotate(old)
            await self.wait_until_refused(old.access)
            after = await self.worker.whoami(new.access)
            self.assertEqual(after.status, 200, str(after))
            await self.assert_live(new)

    async def test_revocation_reaches_the_worker(self) -> None:
        """So it does when a session is revoked."""
        first = await self.client.pair()
        second = await self.client.rotate(first)
        third = await self.client.rotate(second)
        self.assertEqual((await self.worker.whoami(third.access)).status, 200)
        await self.client.refresh(first)
        await self.wait_until_refused(third.access)

    async def test_resources(self) -> None:
        """The worker serves none of the module's paths."""
        for path in ("login", "tokenrefresh", "refresh"):
            url = f"{self.server.worker_module_url}/_matrix/client/v3/{path}"
            self.assertEqual((await self.worker.send("POST", url, {})).status, 404)

    async def wait_until_refused(self, access: str) -> None:
        """Wait until the worker has been told that an access token is dead."""
        for _ in range(_POLLS):
            answer = await self.worker.whoami(access)
            if answer.status == 401:
                self.assert_error(answer, 401, "M_UNKNOWN_TOKEN", soft_logout=True)
                return
            waiting: Deferred[None] = deferLater(reactor, _PAUSE)
            await waiting
        self.fail("the worker still takes the old access token")
