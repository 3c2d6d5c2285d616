"""Runs the standalone server for a real Synapse that delegates to it.

The Synapse comes from :mod:`tests.support.synapse.delegating`. The server of a test is a process of
its own, with its own folder, users file and store, on the port that the Synapse delegates to::

    ENDPOINT_PORT = free_port()
    PROFILE = delegating("mine", ENDPOINT_PORT)

    class FooTests(DelegatedCase):
        profile, endpoint_port = PROFILE, ENDPOINT_PORT

        async def test_foo(self) -> None:
            login = await self.login("alice")
            await self.at_synapse("GET", "/_matrix/client/v3/account/whoami", login.token)
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import yaml
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.configuration import write_config
from tests.support.folders import temporary_folder
from tests.support.http import ask
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.server import Server
from tests.support.synapse.delegating import SECRET_FILE
from tests.support.synapse.profile import PASSWORD, SERVER_NAME, Profile, user
from tests.support.synapse.server import SynapseServer, shared
from tests.support.waiting import until

CLIENT = "/_matrix/client/v3"
WHOAMI = f"{CLIENT}/account/whoami"


class Reply(NamedTuple):
    """A response: its status, and its JSON."""

    status: int
    content: Any


class Session(NamedTuple):
    """A login that succeeded.

    :param token: the access token.
    :param refresh_token: ``None`` when the login asked for none.
    """

    user_id: str
    device_id: str
    token: str
    refresh_token: str | None


_numbers = itertools.count()


def fresh(prefix: str) -> str:
    """Return a local part that no other test of this process uses."""
    return f"{prefix}{next(_numbers)}"


class DelegatedServer:
    """The standalone server for one Synapse.

    :param case: the test that it is for.
    :param synapse: the Synapse that delegates to it.
    :param endpoint_port: the port that it delegates to.
    :param homeserver: keys to add to ``homeserver.config``.
    :param options: further options of ``synapse-login``.
    :param config: keys to add to the configuration.
    :ivar alice: the local part of a user whom no other test of this process uses; ``bob`` too.
    """

    def __init__(
        self,
        case: TestCase,
        synapse: SynapseServer,
        endpoint_port: int,
        homeserver: Mapping[str, Any] | None = None,
        *,
        options: Sequence[str] = (),
        **config: Any,
    ) -> None:
        self.folder = temporary_folder(case)
        self.users_file = self.folder / "users.yaml"
        self.port, self.endpoint_port = free_port(), endpoint_port
        self.users: dict[str, Mapping[str, Any]] = {}
        self.alice, self.bob = fresh("alice"), fresh("bob")
        self.write_users({self.alice: user(display_name="Alice"), self.bob: user()})
        provider = "synapse_login_module.providers.BcryptProvider"
        self.config: dict[str, Any] = {
            "server_name": SERVER_NAME,
            "listen": [f"tcp:{self.port}:interface=127.0.0.1"],
            "internal_listen": [f"tcp:{endpoint_port}:interface=127.0.0.1"],
            "public_baseurl": f"http://127.0.0.1:{self.port}",
            "password_providers": [{"module": provider, "config": {"path": "users.yaml"}}],
            "rate_limits": {"address": None, "account": None, "failed_attempts": None},
            "hashing": {"rounds": 4},
            "homeserver": {
                "module": "synapse_login_module.homeservers.SynapseHomeserver",
                "config": {
                    "url": synapse.client_url,
                    "secret_file": str(synapse.folder / SECRET_FILE),
                    **(homeserver or {}),
                },
            },
            **config,
        }
        config_file = write_config(self.folder, self.config)
        self.process = Server(config_file, self.port, options=options)
        case.addCleanup(self.process.stop)

    def write_users(self, users: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the users file; the server reads it again within a second."""
        self.users = dict(users)
        fresh = self.users_file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({"users": {k: dict(v) for k, v in users.items()}}))
        fresh.chmod(0o600)
        fresh.replace(self.users_file)

    def change_user(self, name: str, **changes: Any) -> None:
        """Change an entry of the users file."""
        self.write_users({**self.users, name: {**self.users.get(name, user()), **changes}})

    def remove_user(self, name: str) -> None:
        """Take an entry out of the users file."""
        self.write_users({key: value for key, value in self.users.items() if key != name})

    async def ask(
        self, method: str, path: str, payload: object = None, token: str | None = None
    ) -> Reply:
        """Send the server a request."""
        return await asked(self.port, method, path, payload, token)

    async def try_login(self, name: str, password: str = PASSWORD, **body: Any) -> Reply:
        """Log in; return the response."""
        return await self.ask(
            "POST",
            f"{CLIENT}/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": name},
                "password": password,
                **body,
            },
        )

    async def login(self, name: str = "", **body: Any) -> Session:
        """Log in, by default as ``alice``, with a refresh token; the login has to succeed."""
        reply = await self.try_login(name or self.alice, **{"refresh_token": True, **body})
        if reply.status != 200:
            raise AssertionError(f"login: {reply}\n{self.process.log()}")
        content = reply.content
        return Session(
            content["user_id"],
            content["device_id"],
            content["access_token"],
            content.get("refresh_token"),
        )

    async def refresh(self, session: Session, strict: bool = False) -> Session:
        """Refresh a session, which has to succeed."""
        path, token = (
            (f"{CLIENT}/tokenrefresh", session.token) if strict else (f"{CLIENT}/refresh", None)
        )
        reply = await self.ask("POST", path, {"refresh_token": session.refresh_token}, token)
        if reply.status != 200:
            raise AssertionError(f"refresh: {reply}\n{self.process.log()}")
        content = reply.content
        return session._replace(
            token=content["access_token"], refresh_token=content["refresh_token"]
        )


async def asked(
    port: int, method: str, path: str, payload: object = None, token: str | None = None
) -> Reply:
    """Send a request to a loopback port, without blocking."""
    status, content = await deferToThread(ask, port, method, path, payload, token)
    try:
        return Reply(status, json.loads(content))
    except ValueError:
        return Reply(status, content.decode("utf-8", "replace"))


class DelegatedCase(TestCase):
    """A test with a Synapse and the server that it delegates to.

    :cvar profile: the Synapse, of :func:`tests.support.synapse.delegating.delegating`.
    :cvar endpoint_port: the port that it delegates to.
    :cvar homeserver: keys to add to ``homeserver.config``.
    :cvar options: further options of ``synapse-login``.
    :ivar config: keys to add to the configuration.
    """

    profile: ClassVar[Profile]
    endpoint_port: ClassVar[int]
    homeserver: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[Sequence[str]] = ()
    config: Mapping[str, Any] = MappingProxyType({})
    timeout = 180

    async def setUp(self) -> None:  # type: ignore[override]
        self.synapse = await shared(self.profile)
        self.server = DelegatedServer(
            self,
            self.synapse,
            self.endpoint_port,
            self.homeserver_keys(),
            options=self.options,
            **self.config,
        )
        await self.server.process.start()

    def homeserver_keys(self) -> Mapping[str, Any]:
        """Return the keys to add to ``homeserver.config``; the Synapse runs by now."""
        return self.homeserver

    async def at_synapse(self, method: str, path: str, token: str, payload: object = None) -> Reply:
        """Send the Synapse a request."""
        return await asked(self.synapse.client_port, method, path, payload, token)

    async def whoami(self, token: str) -> Reply:
        """Ask the Synapse whose a token is."""
        return await self.at_synapse("GET", WHOAMI, token)

    async def devices(self, session: Session) -> list[str]:
        """Return the devices of a session's user, as the Synapse has them."""
        rows = self.synapse.query(
            "SELECT device_id FROM devices WHERE user_id = ? AND NOT hidden", session.user_id
        )
        return sorted(row[0] for row in rows)

    async def until_devices(self, session: Session, expected: list[str]) -> None:
        """Wait until the Synapse has these devices of a user."""

        def done() -> bool:
            rows = self.synapse.query(
                "SELECT device_id FROM devices WHERE user_id = ? AND NOT hidden", session.user_id
            )
            return sorted(row[0] for row in rows) == sorted(expected)

        await until(done, f"the devices {expected}")


class OnPostgreSQL(DelegatedCase):
    """A test whose server keeps its sessions in a PostgreSQL of its own.

    :ivar database: the PostgreSQL.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        self.database = PostgreSQL()
        self.addCleanup(self.database.remove)
        self.config = {
            "token_store": {
                "module": "synapse_login_module.stores.PostgreSQLTokenStore",
                "config": {"dsn": self.database.conninfo},
            }
        }
        await super().setUp()
