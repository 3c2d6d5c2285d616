"""Two real servers on one PostgreSQL, each with its own key file, through the procedures of
docs/scaling.rst.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.tokens import format as token_format
from synapse_login_module.tokens.format import TokenKind
from tests.support import http
from tests.support.accounts import ALICE_PASSWORD
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port, listens
from tests.support.postgresql import shared_postgresql
from tests.support.process import subprocess_environment
from tests.support.server import Server, start_server
from tests.support.waiting import block_until

V3 = "/_matrix/client/v3"
STORE = "synapse_login_module.stores.PostgreSQLTokenStore"
Pair = dict[str, Any]
LOGIN = {
    "type": "m.login.password",
    "identifier": {"type": "m.id.user", "user": "alice"},
    "password": ALICE_PASSWORD,
    "refresh_token": True,
}


def ask(
    server: Server, method: str, path: str, payload: object = None, token: str | None = None
) -> tuple[int, str | None, Any]:
    """Send a request; return the status, the type, and the JSON or text of the response.

    A response of an outage has to have ``Retry-After``.
    """
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        body = None if payload is None else json.dumps(payload)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read().decode()
        kind = response.getheader("Content-Type")
        assert response.status != 503 or response.getheader("Retry-After"), content
        return response.status, kind, json.loads(content) if kind == "application/json" else content
    finally:
        connection.close()


def whoami(server: Server, pair: Pair) -> tuple[int, str | None, Any]:
    """Ask a server for ``/account/whoami`` with an access token."""
    return ask(server, "GET", f"{V3}/account/whoami", token=pair["access_token"])


def run_command(case: SynchronousTestCase, server: Server, *arguments: str) -> str:
    """Run a command on the machine of a server; return its output."""
    done = subprocess.run(
        [sys.executable, *("-m", "synapse_login_module.cli"), *arguments, "-c", server.config],
        env=subprocess_environment(),
        capture_output=True,
        text=True,
    )
    case.assertEqual((done.returncode, done.stderr), (0, ""))
    return done.stdout


def key_of(pair: Pair) -> int:
    """Return the key id of a pair."""
    parsed = token_format.parse(TokenKind.ACCESS, pair["access_token"])
    assert parsed is not None
    return parsed.key_id


class LostKeyTests(SynchronousTestCase):
    """A machine that has lost its key file."""

    def test_healthy_again(self) -> None:
        """/health names the key, and is 200 after ``rotate-key --now`` without another request."""
        port = free_port()
        path = write_config(temporary_folder(self), good_config(port))
        server = start_server(path, port)
        self.addCleanup(server.stop)
        self.assertEqual(ask(server, "POST", f"{V3}/login", LOGIN)[0], 200)
        run_command(self, server, "rotate-key", "--now")
        self.assertEqual(ask(server, "POST", f"{V3}/login", LOGIN)[0], 200)
        run_command(self, server, "retire-key", "1", "--yes")
        server.stop()
        path.with_name("token.key").unlink()
        server.start_and_wait(lambda: listens(port))
        block_until(lambda: "token key 1 has been retired, and" in server.log())
        status, said = http.ask(port, "GET", "/health")
        self.assertEqual(status, 503)
        self.assertIn(b"the token key cannot sign", said)
        run_command(self, server, "rotate-key", "--now")
        block_until(lambda: http.healthy(port))
        self.assertEqual(ask(server, "POST", f"{V3}/login", LOGIN)[0], 200)


class MachinesTests(SynchronousTestCase):
    """Machines that share their sessions, each with its own key file."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.dsn = shared_postgresql().new_database("machines_keys")
        self.a = self.machine("a")
        self.b = self.machine("b", self.a)

    def machine(self, name: str, like: Server | None = None) -> Server:
        """Start a server, with a copy of another server's key file or with its own."""
        path, port = self.prepared(name)
        if like is not None:
            shutil.copy2(self.key_file(like), path.with_name("token.key"))
        server = start_server(path, port)
        self.addCleanup(server.stop)
        return server

    def prepared(self, name: str) -> tuple[Path, int]:
        """Write the configuration of a machine; return it and the port."""
        folder = self.folder / name
        folder.mkdir()
        port = free_port()
        store = {"module": STORE, "config": {"dsn": self.dsn, "timeout": "20s"}}
        return write_config(folder, good_config(port, token_store=store)), port

    def key_file(self, server: Server) -> Path:
        return server.config.with_name("token.key")

    def copy(self, source: Server, target: Server) -> None:
        """Copy the key file atomically."""
        new = self.key_file(target).with_name("token.key.new")
        shutil.copy2(self.key_file(source), new)
        new.replace(self.key_file(target))

    def command(self, server: Server, *arguments: str) -> str:
        """Run a command on a machine."""
        return run_command(self, server, *arguments)

    def log_in(self, server: Server) -> Pair:
        """Log in."""
        status, _, answer = ask(server, "POST", f"{V3}/login", LOGIN)
        self.assertEqual(status, 200, answer)
        pair: Pair = answer
        return pair

    def refresh(self, server: Server, pair: Pair, strict: bool = False) -> Pair:
        """Refresh."""
        path = "tokenrefresh" if strict else "refresh"
        status, _, answer = ask(
            server,
            "POST",
            f"{V3}/{path}",
            {"refresh_token": pair["refresh_token"]},
            pair["access_token"] if strict else None,
        )
        self.assertEqual(status, 200, answer)
        new: Pair = answer
        return new

    def everything(self, pairs: list[Pair]) -> None:
        """Log in, use and refresh at both in turn; no request is ever rejected."""
        for number, server in enumerate((self.a, self.b, self.b, self.a)):
            pairs.append(self.log_in(server))
            for pair in pairs:
                for each in (self.a, self.b):
                    self.assertEqual(whoami(each, pair)[0], 200)
            pairs[:] = [self.refresh(server, pair, number % 2 == 1) for pair in pairs]

    def unavailable(self, server: Server, pair: Pair) -> None:
        """Assert that a pair gets 503: JSON for a use, plain text for a refresh."""
        status, kind, _ = whoami(server, pair)
        self.assertEqual((status, kind), (503, "application/json"))
        for path in ("refresh", "tokenrefresh"):
            body = {"refresh_token": pair["refresh_token"]}
            status, kind, _ = ask(server, "POST", f"{V3}/{path}", body, pair["access_token"])
            self.assertEqual((status, kind), (503, "text/plain; charset=utf-8"), path)

    def logged(self, server: Server, text: str) -> None:
        """Wait for a line in a server's log."""
        block_until(lambda: text in server.log())

    def test_procedure(self) -> None:
        """Rotate on A, copy, activate on both: no token is ever rejected, and in the end all tokens
        have the new key.
        """
        pairs: list[Pair] = []
        self.everything(pairs)
        self.assertIn("Copy the file", self.command(self.a, "rotate-key"))
        self.everything(pairs)
        self.copy(self.a, self.b)
        self.everything(pairs)
        self.command(self.a, "activate-key")
        self.everything(pairs)
        self.command(self.b, "activate-key")
        self.everything(pairs)
        self.everything(pairs)
        self.assertEqual({key_of(pair) for pair in pairs}, {2})
        self.assertIn("1\tgood\t", self.command(self.b, "show-keys"))
        self.command(self.a, "retire-key", "1", "--yes")
        self.everything(pairs)
        for server in (self.a, self.b):
            self.assertNotIn("token key", server.log())

    def test_forgotten(self) -> None:
        """Without the copy, B answers 503 and logs why. After the copy it works without a restart,
        and no session is lost.
        """
        old = self.log_in(self.b)
        self.command(self.a, "rotate-key", "--now")
        new = self.log_in(self.a)
        self.assertEqual(key_of(new), 2)
        self.unavailable(self.b, new)
        self.logged(self.b, "token key 2 is in use, and this server does not have it")
        old = self.refresh(self.b, old)
        self.assertEqual(whoami(self.a, self.log_in(self.b))[0], 200)
        self.copy(self.a, self.b)
        self.everything([old, new])

    def test_another_key(self) -> None:
        """A machine with another key logs that at its start and answers 503 until it has the right
        one. No session is lost.
        """
        pair = self.log_in(self.a)
        other = Server(*self.prepared("other"))
        self.addCleanup(other.stop)
        other.start_and_wait(lambda: listens(other.port))
        self.logged(other, "token key 1 here is not the token key 1 in use")
        self.unavailable(other, pair)
        status, _, _ = ask(other, "POST", f"{V3}/login", LOGIN)
        self.assertEqual(status, 503)
        self.assertEqual(whoami(self.a, pair)[0], 200)
        self.copy(self.a, other)
        self.assertEqual(whoami(other, pair)[0], 200)
        pair = self.refresh(other, pair)
        self.assertEqual(whoami(self.b, pair)[0], 200)
        self.assertEqual(whoami(self.a, self.log_in(other))[0], 200)
