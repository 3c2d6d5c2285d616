"""Tests of a server of several processes: start, reload and listening."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import ssl
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.tokens import keyfile
from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Outcome, Use
from tests.standalone.workers.case import WORKERS, WorkersTestCase, health
from tests.support.certificates import Authority
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.process import run
from tests.support.server import twistd
from tests.support.waiting import until
from tests.support.wire import connect, request

BRITTLE = {
    "password_providers": [
        {
            "module": "tests.standalone.workers.brittle.BrittleProvider",
            "config": {"unless": "broken"},
        }
    ]
}
MEMORY = {"token_store": {"module": "synapse_login_module.stores.MemoryTokenStore"}}


class StartTests(SynchronousTestCase):
    """The start."""

    def refusal(self, change: dict[str, Any], workers: str = str(WORKERS)) -> str:
        """Return the message for a configuration with which the server does not start."""
        self.folder = temporary_folder(self)
        self.folder.joinpath("broken").touch()
        self.config = write_config(self.folder, {**good_config(free_port()), **change})
        end = run([*twistd(self.config), "--workers", workers])
        self.assertEqual(end.returncode, 1, end)
        self.assertNotIn("Traceback", end.stdout + end.stderr)
        return end.stdout + end.stderr

    def test_cannot_start(self) -> None:
        """Workers that cannot start stop the parent, with one line that names the path."""
        said = self.refusal(BRITTLE)
        (line,) = [line for line in said.splitlines() if "broken is there" in line]
        path = "password_providers.0.config.unless"
        self.assertRegex(line, rf"{self.config}: worker \d cannot start: {path}: broken is there$")

    def test_memory(self) -> None:
        """A store for a single process is rejected in one line."""
        said = self.refusal(MEMORY)
        self.assertEqual(len(said.splitlines()), 1, said)
        self.assertIn(f"{self.config}: token_store.module: ", said)

    def test_numbers(self) -> None:
        """An invalid number of workers is rejected in one line."""
        for number in ("0", "-1", "two", "99999"):
            said = self.refusal({}, number)
            self.assertEqual(len(said.splitlines()), 1, said)
            self.assertIn("--workers", said)

    def test_port_in_use(self) -> None:
        """A port in use gives one line too."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            used = taken.getsockname()[1]
            said = self.refusal({"listen": [f"tcp:{used}:interface=127.0.0.1"]})
        (line,) = [line for line in said.splitlines() if "in use" in line]
        self.assertIn(f"{self.config}: listen.0: ", line)


class ReloadTests(WorkersTestCase):
    """SIGHUP."""

    async def test_taken_up(self) -> None:
        """The new configuration applies, including its sockets."""
        await self.serve()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            other: int = probe.getsockname()[1]
        self.configure({"listen": [f"tcp:{other}:interface=127.0.0.1"]})
        await self.reload()
        self.assertIn(b" 200 ", health(socket.AF_INET, ("127.0.0.1", other)))
        await until(lambda: len(self.server.workers) == WORKERS)
        self.assertFalse(self.server.listens())

    async def test_broken(self) -> None:
        """A mistake is logged with its path, and the workers stay."""
        await self.serve()
        before = self.server.workers
        for change, said in (
            ({"hashing": {"threads": "many"}}, "hashing.threads: "),
            (MEMORY, "token_store.module: "),
            ({"listen": [f"tcp:{self.server.port}", "unix:/nowhere/at/all"]}, "listen.0: "),
        ):
            whole = self.server.config.read_text()
            self.configure(change)
            await self.reload()
            self.assertIn(f"{self.server.config}: {said}", self.server.log())
            self.server.config.write_text(whole)
        self.assertEqual(self.server.workers, before)
        self.assertTrue(self.server.listens())
        self.assertNotIn("Traceback", self.server.log())

    async def test_workers_that_cannot_start(self) -> None:
        """A configuration with which no worker starts is not used."""
        await self.serve(change=BRITTLE)
        before = self.server.workers
        self.server.config.with_name("broken").touch()
        await self.reload()
        self.assertIn("config.unless: broken is there: not reloaded", self.server.log())
        await until(lambda: self.server.workers == before)

    async def test_dead_worker_after_an_edit(self) -> None:
        """A worker that is replaced ignores edits of the configuration until a reload."""
        await self.serve()
        self.configure({"hashing": {"threads": "many"}})
        os.kill(self.server.workers[0], signal.SIGKILL)
        await self.logged("ended: signal 9")
        await until(lambda: len(self.server.workers) == WORKERS)
        self.assertNotIn("hashing.threads", self.server.log())

    async def test_careless_plugin(self) -> None:
        """An unexpected error of a plugin is logged, and the workers stay."""
        await self.serve()
        before = self.server.workers
        (plugin,) = BRITTLE["password_providers"]
        self.configure({"password_providers": [{**plugin, "config": {}}]})
        await self.reload()
        self.assertIn("KeyError: 'unless'", self.log())
        self.assertEqual(self.server.workers, before)

    async def test_one_process(self) -> None:
        """Without workers, SIGHUP reloads only the keys, and logs that."""
        await self.serve(options=())
        client = RecordingClient(self.server.port, History())
        self.addCleanup(client.close)
        pair = await client.log_in("phone")
        assert pair is not None
        key_file = self.server.config.with_name("token.key")
        keyfile.rotate(key_file, os.urandom, now=True)
        with closing(sqlite3.connect(self.server.config.with_name("sessions.db"))) as database:
            database.execute("UPDATE token_keys SET retired = 1 WHERE key_id = 1")
            database.commit()
        keyfile.remove(key_file, 1)
        self.configure({"hashing": {"threads": "many"}})
        self.server.hang_up()
        await self.logged("SIGHUP: new tokens are under key 2; without --workers")
        request = await client.use("phone", pair, Use.LOOK_UP)
        self.assertIs(request.outcome, Outcome.REFUSED)
        self.assertNotIn("hashing", self.log())


class ListenTests(WorkersTestCase):
    """The endpoints of workers."""

    async def test_unix(self) -> None:
        """A Unix socket keeps its path and mode while workers change, and is removed at the end."""
        folder = temporary_folder(self)
        path = os.path.relpath(folder / "sock")
        listen = f"unix:{Path(path).absolute()}:mode=600"
        await self.serve(listen=[listen])
        for _ in range(2):
            self.assertIn(b" 200 ", health(socket.AF_UNIX, path))
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            await self.reload()
            await until(lambda: len(self.server.workers) == WORKERS)
        self.assertEqual(await self.server.terminate(), 0)
        self.assertFalse(os.path.exists(path))

    async def test_ipv6(self) -> None:
        """Workers accept on IPv6."""
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port: int = probe.getsockname()[1]
        await self.serve(listen=[f"tcp:{port}:interface=\\:\\:1"])
        self.assertIn(b" 200 ", health(socket.AF_INET6, ("::1", port)))

    async def test_wrapped(self) -> None:
        """Wrappers in a description apply: here, the PROXY protocol."""
        port = free_port()
        await self.serve(listen=[f"haproxy:tcp:{port}:interface=127.0.0.1"])
        wire = await connect(port)
        credentials = {"type": "m.login.password", "user": "nobody", "password": "x"}
        wire.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 80\r\n")
        wire.send(request("POST", "/_matrix/client/v3/login", credentials))
        self.assertEqual((await wire.answer())[0], 403)
        await wire.abort()
        await self.logged("reason=unknown_user address=192.0.2.7 ")

    async def test_tls(self) -> None:
        """Workers accept TLS."""
        folder = temporary_folder(self)
        authority = Authority("Workers' tests")
        certificate, key = authority.sign("localhost").write(folder)
        port = free_port()
        await self.serve(
            listen=[
                f"ssl:{port}:interface=127.0.0.1:certKey={certificate.absolute()}"
                f":privateKey={key.absolute()}"
            ]
        )
        context = ssl.create_default_context(cafile=authority.write(folder / "authority.pem"))
        with (
            socket.create_connection(("127.0.0.1", port), 30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(request("GET", "/health"))
            self.assertIn(b" 200 ", client.recv(1000))
