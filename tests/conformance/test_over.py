"""Sessions that end on a real server without being refreshed."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from twisted.internet.threads import deferToThread

from tests.conformance import accounts, paths
from tests.conformance.case import ConformanceTestCase, pause
from tests.conformance.profiles import BRAKED, SHORT_KEPT, WATCHED
from tests.conformance.target import TestAccount
from tests.support.process import run

_PATIENCE = 30.0


def _account(user: str) -> TestAccount:
    return TestAccount(user, f"the-password-of-{user}")


class _OverTestCase(ConformanceTestCase):
    """A test case that waits for events without sending a request."""

    async def until_true(self, condition: Callable[[], Awaitable[bool]], problem: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not await condition():
            self.assertTrue(time.monotonic() < deadline, problem)
            await pause(0.1)

    def rows(self, user: str | None = None) -> int:
        """Return the number of rows of sessions, of a user or of all."""
        path = self.own_server().folder.path / "sessions.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            where = "" if user is None else "WHERE user_id = ?"
            values = [] if user is None else [f"@{user}:{accounts.SERVER_NAME}"]
            (count,) = connection.execute(f"SELECT COUNT(*) FROM sessions {where}", values)
            return int(count[0])
        finally:
            connection.close()


class _WatchedTestCase(_OverTestCase):
    """Accounts in a file."""

    profile = WATCHED

    def setUp(self) -> None:
        super().setUp()
        self.users: dict[str, dict[str, Any]] = {}

    def write(self) -> None:
        """Write the users file."""
        hashed = {
            name: {"password_hash": accounts.password_hash(_account(name).password), **keys}
            for name, keys in self.users.items()
        }
        path = self.own_server().folder.path / "users.yaml"
        new = path.with_name("users.yaml.new")
        new.write_text(yaml.safe_dump({"users": hashed}), encoding="utf-8")
        new.replace(path)

    async def log_in(self, *names: str) -> list[dict[str, Any]]:
        """Write a users file with these users and another one, and log them in."""
        self.users = {name: {} for name in (*names, "bystander")}
        self.write()
        logins = []
        for name in names:
            await self.until_true(
                lambda name=name: self._can_log_in(name),  # type: ignore[misc]
                "the password file is not read again",
            )
            logins.append(await self.logged_in(_account(name)))
        return logins

    async def _can_log_in(self, name: str) -> bool:
        return (await self.client.login(_account(name))).status == 200

    async def has_ended(self, name: str) -> bool:
        return self.rows(name) == 0


class WatchedTests(_WatchedTestCase):
    """Accounts are looked at when their sessions are used, and in the background."""

    async def test_removed(self) -> None:
        """A user who is removed from the file loses all sessions for good, unused ones too."""
        (login,) = await self.log_in("gone")
        self.assertGreaterEqual(self.rows("gone"), 2)
        del self.users["gone"]
        self.write()
        await self.until_true(lambda: self.has_ended("gone"), "the sessions have not ended")
        await self.assert_dead(login["access_token"], soft=False)

    async def test_deactivated(self) -> None:
        """So does a user who is deactivated."""
        (login,) = await self.log_in("closed")
        self.users["closed"]["deactivated"] = True
        self.write()
        await self.until_true(lambda: self.has_ended("closed"), "the sessions have not ended")
        await self.assert_dead(login["access_token"], soft=False)

    async def test_locked(self) -> None:
        """A locked user gets an error at each use, and continues when unlocked."""
        (login,) = await self.log_in("sometimes")
        token = login["access_token"]

        async def says(status: int) -> bool:
            return (await self.client.whoami(token)).status == status

        self.users["sometimes"]["locked"] = True
        self.write()
        await self.until_true(lambda: says(401), "an access token of a locked account works")
        for _ in range(3):
            answer = await self.client.whoami(token)
            self.refused(answer, 401, "M_USER_LOCKED")
            self.assertTrue(answer.soft_logout)
        answer = await self.client.post(paths.at(paths.GET_TOKEN), {}, token)
        self.refused(answer, 401, "M_USER_LOCKED")
        del self.users["sometimes"]["locked"]
        self.write()
        await self.until_true(lambda: says(200), "an unlocked account is told that it is locked")


class BrakeTests(_WatchedTestCase):
    """Many accounts that vanish at once."""

    profile = BRAKED

    async def test_brake(self) -> None:
        """When more accounts vanish than the brake allows, their sessions stay and a line is
        logged. ``sessions end-gone`` ends them.
        """
        names = [f"many{number}" for number in range(3)]
        logins = await self.log_in(*names)
        own = self.own_server()
        start = own.folder.log_size()
        for name in names:
            del self.users[name]
        self.write()

        async def is_said() -> bool:
            return "the brake is on" in own.folder.log(start)

        await self.until_true(is_said, "nothing is said of the brake")
        for login in logins:
            await self.assert_alive(login["access_token"])
            self.succeeded(await self.client.refresh(login["refresh_token"]))
        listed = await self.end_gone()
        for name in names:
            self.assertIn(f"@{name}:{accounts.SERVER_NAME}\tbcrypt\t{name}\t", listed)
            self.assertGreater(self.rows(name), 0)
        await self.end_gone("--yes")
        for name in names:
            self.assertEqual(self.rows(name), 0)
        for login in logins:
            await self.assert_dead(login["access_token"], soft=False)

    async def end_gone(self, *options: str) -> str:
        """Run ``sessions end-gone``; return its output."""
        config = self.own_server().folder.config_file
        command = [sys.executable, "-m", "synapse_login_module.cli", "sessions", "end-gone"]
        done = await deferToThread(run, [*command, "--config", str(config), *options])
        self.assertEqual(done.returncode, 0, done.stderr)
        return str(done.stdout)


class PrunedTests(_OverTestCase):
    """The pruning of ended sessions."""

    profile = SHORT_KEPT

    async def test_pruned(self) -> None:
        """Sessions that expired or that reuse has ended are removed in the background."""
        await self.logged_in()
        old = await self.logged_in()
        self.succeeded(await self.client.tokenrefresh(old["refresh_token"], old["access_token"]))
        answer = await self.client.refresh(old["refresh_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertTrue(answer.soft_logout)
        self.assertGreaterEqual(self.rows(), 2)

        async def is_empty() -> bool:
            return self.rows() == 0

        await self.until_true(is_empty, "rows of sessions that are over stay")
        answer = await self.client.refresh(old["refresh_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertFalse(answer.soft_logout)

    async def test_command(self) -> None:
        """``sessions prune`` prints the number of removed rows."""
        config = self.own_server().folder.config_file
        command = [sys.executable, "-m", "synapse_login_module.cli", "sessions", "prune"]
        done = await deferToThread(run, [*command, "--config", str(config)])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"^\d+ sessions and 0 login tokens removed\n$")
