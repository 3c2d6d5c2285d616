"""Accounts that change while the server runs: the password file is read again."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml

from tests.conformance import accounts
from tests.conformance.case import ConformanceTestCase, pause
from tests.conformance.profiles import USERS_FILE
from tests.conformance.target import TestAccount

_PATIENCE = 15.0


def _account(user: str) -> TestAccount:
    return TestAccount(user, f"the-password-of-{user}")


class UsersFileTestCase(ConformanceTestCase):
    """The accounts are in a file that the tests change."""

    profile = USERS_FILE

    def write(self, text: str) -> None:
        """Replace the users file atomically, as an editor does."""
        path = self._path()
        new = path.with_name("users.yaml.new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)

    async def change(self, account: TestAccount, **keys: Any) -> None:
        """Replace the users file by one with this account, and wait until the server has read it.

        A login to a second account, with another name each time, shows that.
        """
        marker = _account(f"marker{time.monotonic_ns()}")
        users = {
            account.user: {"password_hash": accounts.password_hash(account.password), **keys},
            marker.user: {"password_hash": accounts.password_hash(marker.password)},
        }
        self.write(yaml.safe_dump({"users": users}))
        await self.until_true(lambda: self._can_log_in(marker))

    async def until_true(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Repeat a check until it is true."""
        deadline = time.monotonic() + _PATIENCE
        while not await condition():
            self.assertTrue(time.monotonic() < deadline, "the password file is not read again")
            await pause(0.1)

    async def _can_log_in(self, account: TestAccount) -> bool:
        return (await self.client.login(account)).status == 200

    def _path(self) -> Path:
        return self.own_server().folder.path / "users.yaml"


class ChangedFileTests(UsersFileTestCase):
    """A changed users file."""

    async def test_new_account(self) -> None:
        """An account that is added can log in, without a restart."""
        account = _account("newcomer")
        self.assertEqual((await self.client.login(account)).status, 403)
        await self.change(account)
        self.succeeded(await self.client.login(account))

    async def test_new_password(self) -> None:
        """A changed password replaces the old one."""
        old, new = _account("changer"), TestAccount("changer", "another-password-for-changer")
        await self.change(old)
        self.succeeded(await self.client.login(old))
        await self.change(new)
        self.succeeded(await self.client.login(new))
        self.refused(await self.client.login(old), 403, "M_FORBIDDEN")

    async def test_broken(self) -> None:
        """A broken version is logged, and the last valid one is kept."""
        account = _account("keeper")
        await self.change(account)
        own = self.own_server()
        for text in ("users: [", "users: 1\n", "", "users:\n  keeper: {password: plain}\n", "\x00"):
            start = own.folder.log_size()
            self.write(text)
            await self.until_true(lambda start=start: self._logged(start))  # type: ignore[misc]
            self.succeeded(await self.client.login(account))
        await self.change(account)

    async def test_written_in_place(self) -> None:
        """A file that is overwritten in place is read too."""
        account = _account("inplace")
        users = {account.user: {"password_hash": accounts.password_hash(account.password)}}
        path = self._path()
        path.write_text(yaml.safe_dump({"users": users}), encoding="utf-8")
        os.utime(path)
        await self.until_true(lambda: self._can_log_in(account))

    async def _logged(self, start: int) -> bool:
        await self.client.login(_account("nobody"))
        return "users.yaml" in self.own_server().folder.log(start)


class ChangedAccountTests(UsersFileTestCase):
    """At a refresh the account is looked at again."""

    async def test_locked(self) -> None:
        """A locked account gets no new tokens but keeps its session until it is unlocked."""
        account = _account("sometimes")
        await self.change(account)
        login = await self.logged_in(account)
        await self.change(account, locked=True)
        answer = await self.client.refresh(login["refresh_token"])
        self.refused(answer, 401, "M_USER_LOCKED")
        self.assertTrue(answer.soft_logout)
        answer = await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        self.refused(answer, 401, "M_USER_LOCKED")
        self.assertTrue(answer.soft_logout)
        await self.change(account)
        pair = self.succeeded(await self.client.refresh(login["refresh_token"]))
        await self.assert_alive(pair["access_token"])

    async def test_locked_login(self) -> None:
        """A login to a locked account is refused, and ends no session on the same device."""
        account = _account("once")
        await self.change(account)
        login = await self.logged_in(account, device_id="CONFORMANCE9")
        await self.change(account, locked=True)
        answer = await self.client.login(account, device_id="CONFORMANCE9")
        self.refused(answer, 401, "M_USER_LOCKED")
        await self.change(account)
        self.succeeded(
            await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        )

    async def test_deactivated(self) -> None:
        """A deactivated account gets no new tokens from /refresh and loses its session."""
        account = _account("gone")
        await self.change(account)
        login = await self.logged_in(account)
        await self.change(account, deactivated=True)
        answer = await self.client.refresh(login["refresh_token"])
        self.assertIn(answer.status, (401, 403), str(answer))
        await self.assert_dead(login["access_token"], soft=False)
        await self.change(account)
        self.refused(await self.client.refresh(login["refresh_token"]), 401, "M_UNKNOWN_TOKEN")

    async def test_deactivated_strict(self) -> None:
        """A deactivated account gets no new tokens from /tokenrefresh and loses its session."""
        account = _account("gone2")
        await self.change(account)
        login = await self.logged_in(account)
        await self.change(account, deactivated=True)
        answer = await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        self.assertEqual(answer.status, 403, str(answer))
        await self.assert_dead(login["access_token"], soft=False)
