"""The sweep over linked accounts, in a Synapse whose directory cannot tell when it changes."""

from __future__ import annotations

from typing import Any

from tests.support.waiting import together
from tests.synapse.case import user_id
from tests.synapse.client import Pair
from tests.synapse.endings import INTERVAL, DirectoryCase, directory_profile, hashed, sleep

PROFILE = directory_profile("sweep")


class SweepTests(DirectoryCase):
    """Accounts are looked at without any refresh."""

    profile = PROFILE

    async def test_removed(self) -> None:
        """A removed user is logged out of every client within an interval."""
        removed, other = self.enter(2)
        logins = [
            await self.plain(removed),
            await self.plain(removed, self.client.own),
        ]
        bystander = await self.plain(other)
        await self.push(logins[0]["access_token"])
        self.say(removed, None)
        for login in logins:
            await self.until_dead(login["access_token"])
        await self.assert_takes(bystander["access_token"])
        told = self.told(user_id(removed))
        self.assertEqual(sorted(told), sorted(hashed(each["access_token"]) for each in logins))
        self.assertEqual(self.pushers(user_id(removed)), set())
        self.assertIn(f"{user_id(removed)} is gone at directory", self.logged())

    async def test_deactivated(self) -> None:
        """So is one who is deactivated there."""
        (name,) = self.enter()
        login = await self.plain(name)
        self.say(name, "deactivated")
        await self.until_dead(login["access_token"])

    async def test_outage(self) -> None:
        """While the directory is unavailable, no sessions end."""
        (name,) = self.enter()
        login = await self.plain(name)
        self.file.unlink()
        await sleep(2 * INTERVAL)
        await self.assert_takes(login["access_token"])
        looked = await self.outcomes("sweep_looks")
        self.assertGreater(looked['outcome="unavailable",provider="directory"'], 0)

    async def test_lock(self) -> None:
        """Synapse is told of a lock, and of its end; no token has to be refreshed for that."""
        (name,) = self.enter()
        login = await self.plain(name)
        self.say(name, "locked")

        async def is_locked() -> bool:
            url = f"{self.client.own}/_matrix/client/v3/sync?timeout=0"
            answer = await self.client.send("GET", url, token=login["access_token"])
            if answer.status == 200:
                return False
            self.assert_error(answer, 401, "M_USER_LOCKED", soft_logout=True)
            return True

        async def is_open() -> bool:
            return not await is_locked()

        await self.until(is_locked, "the lock")
        self.say(name, "active")
        await self.until(is_open, "the end of the lock")
        await self.assert_takes(login["access_token"])

    async def test_lock_of_an_administrator(self) -> None:
        """A lock of an administrator's stays when the directory's ends."""
        (name,) = self.enter()
        login = await self.plain(name)
        root = await self.administrator()
        changed = await self.client.change_user(root, name, locked=True)
        self.assertEqual(changed.status, 200, str(changed))
        self.say(name, "locked")
        await sleep(1.5 * INTERVAL)
        self.say(name, "active")
        await sleep(1.5 * INTERVAL)
        answer = await self.client.whoami(login["access_token"])
        self.assert_error(answer, 401, "M_USER_LOCKED")

    async def test_administrator(self) -> None:
        """A linked account that becomes an administrator is a line in the log."""
        (name,) = self.enter()
        await self.plain(name)
        root = await self.administrator()
        changed = await self.client.change_user(root, name, admin=True)
        self.assertEqual(changed.status, 200, str(changed))
        line = f"{user_id(name)}, linked to id-of-{name} of directory, is a server administrator"

        async def is_said() -> bool:
            return line in self.logged()

        await self.until(is_said, "the line")

    async def test_provider_that_is_configured_no_more(self) -> None:
        """Accounts of a provider that is no longer configured keep their sessions."""
        (name,) = self.enter()
        login = await self.plain(name)
        self.server.query(
            "UPDATE synapse_login_links SET provider = 'former' WHERE user_id = ?", user_id(name)
        )
        self.say(name, None)
        await sleep(2 * INTERVAL)
        await self.assert_takes(login["access_token"])

    async def test_metrics(self) -> None:
        """What the sweep does can be seen."""
        (name,) = self.enter()
        await self.plain(name)

        async def is_counted() -> bool:
            return await self.metric("linked_accounts") > 0

        await self.until(is_counted, "a count of the links")
        self.assertEqual(await self.metric("brake_held_accounts"), 0)
        self.assertLess(await self.metric("sweep_lag_seconds"), INTERVAL)


class BrakeTests(DirectoryCase):
    """Most of the directory vanishes."""

    profile = directory_profile("brake")

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.names = self.enter(40)
        self.pairs: list[Pair] = []
        self.plains: list[dict[str, Any]] = []
        for name in self.names:
            self.pairs.append(await self.client.pair(name))
            self.plains.append(await self.plain(name))

    async def brake_is_on(self) -> bool:
        """Whether the metric says so."""
        return await self.metric("brake_held_accounts") > 0

    async def brake_is_off(self) -> bool:
        """Whether the metric says so."""
        return await self.metric("brake_held_accounts") == 0

    async def assert_all_live(self) -> None:
        """No session has ended."""
        await self.assert_takes(*(pair.access for pair in self.pairs))
        await self.assert_takes(*(plain["access_token"] for plain in self.plains))

    async def end_gone(self, *arguments: str) -> list[str]:
        """Run ``sessions end-gone``; the lines it printed."""
        command = ["sessions", "end-gone", "--homeserver-config", "homeserver.yaml"]
        done = await self.server.run_command(*command, *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout.splitlines()

    async def test_everybody(self) -> None:
        """Nothing ends, by the sweep and by forty refreshes at once; back again, all is as before.
        Those who then stay away are gone.
        """
        before = dict(self.known)
        self.known.clear()
        self.write()
        answers = await together(*(self.client.refresh(pair) for pair in self.pairs))
        self.assertEqual({answer.status for answer in answers}, {200})
        self.pairs = [pair.then(answer) for pair, answer in zip(self.pairs, answers, strict=True)]
        await self.until(self.brake_is_on, "the brake")
        await sleep(2 * INTERVAL)
        await self.assert_all_live()
        self.assertIn("sessions end-gone --yes", self.logged())
        self.assertNotIn(" is gone at ", self.logged())

        self.known.update(before)
        gone = self.names[:3]
        for name in gone:
            del self.known[name]
        self.write()
        await self.until(self.brake_is_off, "the end of the brake")
        for plain in self.plains[:3]:
            await self.until_dead(plain["access_token"])
        await self.assert_takes(*(plain["access_token"] for plain in self.plains[3:]))
        for name in gone:
            self.say(name, "active")

    async def test_more_than_may(self) -> None:
        """Eleven accounts are held until an operator lets them go; then they go, and no other."""
        for name in self.names[:11]:
            del self.known[name]
        self.write()
        await self.until(self.brake_is_on, "the brake")
        await sleep(2 * INTERVAL)
        await self.assert_all_live()
        gone = [user_id(name) for name in self.names[:11]]
        listed = await self.end_gone()
        self.assertEqual([line.split("\t")[0] for line in listed[:-1]], sorted(gone))
        self.assertIn("\tdirectory\tid-of-", listed[0])
        self.assertIn("11 accounts have vanished and keep their sessions", listed[-1])
        await sleep(INTERVAL)
        await self.assert_all_live()
        self.assertIn("the sessions of 11 accounts are ended", (await self.end_gone("--yes"))[-1])
        for plain in self.plains[:11]:
            await self.until_dead(plain["access_token"])
        await self.assert_takes(*(plain["access_token"] for plain in self.plains[11:]))
        await self.until(self.brake_is_off, "the end of the brake")
        self.assertEqual(self.server.query("SELECT * FROM synapse_login_wishes"), [])
        nobody = "no account has vanished and keeps its sessions"
        self.assertEqual(await self.end_gone("--yes"), [nobody])
        self.assertEqual(await self.end_gone(), [nobody])
        for name in self.names[:11]:
            self.say(name, "active")

    async def test_unlinked_by_a_command(self) -> None:
        """What a command has unlinked ends, with the lock that Synapse was told of."""
        name, user = self.names[0], user_id(self.names[0])
        self.say(name, "locked")

        async def is_locked() -> bool:
            return (await self.client.whoami(self.pairs[0].access)).status == 401

        await self.until(is_locked, "the lock")
        self.server.query("DELETE FROM synapse_login_links WHERE user_id = ?", user)
        self.server.query(
            "INSERT INTO synapse_login_wishes (user_id, reason, wished_at, locked)"
            " VALUES (?, 'unlinked', 1, 1)",
            user,
        )

        async def is_unlocked() -> bool:
            answer = await self.client.whoami(self.pairs[0].access)
            self.assertEqual(answer.status, 401, str(answer))
            return bool(answer.errcode == "M_UNKNOWN_TOKEN")

        await self.until(is_unlocked, "the end of the sessions")
        await self.assert_dead(self.plains[0]["access_token"], soft_logout=True)
        await self.assert_takes(self.plains[1]["access_token"])


class NoBrakeTests(DirectoryCase):
    """``brake: null``."""

    profile = directory_profile("no-brake", brake=None)

    async def test_everybody(self) -> None:
        """All sessions end."""
        names = self.enter(12)
        plains = [await self.plain(name) for name in names]
        self.known.clear()
        self.write()
        for plain in plains:
            await self.until_dead(plain["access_token"])
