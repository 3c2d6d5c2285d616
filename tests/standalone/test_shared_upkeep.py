"""Real servers and workers that share a store: one of them does the upkeep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
import yaml
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from synapse_login_module.tokens import keyfile
from tests.support.accounts import ALICE_PASSWORD
from tests.support.configuration import CHEAP_HASH, good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.postgresql import shared_postgresql
from tests.support.server import Server
from tests.support.waiting import until

_SAYS = "this server does the upkeep of the store"
_LOGIN = "/_matrix/client/v3/login"
_WHOAMI = "/_matrix/client/v3/account/whoami"
_MAX_MISSED = 60.0


class SharedUpkeepTests(TestCase):
    """Servers with one PostgreSQL database and one file of accounts."""

    timeout = 180

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.dsn = shared_postgresql().new_database("upkeep")
        self.users = self.folder / "users.yaml"
        self.write_users({"alice": {}, "bob": {}})

    def write_users(self, users: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the file of accounts with these users, all with the same password."""
        hashed = {name: {"password_hash": CHEAP_HASH, **keys} for name, keys in users.items()}
        new = self.folder / "users.new"
        new.write_text(yaml.safe_dump({"users": hashed}), "utf-8")
        new.replace(self.users)

    async def server(self, name: str, *options: str) -> Server:
        """Make a server with a folder of its own, the shared database and file of accounts."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "token.key").symlink_to(self.folder / "token.key")
        port = free_port()
        provider = "synapse_login_module.providers.BcryptProvider"
        config = good_config(
            port,
            password_providers=[{"module": provider, "config": {"path": str(self.users)}}],
            token_store={
                "module": "synapse_login_module.stores.PostgreSQLTokenStore",
                "config": {"dsn": self.dsn},
            },
        )
        server = Server(write_config(folder, config), port, options=options)
        await server.start()
        self.addCleanup(server.stop)
        return server

    async def log_in(self, server: Server, user: str) -> str:
        """Log in; return the access token."""
        login = {"type": "m.login.password", "user": user, "password": ALICE_PASSWORD}
        status, answer = await deferToThread(server.ask, "POST", _LOGIN, login)
        self.assertEqual(status, 200, answer)
        return str(answer["access_token"])

    def sessions(self, user: str) -> int:
        """Return the number of a user's rows of sessions."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(
                "SELECT COUNT(*) FROM synapse_login_sessions WHERE user_id LIKE %s", [f"@{user}:%"]
            ).fetchone()
            assert row is not None
            return int(row[0])

    async def test_one_after_the_other(self) -> None:
        """One server does the upkeep, and the other after it stops. With either, the sessions of
        users who are removed from the file end.
        """
        self.make_key()
        first = await self.server("first")
        await until(lambda: _SAYS in first.log(), timeout=_MAX_MISSED)
        second = await self.server("second", "--workers=2")
        alice, bob = await self.log_in(second, "alice"), await self.log_in(second, "bob")
        self.write_users({"alice": {}})
        await until(lambda: self.sessions("bob") == 0, timeout=_MAX_MISSED)
        self.assertEqual((await deferToThread(second.ask, "GET", _WHOAMI, None, bob))[0], 401)
        self.assertNotIn(_SAYS, second.log())
        first.stop()
        await until(lambda: _SAYS in second.log(), timeout=_MAX_MISSED)
        self.write_users({"carol": {}})
        await until(lambda: self.sessions("alice") == 0, timeout=_MAX_MISSED)
        status, answer = await deferToThread(second.ask, "GET", _WHOAMI, None, alice)
        self.assertEqual((status, answer.get("soft_logout")), (401, None))
        self.assertEqual(second.log().count(_SAYS), 1)

    def make_key(self) -> None:
        """Make the key file of both servers."""
        keyfile.load_or_make(self.folder / "token.key", lambda size: bytes(range(size)))
