"""Unavailable password providers and token stores, and unexpected errors."""

from __future__ import annotations

import sqlite3

from tests.conformance import paths, server
from tests.conformance.case import ConformanceTestCase
from tests.conformance.profiles import THIRD_PARTY, Profile
from tests.conformance.target import TestAccount
from tests.conformance.thirdparty import SECRET_DETAIL
from tests.support.ports import free_port
from tests.support.response import Response

_STORE = Profile("store-outage")


class _MoodTestCase(ConformanceTestCase):
    profile = THIRD_PARTY

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.mood, "absent")

    def mood(self, mood: str) -> None:
        """Set the mood of the third party's provider."""
        (self.own_server().folder.path / "mood").write_text(mood)


class ProviderChainTests(_MoodTestCase):
    """Providers are asked in order."""

    async def test_not_mine(self) -> None:
        """When a provider does not know the user, the next one is asked."""
        self.succeeded(await self.client.login())

    async def test_final(self) -> None:
        """When a provider rejects the password, no other provider is asked."""
        self.mood("rejecting")
        self.refused(await self.client.login(self.second_account()), 403, "M_FORBIDDEN")


class ProviderOutageTests(_MoodTestCase):
    """A provider that cannot be reached."""

    async def test_unavailable(self) -> None:
        """A login gets 503, with the right or a wrong password, and never 403."""
        self.mood("unreachable")
        for password in (self.target.account.password, "not the password"):
            answer = await self.client.login(TestAccount(self.target.account.user, password))
            self.assertEqual(answer.status, 503, str(answer))
            self.assertNotIn("M_FORBIDDEN", answer.json["errcode"])
            self.assertNotIn(SECRET_DETAIL, answer.body.decode())

    async def test_not_counted(self) -> None:
        """Outages do not count as failed logins."""
        self.mood("unreachable")
        account = self.second_account()
        for _ in range(10):
            self.assertEqual((await self.client.login(account)).status, 503)
        self.mood("absent")
        self.succeeded(await self.client.login(account))

    async def test_sessions_live(self) -> None:
        """Existing sessions work during an outage."""
        login = await self.logged_in()
        self.mood("unreachable")
        await self.assert_alive(login["access_token"])

    async def test_refresh(self) -> None:
        """A refresh succeeds or asks for a retry; the session is kept."""
        login = await self.logged_in()
        self.mood("unreachable")
        answer = await self.client.refresh(login["refresh_token"])
        self.assertIn(answer.status, (200, 503), str(answer))
        answer = await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        self.assertIn(answer.status, (200, 403, 503), str(answer))
        self.mood("absent")
        again = await self.logged_in()
        self.mood("unreachable")
        await self.client.refresh(again["refresh_token"])
        self.mood("absent")
        self.succeeded(await self.client.refresh(again["refresh_token"]))


class UnexpectedTests(_MoodTestCase):
    """A provider with a bug."""

    errors_in_log = True

    async def test_internal(self) -> None:
        """The client gets no details of the error; the log has them."""
        own = self.own_server()
        self.mood("broken")
        start = own.folder.log_size()
        answer = await self.client.login()
        self.assertEqual(answer.status, 500, str(answer))
        self.assertEqual(answer.json, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
        self.assertIn(SECRET_DETAIL, own.folder.log(start))

    async def test_goes_on(self) -> None:
        """The next login succeeds."""
        self.mood("broken")
        self.assertEqual((await self.client.login()).status, 500)
        self.mood("absent")
        self.succeeded(await self.client.login())


class StoreOutageTests(ConformanceTestCase):
    """A token store that cannot be written to: another program has locked the database."""

    profile = _STORE
    errors_in_log = True

    def setUp(self) -> None:
        super().setUp()
        own = self.own_server()
        self._lock = sqlite3.connect(own.folder.path / "sessions.db", isolation_level=None)
        self.addCleanup(self._lock.close)

    def _break(self) -> None:
        try:
            self._lock.execute("PRAGMA busy_timeout = 5000")
            self._lock.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            self.skipTest(f"the server keeps the database to itself: {error}")

    def _mend(self) -> None:
        self._lock.execute("ROLLBACK")

    def _assert_plain(self, answer: Response) -> None:
        self.assertEqual(answer.status, 503, str(answer))
        self.assertEqual(answer.media_type, "text/plain")
        self.assertTrue(int(answer.header("Retry-After") or "0") >= 1)
        self.assertFalse(answer.body.startswith((b"{", b"[", b'"')), str(answer))

    async def test_login(self) -> None:
        """A login gets 503, and succeeds after the outage."""
        self._break()
        answer = await self.client.login()
        self._mend()
        self.assertEqual(answer.status, 503, str(answer))
        self.succeeded(await self.client.login())

    async def test_refresh(self) -> None:
        """/refresh answers in plain text, and the refresh token works after the outage."""
        login = await self.logged_in()
        self._break()
        answer = await self.client.refresh(login["refresh_token"])
        self._mend()
        self._assert_plain(answer)
        self.succeeded(await self.client.refresh(login["refresh_token"]))

    async def test_tokenrefresh(self) -> None:
        """/tokenrefresh answers in plain text, and the refresh token works after the outage."""
        login = await self.logged_in()
        self._break()
        answer = await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        self._mend()
        self._assert_plain(answer)
        self.succeeded(
            await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        )

    async def test_logout(self) -> None:
        """A logout gets 503 and is not reported as done; it succeeds after the outage."""
        login = await self.logged_in()
        self._break()
        answer = await self.client.logout(login["access_token"])
        self._mend()
        self.assertEqual(answer.status, 503, str(answer))
        self.succeeded(await self.client.logout(login["access_token"]))

    async def test_get_token(self) -> None:
        """A login token gets 503."""
        login = await self.logged_in()
        path = paths.at(paths.GET_TOKEN)
        session = (await self.client.post(path, {}, login["access_token"])).json["session"]
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.target.account.user},
            "password": self.target.account.password,
            "session": session,
        }
        self._break()
        answer = await self.client.post(path, {"auth": auth}, login["access_token"])
        self._mend()
        self.assertEqual(answer.status, 503, str(answer))


class DamagedStoreTests(ConformanceTestCase):
    """A file that is no database."""

    errors_in_log = True

    def test_start(self) -> None:
        """The server does not start, and does not change the file."""
        self.own_server()
        folder = server.Folder(
            Profile("damaged").config(free_port()), {"sessions.db": "no database " * 500}
        )
        self.addCleanup(folder.remove)
        before = (folder.path / "sessions.db").read_bytes()
        status, _ = folder.run_until_exit()
        self.assertNotEqual(status, 0)
        self.assertEqual((folder.path / "sessions.db").read_bytes(), before)
