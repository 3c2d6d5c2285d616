"""What hangs on a session and ends with it, whatever ended it."""

from __future__ import annotations

from tests.support.synapse.profile import Profile
from tests.support.waiting import together
from tests.synapse.case import user_id
from tests.synapse.endings import MODULE, SYNAPSE, WATCHER, EndingCase, hashed

PROFILE = Profile("ending", module=MODULE, synapse=SYNAPSE, more_modules=[WATCHER])


class RemovedTests(EndingCase):
    """An account is taken out of the users file."""

    profile = PROFILE

    async def test_every_session(self) -> None:
        """All its sessions end, whatever client and listener they began with; no other's does."""
        name = self.new_user()
        bystander = await self.plain("bob")
        pair = await self.client.rotate(await self.client.pair(name))
        tokens = [
            pair.access,
            (await self.plain(name))["access_token"],
            (await self.plain(name, self.client.own))["access_token"],
            (await self.client.pair(name, self.client.own)).access,
        ]
        self.remove_user(name)
        for token in tokens:
            await self.until_dead(token)
        await self.assert_not_refreshable(pair)
        await self.assert_takes(bystander["access_token"])
        # A rotation has left the row of an earlier access token, which ends as well.
        told = self.told(user_id(name))
        self.assertEqual(len(set(told)), len(told))
        self.assertLessEqual({hashed(token) for token in tokens}, set(told))

    async def test_devices_and_keys(self) -> None:
        """Its devices and their keys stay, and serve when the account is back."""
        name = self.new_user()
        login = await self.plain(name)
        await self.upload_keys(login)
        self.remove_user(name)
        await self.until_dead(login["access_token"])
        self.assertEqual(self.keys(user_id(name)), {login["device_id"]})
        self.users = {**self.users, name: self.users["bob"]}
        self.write_users()
        again = await self.plain(name, device_id=login["device_id"])
        await self.assert_takes(again["access_token"])
        self.assertEqual(self.keys(user_id(name)), {login["device_id"]})

    async def test_pushers(self) -> None:
        """Its pushers end, by HTTP and by e-mail, those too that run."""
        name = self.new_user(emails=[f"{self.id().rpartition('.')[2]}@example.com"])
        login = await self.plain(name)
        other = await self.plain("bob")
        user = user_id(name)
        address = self.server.query("SELECT address FROM user_threepids WHERE user_id = ?", user)
        app = await self.push(login["access_token"])
        await self.push(login["access_token"], "email", address[0][0])
        kept = await self.push(other["access_token"])
        self.assertEqual(self.pushers(user), {app, "m.email"})
        self.assertLessEqual({app, "m.email", kept}, set(await self.running_pushers()))
        self.remove_user(name)
        await self.until_dead(login["access_token"])

        async def are_gone() -> bool:
            return not self.pushers(user)

        await self.until(are_gone, "the end of the pushers")
        running = await self.running_pushers()
        self.assertNotIn(app, running)
        self.assertNotIn("m.email", running)
        self.assertIn(kept, running)
        self.assertIn(kept, self.pushers(user_id("bob")))

    async def test_login_tokens(self) -> None:
        """Its login tokens are dead."""
        name = self.new_user()
        login = await self.plain(name)
        made = await self.client.post(
            self.client.own, "/login/get_token", {}, login["access_token"], "v1"
        )
        self.assertEqual(made.status, 200, str(made))
        self.remove_user(name)
        await self.until_dead(login["access_token"])
        body = {"type": "m.login.token", "token": made.json["login_token"]}
        answer = await self.client.post(self.client.own, "/login", body)
        self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_deactivated(self) -> None:
        """An account that is deactivated there ends like one that is gone."""
        name = self.new_user()
        login = await self.plain(name)
        app = await self.push(login["access_token"])
        self.change_user(name, deactivated=True)
        await self.until_dead(login["access_token"])

        async def is_gone() -> bool:
            return app not in await self.running_pushers()

        await self.until(is_gone, "the end of the pusher")
        self.assertEqual(self.told(user_id(name)), [hashed(login["access_token"])])

    async def test_by_a_refresh(self) -> None:
        """A refresh that finds the account gone ends all of it too."""
        name = self.new_user()
        pair = await self.client.pair(name)
        plain = await self.plain(name)
        app = await self.push(plain["access_token"])
        self.remove_user(name)
        answer = await self.client.refresh(pair)
        self.assert_error(answer, 401, "M_UNKNOWN_TOKEN")
        await self.assert_dead(plain["access_token"], soft_logout=True)
        self.assertEqual(self.pushers(user_id(name)), set())
        self.assertNotIn(app, await self.running_pushers())

    async def test_killed_before_telling(self) -> None:
        """When Synapse dies between the end of the tokens and of the rest, the rest ends later."""
        name = self.new_user()
        login = await self.plain(name)
        await self.push(login["access_token"])
        self.server.set_fault("kill before telling")
        self.remove_user(name)
        await self.server.wait_for_death()
        self.assertNotEqual(self.pushers(user_id(name)), set())
        self.server.set_fault("")
        await self.server.start()

        async def are_gone() -> bool:
            return not self.pushers(user_id(name))

        await self.until(are_gone, "the end of the pushers")
        await self.assert_dead(login["access_token"], soft_logout=True)


class DeviceTests(EndingCase):
    """One session ends."""

    profile = PROFILE

    async def test_reuse(self) -> None:
        """A session that is revoked for a replayed token loses its pusher; others keep theirs."""
        name = self.new_user()
        first = await self.client.pair(name)
        other = await self.plain(name)
        kept = await self.push(other["access_token"])
        third = await self.client.rotate(await self.client.rotate(first))
        app = await self.push(third.access)
        await self.upload_keys(third)
        await self.client.refresh(first)
        await self.assert_revoked(third)
        await self.assert_takes(other["access_token"])
        self.assertEqual(self.pushers(user_id(name)), {kept})
        running = await self.running_pushers()
        self.assertNotIn(app, running)
        self.assertIn(kept, running)
        self.assertEqual(self.told(user_id(name)).count(hashed(third.access)), 1)
        self.assertEqual(self.keys(user_id(name)), {first.device_id})

    async def test_same_device(self) -> None:
        """A login on the same device ends the earlier session, and leaves the device's pusher."""
        name = self.new_user()
        first = await self.plain(name)
        app = await self.push(first["access_token"])
        second = await self.plain(name, device_id=first["device_id"])
        answer = await self.client.whoami(first["access_token"])
        self.assert_error(answer, 401, "M_UNKNOWN_TOKEN")
        await self.assert_takes(second["access_token"])
        self.assertEqual(self.pushers(user_id(name)), {app})
        self.assertIn(app, await self.running_pushers())

    async def test_counted(self) -> None:
        """What has ended is counted by its reason."""
        name = self.new_user()
        login = await self.plain(name)
        before = (await self.outcomes("sessions_ended")).get('reason="gone"', 0)
        self.remove_user(name)
        await self.until_dead(login["access_token"])
        self.assertEqual((await self.outcomes("sessions_ended"))['reason="gone"'], before + 1)


class WorkerTests(EndingCase):
    """The same, seen from a worker, on PostgreSQL."""

    profile = Profile(
        "ending-worker", module=MODULE, synapse=SYNAPSE, more_modules=[WATCHER], worker=True
    )

    async def test_removed(self) -> None:
        """The worker refuses the tokens too, and pushers end."""
        name = self.new_user()
        login = await self.plain(name)
        pair = await self.client.rotate(await self.client.pair(name))
        await self.push(login["access_token"])
        worker = self.server.worker_client_url
        for token in (login["access_token"], pair.access):
            self.assertEqual((await self.client.whoami(token, worker)).status, 200)
        self.remove_user(name)
        for token in (login["access_token"], pair.access):
            await self.until_dead(token, worker)
            await self.until_dead(token)

        async def are_gone() -> bool:
            return not self.pushers(user_id(name))

        await self.until(are_gone, "the end of the pushers")

    async def test_lock(self) -> None:
        """The worker learns of a lock and of its end."""
        name = self.new_user()
        login = await self.plain(name)
        worker = self.server.worker_client_url
        self.change_user(name, locked=True)

        async def is_locked() -> bool:
            return (await self.client.whoami(login["access_token"], worker)).status == 401

        async def is_open() -> bool:
            return (await self.client.whoami(login["access_token"], worker)).status == 200

        await self.until(is_locked, "the lock")
        self.change_user(name, locked=False)
        await self.until(is_open, "the end of the lock")

    async def test_logins_at_once(self) -> None:
        """Of six logins at once on one device one session is left, whichever came last."""
        name = self.new_user()
        await self.plain(name)
        for number in range(15):
            device = f"DEVICE{number}"
            logins = await together(*(self.plain(name, device_id=device) for _ in range(6)))
            answers = [await self.client.whoami(each["access_token"]) for each in logins]
            self.assertEqual(sorted(answer.status for answer in answers), [200] + [401] * 5)
            rows = self.server.query(
                "SELECT token FROM access_tokens WHERE user_id = ? AND device_id = ?",
                user_id(name),
                device,
            )
            self.assertEqual(len(rows), 1)
