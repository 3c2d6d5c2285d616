"""A whole server with providers, built from a configuration and asked over HTTP."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import yaml
from twisted.internet.defer import maybeDeferred

from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.standalone.server import build_server
from tests.providers.case import PASSWORD, WONDERLAND, ProviderCase, reactor
from tests.support.client import Client
from tests.support.configuration import good_config
from tests.support.ports import free_port

PROVIDERS = "synapse_login_module.providers"


class ComposedCase(ProviderCase):
    """A server of the test's own."""

    def configure(self, *providers: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A configuration with these providers, written down."""
        self.port = free_port()
        given = {
            **good_config(self.port, password_providers=list(providers)),
            "token_store": {"module": "synapse_login_module.stores.MemoryTokenStore"},
            "tokens": {"refresh_token": "always"},
            **more,
        }
        self.write("login.yaml", yaml.safe_dump(given))
        return given

    def load(self) -> LoadedConfig:
        """Check the configuration."""
        return load_config(self.folder() / "login.yaml", reactor)

    def serve(self, *providers: dict[str, Any], **more: Any) -> None:
        """Have a server with these providers run until the end of the test."""
        self.configure(*providers, **more)
        server = build_server(self.load(), reactor)
        server.privilegedStartService()
        server.startService()
        self.addCleanup(lambda: server.running and maybeDeferred(server.stopService))
        self.server = server

    async def post(
        self, path: str, body: Mapping[str, Any], access_token: str | None = None
    ) -> tuple[int, Any]:
        """Ask the server: the status, and the answer, which is text where it is no JSON."""
        client = Client(f"http://127.0.0.1:{self.port}/_matrix/client/v3/", connections=0)
        answer = await client.send("POST", path, body, token=access_token)
        json_type = answer.media_type == "application/json"
        return answer.status, answer.json if json_type else answer.body.decode()

    async def log_in(self, name: str, password: str = PASSWORD) -> tuple[int, Any]:
        """Log in over HTTP: the status, and the answer or the error's code."""
        body = {"type": "m.login.password", "user": name, "password": password}
        code, answer = await self.post("login", body)
        return code, answer.get("errcode", answer.get("user_id"))

    def file(self, **more: Any) -> dict[str, Any]:
        """A provider that knows alice."""
        self.write("htpasswd", f"alice:{WONDERLAND}\n")
        return {"module": f"{PROVIDERS}.HtpasswdProvider", "config": {"path": "htpasswd"}, **more}

    def http(self, url: str, **more: Any) -> dict[str, Any]:
        """A provider that asks a service."""
        config = {"endpoint": url, "unknown_user_codes": [404]}
        return {"module": f"{PROVIDERS}.HTTPProvider", "config": config, **more}

    def sqlite(self, user: str, password_hash: str = WONDERLAND, **more: Any) -> dict[str, Any]:
        """A provider on a file that knows this user, by this hash."""
        connection = sqlite3.connect(self.folder() / f"{user}.db")
        with connection:
            connection.execute("CREATE TABLE accounts (name TEXT, hash TEXT)")
            connection.execute("INSERT INTO accounts VALUES (?, ?)", [user, password_hash])
        connection.close()
        query = "SELECT name AS localpart, hash AS password_hash FROM accounts WHERE name ="
        config = {"sqlite": f"{user}.db", "queries": {"by_user": f"{query} :localpart"}}
        return {"module": f"{PROVIDERS}.SQLProvider", "config": config, **more}
