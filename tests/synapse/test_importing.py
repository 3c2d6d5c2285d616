"""``synapse-login-module import-synapse``, with a real Synapse."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Mapping
from typing import Any

import yaml
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred

from synapse_login_module.errors import (
    ExpiredToken,
    InvalidCredentials,
    ReusedToken,
    UnknownToken,
)
from synapse_login_module.model import Link, UserId, UserIdentifier
from synapse_login_module.standalone.plan import load_config
from synapse_login_module.standalone.server import Backends, build_backends
from synapse_login_module.testing import refresh
from tests.support.configuration import good_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.postgresql import shared_postgresql
from tests.support.server import Server
from tests.support.sessions import make_files
from tests.support.synapse.config import write_yaml
from tests.support.synapse.delegating import SECRET, SECRET_FILE
from tests.support.synapse.profile import BCRYPT, SERVER_NAME, Profile
from tests.synapse.case import HomeserverCase, fresh, user_id
from tests.synapse.client import Pair

_PEPPER = "a pepper of the tests"
_PLAIN = {
    "module": None,
    "synapse": {"password_config": {"pepper": _PEPPER}, "refreshable_access_token_lifetime": "5m"},
}
SQLITE = Profile("importing from SQLite", **_PLAIN)  # type: ignore[arg-type]
BACK = Profile("there and back", files={SECRET_FILE: f"{SECRET}\n"}, **_PLAIN)  # type: ignore[arg-type]
POSTGRESQL = Profile("importing from PostgreSQL", postgres=True, **_PLAIN)  # type: ignore[arg-type]


class ImportCase(HomeserverCase):
    """Runs the command as an operator does, in Synapse's folder and without Synapse's code."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.folder = temporary_folder(self)
        self.accounts = self.folder / "accounts.yaml"
        poison = self.folder / "poison" / "synapse"
        poison.mkdir(parents=True)
        (poison / "__init__.py").write_text('raise ImportError("there is no Synapse here")\n')
        self.config = self.folder / "login.yaml"

    def store_config(self) -> Mapping[str, Any]:
        """The configuration of the token store."""
        return {
            "module": "synapse_login_module.stores.SQLiteTokenStore",
            "config": {"path": "sessions.db"},
        }

    def configure(self, *providers: Mapping[str, Any]) -> None:
        """Write the server's configuration, and have it make its files."""
        config = good_config(users={}, server_name=SERVER_NAME, token_store=self.store_config())
        if providers:
            config["password_providers"] = list(providers)
        self.config.write_text(yaml.safe_dump(config))
        make_files(self.config)

    def serve_accounts(self) -> None:
        """Write a configuration whose only provider serves the file of accounts."""
        config = {"path": str(self.accounts), "pepper": _PEPPER}
        self.configure({"module": BCRYPT, "config": config})

    async def run_import(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``import-synapse`` with both configurations."""
        files = ["--config", str(self.config), "--homeserver-config", "homeserver.yaml"]
        poison = self.folder / "poison"
        return await self.server.run_command("import-synapse", *files, *arguments, before=poison)

    async def take_over(self, *arguments: str) -> str:
        """Run the command, which has to succeed; return what it printed."""
        done = await self.run_import(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    async def backends(self) -> Backends:
        """Start the objects of the standalone server on the same store."""
        backends = build_backends(load_config(self.config, reactor), reactor)
        for part in backends.parts:
            part.startService()

        async def stop() -> None:
            for part in reversed(backends.parts):
                await maybeDeferred(part.stopService)

        self.addCleanup(stop)
        return backends

    async def plain(self, name: str, password: str, **more: Any) -> Mapping[str, Any]:
        """Log in at Synapse as a client that does not refresh; return the response."""
        answer = await self.client.login(self.client.own, name, password, **more)
        self.assertEqual(answer.status, 200, str(answer))
        content: Mapping[str, Any] = answer.json
        return content

    async def pair(self, name: str, password: str, **more: Any) -> Pair:
        """Log in at Synapse as a client that refreshes."""
        return await self.client.pair_with(name, password, self.client.own, **more)

    def log_in(self, backends: Backends, name: str, password: str) -> Any:
        """Check a password as a login does."""
        identifier = UserIdentifier(UserId(name, SERVER_NAME))
        return backends.accounts.authenticate(identifier, password)


class FromSQLiteTests(ImportCase):
    """Tests of taking over from a Synapse on SQLite, which runs meanwhile."""

    profile = SQLITE

    async def test_whole_way(self) -> None:
        """Accounts first, then the provider, then sessions: nobody is logged out."""
        root = await self.administrator()
        anna, password = await self.local_user("anna")
        ben, _ = await self.local_user("ben")
        locked, _ = await self.local_user("locked")
        gone, _ = await self.local_user("gone")
        await self.client.change_user(
            root,
            anna,
            displayname="Anna, with: an 'odd' name \U0001f600",
            threepids=[
                {"medium": "email", "address": f"{anna}@example.com"},
                {"medium": "msisdn", "address": "447700900124"},
            ],
        )
        await self.client.change_user(root, locked, locked=True)
        await self.client.change_user(root, gone, deactivated=True)
        await self.client.change_user(root, fresh("passwordless"))

        plain = await self.plain(anna, password, device_id="WEB")
        first = await self.pair(anna, password, device_id="PHONE")
        phone = first.then(await self.client.own_refresh(first))
        await self.client.whoami(phone.access)
        before = await self.pair(anna, password, device_id="LOST")
        lost = before.then(await self.client.own_refresh(before))
        named = await self.plain(
            ben, f"{ben}-has-this-password", initial_device_display_name="Ben's"
        )

        self.configure()
        dry = await self.take_over("--accounts", str(self.accounts), "--dry-run")
        self.assertIn("accounts\ttaken\t", dry)
        self.assertFalse(self.accounts.exists())
        said = await self.take_over("--accounts", str(self.accounts))
        self.assertEqual(stat.S_IMODE(self.accounts.stat().st_mode), 0o600)
        self.assertIn("BcryptProvider", said)
        self.assertIn("admins: [", said)
        self.assertNotIn(_PEPPER, said)
        users = yaml.safe_load(self.accounts.read_text())["users"]
        self.assertEqual(users[anna]["display_name"], "Anna, with: an 'odd' name \U0001f600")
        self.assertEqual(users[anna]["emails"], [f"{anna}@example.com"])
        self.assertEqual(users[anna]["phones"], ["447700900124"])
        self.assertTrue(users[locked]["locked"])
        self.assertNotIn(gone, users)

        early = await self.run_import("--accounts", str(self.accounts), "--sessions")
        self.assertEqual(early.returncode, 1)
        self.assertIn("no provider serves", early.stderr)

        self.serve_accounts()
        backends = await self.backends()
        with self.assertRaises(UnknownToken):
            await backends.store.session_for_access_token(plain["access_token"], False)
        await self.take_over("--accounts", str(self.accounts), "--sessions")
        again = await self.take_over("--accounts", str(self.accounts), "--sessions")
        for line in ("accounts\ttaken", "links\ttaken", "sessions\ttaken"):
            self.assertNotIn(line, again)

        store: Any = backends.store
        self.assertEqual(await store.link_of(user_id(anna)), Link(user_id(anna), "bcrypt", anna))
        found = await store.session_for_access_token(plain["access_token"], False)
        self.assertEqual((found.user_id, found.device_id), (user_id(anna), "WEB"))
        names = {each.device_id: each.display_name for each in await store.sessions(user_id(ben))}
        self.assertEqual(names[named["device_id"]], "Ben's")

        pair = await refresh(store, phone.refresh, None, False)
        found = await store.session_for_access_token(pair.access_token, False)
        self.assertEqual((found.user_id, found.device_id), (user_id(anna), "PHONE"))
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(phone.access, False)
        with self.assertRaises(UnknownToken):
            await refresh(store, first.refresh, None, False)
        # The answer to a refresh at Synapse may have been lost, so both pairs are good.
        await store.session_for_access_token(before.access, False)
        await store.session_for_access_token(lost.access, False)
        await refresh(store, before.refresh, None, False)

        account = await self.log_in(backends, anna, password)
        self.assertEqual(account.user_id, user_id(anna))
        with self.assertRaises(InvalidCredentials):
            await self.log_in(backends, anna, "wrong")

    async def test_running_server(self) -> None:
        """A server that runs accepts the tokens by the time that the command has ended."""
        anna, password = await self.local_user("anna")
        plain = await self.plain(anna, password)
        self.serve_first()
        await self.take_over("--accounts", str(self.accounts))
        backends = await self.backends()
        with self.assertRaises(UnknownToken):
            await backends.store.session_for_access_token(plain["access_token"], False)
        await self.take_over("--sessions")
        await backends.store.session_for_access_token(plain["access_token"], False)

    async def test_unknown_account(self) -> None:
        """A session whose account no provider knows is left out, and listed."""
        name, password = await self.local_user("nobody")
        plain = await self.plain(name, password, device_id="TABLET")
        self.configure()
        said = await self.take_over("--sessions", "--verbose")
        self.assertIn(f"sessions\t{user_id(name)} TABLET\tno provider knows its account\n", said)
        backends = await self.backends()
        with self.assertRaises(UnknownToken):
            await backends.store.session_for_access_token(plain["access_token"], False)

    async def test_links(self) -> None:
        """Accounts without a password are linked to a provider that has one of the same name."""
        root = await self.administrator()
        names = [fresh(prefix) for prefix in ("known", "unknown", "admin")]
        for name in names:
            await self.client.change_user(root, name, admin=name.startswith("admin"))
        local, _ = await self.local_user("local")
        known, unknown, admin = names
        hashed = good_config()["password_providers"][0]["config"]["users"]["alice"]
        inline = dict.fromkeys((known.upper(), admin, local), hashed)
        self.configure({"module": BCRYPT, "name": "people", "config": {"users": inline}})
        dry = await self.take_over("--links", "people", "--dry-run")
        said = await self.take_over("--links", "people", "--verbose")
        self.assertIn("links\ttaken\t1\t", dry)
        self.assertIn("links\ttaken\t1\t", said)
        for name, reason in (
            (unknown, "people has no account of this name"),
            (admin, "it is a server administrator's"),
            (local, "it has a local password"),
        ):
            self.assertIn(f"links\t{user_id(name)}\t{reason}\n", said)
        store: Any = (await self.backends()).store
        link = Link(user_id(known), "people", known.upper())
        self.assertEqual(await store.link_of(user_id(known)), link)
        self.assertIsNone(await store.link_of(user_id(admin)))

    async def test_way_back(self) -> None:
        """A session that is taken over and not refreshed here goes on at Synapse."""
        anna, password = await self.local_user("anna")
        plain = await self.plain(anna, password)
        pair = await self.pair(anna, password)
        self.serve_first()
        await self.take_over("--accounts", str(self.accounts), "--sessions")
        backends = await self.backends()
        store: Any = backends.store
        await store.session_for_access_token(plain["access_token"], False)
        ours = await refresh(store, pair.refresh, None, True)
        self.assertEqual((await self.client.whoami(plain["access_token"])).status, 200)
        self.assertEqual((await self.client.whoami(ours.access_token)).status, 401)
        # Synapse knows nothing of refreshes here, so its own tokens are as they were.
        self.assertEqual((await self.client.own_refresh(pair)).status, 200)

    async def test_reuse(self) -> None:
        """A token of Synapse's that is used again after a refresh ends the session."""
        anna, password = await self.local_user("anna")
        pair = await self.pair(anna, password)
        self.serve_first()
        await self.take_over("--accounts", str(self.accounts), "--sessions")
        store: Any = (await self.backends()).store
        ours = await refresh(store, pair.refresh, None, True)
        await refresh(store, ours.refresh_token or "", None, True)
        with self.assertRaises(ReusedToken):
            await refresh(store, pair.refresh, None, True)

    def serve_first(self) -> None:
        """Write a configuration with the file of accounts before there is any."""
        self.accounts.write_text("users: {}\n")
        self.serve_accounts()
        self.accounts.unlink()


class ThereAndBackTests(ImportCase):
    """Tests of a Synapse that comes to delegate to the server, and stops doing so."""

    profile = BACK

    async def test_there_and_back(self) -> None:
        """Clients stay logged in on the way there; on the way back, those that did not refresh."""
        anna, password = await self.local_user("anna")
        web = (await self.plain(anna, password, device_id="WEB"))["access_token"]
        phone = await self.pair(anna, password, device_id="PHONE")
        idle = await self.pair(anna, password, device_id="IDLE")
        self.configure()
        await self.take_over("--accounts", str(self.accounts))
        port, endpoint = free_port(), free_port()
        self.delegate(port, endpoint)
        await self.server.stop()
        await self.take_over("--accounts", str(self.accounts), "--sessions")

        service = {"endpoint": f"http://127.0.0.1:{endpoint}", "secret_path": SECRET_FILE}
        self.write_homeserver(
            password_config={"enabled": False},
            login_via_existing_session={"enabled": False},
            matrix_authentication_service={"enabled": True, **service},
        )
        await self.server.start()
        login = Server(self.config, port)
        self.addCleanup(login.stop)
        await login.start()
        for token in (web, phone.access):
            answer = await self.client.whoami(token)
            self.assertEqual(answer.json["user_id"], user_id(anna), str(answer))
        content = {"refresh_token": phone.refresh}
        answer = await self.client.post(login.url, "/refresh", content)
        self.assertEqual(answer.status, 200, str(answer))
        ours = answer.json["access_token"]
        self.client.secrets.add(ours)
        for token in (web, ours):
            self.assertEqual((await self.client.whoami(token)).status, 200)
        self.assertLessEqual({"WEB", "PHONE", "IDLE"}, await self.client.devices(ours))
        answer = await self.client.login(login.url, anna, password, device_id="NEW")
        self.assertEqual(answer.status, 200, str(answer))
        new = answer.json["access_token"]
        self.assertEqual((await self.client.whoami(new)).status, 200)

        await self.server.stop()
        self.write_homeserver()
        await self.server.start()
        for token in (web, idle.access):
            self.assertEqual((await self.client.whoami(token)).status, 200)
        self.assertEqual((await self.client.own_refresh(idle)).status, 200)
        for token in (ours, new):
            self.assertEqual((await self.client.whoami(token)).status, 401)
        self.assertLessEqual({"WEB", "PHONE", "IDLE", "NEW"}, await self.client.devices(web))
        self.assertIn("access_token", await self.plain(anna, password))

    def delegate(self, port: int, endpoint: int) -> None:
        """Write a configuration of a server that this Synapse may delegate to."""
        config = good_config(port, {}, server_name=SERVER_NAME, token_store=self.store_config())
        provider = {"path": str(self.accounts), "pepper": _PEPPER}
        secret = str(self.server.folder / SECRET_FILE)
        config |= {
            "internal_listen": [f"tcp:{endpoint}:interface=127.0.0.1"],
            "public_baseurl": f"http://127.0.0.1:{port}",
            "password_providers": [{"module": BCRYPT, "config": provider}],
            "homeserver": {
                "module": "synapse_login_module.homeservers.SynapseHomeserver",
                "config": {"url": self.server.client_url, "secret_file": secret},
            },
        }
        self.config.write_text(yaml.safe_dump(config))

    def write_homeserver(self, **changes: Any) -> None:
        """Write Synapse's configuration with changes."""
        config = {**self.server.homeserver_yaml(), **changes}
        write_yaml(self.server.folder / "homeserver.yaml", config)


class FromPostgreSQLTests(FromSQLiteTests):
    """The same, from a Synapse on PostgreSQL into a store on PostgreSQL."""

    profile = POSTGRESQL

    def store_config(self) -> Mapping[str, Any]:
        """The configuration of the token store."""
        self.dsn = getattr(self, "dsn", None) or shared_postgresql().new_database("importing")
        return {
            "module": "synapse_login_module.stores.PostgreSQLTokenStore",
            "config": {"dsn": self.dsn},
        }
