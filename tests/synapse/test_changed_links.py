"""Links that change while a login is under way: what began for the one before is no session."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.support.client import password_login
from tests.support.response import Response
from tests.support.synapse.profile import Profile
from tests.support.waiting import until
from tests.synapse.case import fresh, user_id
from tests.synapse.linkcase import NOT_LINKED, PROVIDERS
from tests.synapse.test_link_commands import CommandCase

SLOW = [{"module": "tests.synapse.modules.SlowGuard"}]


class ChangedCase(CommandCase):
    """Helpers: a login waits in another module, long after its password was found right."""

    async def begin(self, base: str, name: str, password: str) -> tuple[Deferred[Response], str]:
        """Log in as far as the other module; the answer to come, and the device."""
        return await self.begin_with(base, password_login(name, password, refresh_token=True))

    async def begin_with(self, base: str, body: dict[str, Any]) -> tuple[Deferred[Response], str]:
        """So too, with whatever."""
        device = fresh("SLOW")
        more = {"device_id": device, "initial_device_display_name": device}
        answer = Deferred.fromCoroutine(self.client.post(base, "/login", {**body, **more}))
        await until(lambda: f"guard has {device} wait" in self.logged(), "the guard")
        return answer, device

    def let_go(self, device: str) -> None:
        """Have the other module take a login."""
        (self.server.folder / device).touch()

    async def carried_out(self) -> None:
        """Wait until Synapse has ended what commands want ended."""
        await until(
            lambda: self.server.query("SELECT 1 FROM synapse_login_wishes") == [], "the wishes"
        )

    def living(self, name: str) -> list[str]:
        """The devices of an account that hold a token that still can be used."""
        found = self.server.query(
            "SELECT device_id FROM access_tokens WHERE user_id = ? AND"
            " (valid_until_ms IS NULL OR refresh_token_id IS NOT NULL) ORDER BY device_id",
            user_id(name),
        )
        refreshable = self.server.query(
            "SELECT device_id FROM refresh_tokens WHERE user_id = ? ORDER BY device_id",
            user_id(name),
        )
        return sorted({device for (device,) in [*found, *refreshable]})

    async def assert_refused(self, answer: Deferred[Response]) -> None:
        """A login that had to wait is rejected, since its link has changed."""
        said: Any = await answer
        self.assert_error(said, 403, "M_FORBIDDEN")
        self.assertEqual(said.json["error"], NOT_LINKED)
        self.assertIn("its link has changed", self.logged())

    async def relink_meanwhile(self) -> None:
        """The previous holder gets no session; those of the new holder go on."""
        for base in self.listeners:
            name = fresh("relinked")
            old = self.person(name, subject=f"{name}-old")
            await self.client.pair_with(name, old)
            answer, device = await self.begin(base, name, old)
            await self.links_command("relink", name, "people", f"{name}-new")
            await self.carried_out()
            new = self.person(name.upper(), subject=f"{name}-new")
            pair = await self.client.pair_with(name.upper(), new, device_id=fresh("NEW"))
            self.let_go(device)
            await self.assert_refused(answer)
            self.assertEqual(self.living(name), [pair.device_id])
            await self.assert_live(await self.client.rotate(pair))


class ChangedMeanwhileTests(ChangedCase):
    """With SQLite."""

    profile = Profile("links-changed", {"password_providers": PROVIDERS}, more_modules=SLOW)

    async def test_relinked(self) -> None:
        """The previous holder gets no session; those of the new holder go on."""
        await self.relink_meanwhile()

    async def test_same_device(self) -> None:
        """So it is when the login that waited names a device that the new holder is using."""
        for base in self.listeners:
            name = fresh("relinked")
            old = self.person(name, subject=f"{name}-old")
            await self.client.pair_with(name, old)
            answer, device = await self.begin(base, name, old)
            await self.links_command("relink", name, "people", f"{name}-new")
            await self.carried_out()
            new = self.person(name.upper(), subject=f"{name}-new")
            pair = await self.client.pair_with(name.upper(), new, device_id=device)
            self.let_go(device)
            await self.assert_refused(answer)
            await self.assert_live(await self.client.rotate(pair))

    async def test_unlinked(self) -> None:
        """A user who was unlinked meanwhile gets no session."""
        for base in self.listeners:
            name = fresh("unlinked")
            password = self.person(name)
            await self.client.pair_with(name, password)
            answer, device = await self.begin(base, name, password)
            await self.links_command("unlink", name)
            await self.carried_out()
            self.let_go(device)
            await self.assert_refused(answer)
            self.assertEqual(self.living(name), [])

    async def test_linked(self) -> None:
        """A local password does not count for an account that was linked meanwhile."""
        for base in self.listeners:
            name, password = await self.local_user()
            await self.client.pair_with(name, password)
            before = self.living(name)
            answer, device = await self.begin(base, name, password)
            await self.links_command("link", name, "people", f"{name}-new")
            self.let_go(device)
            await self.assert_refused(answer)
            self.assertEqual(self.living(name), before)

    async def login_token(self, name: str) -> dict[str, Any]:
        """Link a user; return a login request with a login token of theirs."""
        pair = await self.client.pair_with(name, self.person(name, subject=f"{name}-old"))
        made = await self.client.post(
            self.client.own, "/login/get_token", {}, pair.access, prefix="v1"
        )
        self.assertEqual(made.status, 200, str(made))
        self.client.secrets.add(made.json["login_token"])
        return {"type": "m.login.token", "token": made.json["login_token"]}

    async def test_login_token(self) -> None:
        """A login token that the one before had used by then is no good either."""
        name = fresh("relinked")
        answer, device = await self.begin_with(self.client.module, await self.login_token(name))
        await self.links_command("relink", name, "people", f"{name}-new")
        await self.carried_out()
        self.let_go(device)
        await self.assert_refused(answer)
        self.assertEqual(self.living(name), [])

    async def test_login_token_unchanged(self) -> None:
        """It is good where nothing has changed."""
        name = fresh("patient")
        answer, device = await self.begin_with(self.client.module, await self.login_token(name))
        self.let_go(device)
        said: Any = await answer
        self.assertEqual(said.status, 200, str(said))

    async def test_unchanged(self) -> None:
        """A login that had to wait is good where nothing has changed, without a device ID too."""
        for base in self.listeners:
            name = fresh("patient")
            password = self.person(name)
            await self.client.pair_with(name, password)
            answer, device = await self.begin(base, name, password)
            self.let_go(device)
            said: Any = await answer
            self.assertEqual(said.status, 200, str(said))
            self.assertIn(device, self.living(name))


class ChangedAtTheWorkerTests(ChangedCase):
    """With PostgreSQL, and logins at Synapse's own ``/login`` of a worker."""

    profile = Profile(
        "links-changed-worker", {"password_providers": PROVIDERS}, more_modules=SLOW, worker=True
    )

    @property
    def listeners(self) -> tuple[str, ...]:
        """The worker's."""
        return (self.server.worker_client_url,)

    async def test_relinked(self) -> None:
        """The previous holder of the account gets no session there, either."""
        await self.relink_meanwhile()
