"""The standalone server as a program: start, stop, files and log."""

from __future__ import annotations

import base64
import contextlib
import os
import resource
import socket
import stat
import time
from typing import Any

import yaml

from tests.conformance import accounts, paths
from tests.conformance.case import ConformanceTestCase, Named, cases, named, pause
from tests.conformance.client import CheckedClient
from tests.conformance.profiles import NORMAL, Profile
from tests.conformance.server import ConformanceServer, Folder
from tests.conformance.target import TestAccount
from tests.support import REPOSITORY, wire
from tests.support.ports import free_port
from tests.support.waiting import together

_OWN = Profile("own")


class ProcessTestCase(ConformanceTestCase):
    """A test case with a server of its own.

    :cvar profile: its configuration.
    """

    profile = _OWN

    def setUp(self) -> None:
        super().setUp()
        self.own_server()
        self.process = ConformanceServer(self.profile)
        self.addCleanup(self.process.folder.remove)
        self.addCleanup(self.process.kill)
        self.process.start()
        self.own_client = CheckedClient(self.process.target)
        self.addCleanup(self.own_client.close)


class ProcessTests(ProcessTestCase):
    """A server that is stopped and started again."""

    async def _restart(self, kill: bool = False) -> None:
        await self.own_client.close()
        if kill:
            self.process.kill()
        else:
            self.process.stop()
        self.process.start()

    def test_clean_exit(self) -> None:
        """SIGTERM stops the server, which logs no error."""
        self.process.stop()
        self.assertNotIn("Traceback", self.process.folder.log())
        self.assertNotIn("Unhandled", self.process.folder.log())

    async def test_exit_with_connections(self) -> None:
        """Open connections do not keep it from stopping."""
        idle = await wire.connect_to(self.process.target.base_url)
        halfway = await wire.connect_to(self.process.target.base_url)
        halfway.send(b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n")
        login = await self.own_client.login()
        self.assertEqual(login.status, 200)
        self.process.stop()
        await idle.lost()
        await halfway.lost()
        self.assertNotIn("Traceback", self.process.folder.log())

    async def test_sessions_kept(self) -> None:
        """Sessions live on after a restart, confirmed or not."""
        login = (await self.own_client.login(refresh_token=True)).json
        other = (await self.own_client.login(refresh_token=True)).json
        pair = (await self.own_client.refresh(other["refresh_token"])).json
        await self._restart()
        self.assertEqual((await self.own_client.whoami(login["access_token"])).status, 200)
        answer = await self.own_client.tokenrefresh(login["refresh_token"], login["access_token"])
        self.assertEqual(answer.status, 200, str(answer))
        again = (await self.own_client.refresh(other["refresh_token"])).json
        self.assertEqual(again["access_token"], pair["access_token"])
        self.assertEqual(again["refresh_token"], pair["refresh_token"])

    async def test_killed(self) -> None:
        """What was acknowledged before a kill -9 holds after it, and no session forks."""
        logins = [
            answer.json
            for answer in await together(
                *(self.own_client.login(refresh_token=True) for _ in range(8))
            )
        ]
        answers = await together(
            *(self.own_client.refresh(login["refresh_token"]) for login in logins)
        )
        await self._restart(kill=True)
        for login, answer in zip(logins, answers, strict=True):
            again = (await self.own_client.refresh(login["refresh_token"])).json
            self.assertEqual(again["refresh_token"], answer.json["refresh_token"])
            alive = await self.own_client.whoami(again["access_token"])
            self.assertEqual(alive.status, 200, str(alive))

    async def test_logout_kept(self) -> None:
        """An ended session and a used refresh token do not come back after a restart."""
        ended = (await self.own_client.login(refresh_token=True)).json
        refreshed = (await self.own_client.login(refresh_token=True)).json
        await self.own_client.logout(ended["access_token"])
        await self.own_client.tokenrefresh(refreshed["refresh_token"], refreshed["access_token"])
        await self._restart(kill=True)
        self.refused(await self.own_client.whoami(ended["access_token"]), 401, "M_UNKNOWN_TOKEN")
        self.refused(
            await self.own_client.refresh(refreshed["refresh_token"]), 401, "M_UNKNOWN_TOKEN"
        )

    async def test_login_token_kept_used(self) -> None:
        """A used login token is rejected after a restart too."""
        login = (await self.own_client.login()).json
        path = paths.at(paths.GET_TOKEN)
        session = (await self.own_client.post(path, {}, login["access_token"])).json["session"]
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": accounts.CHEEKY.user},
            "password": accounts.CHEEKY.password,
            "session": session,
        }
        answer = await self.own_client.post(path, {"auth": auth}, login["access_token"])
        body = {"type": "m.login.token", "token": self.succeeded(answer)["login_token"]}
        self.succeeded(await self.own_client.post(paths.at(paths.LOGIN), body))
        await self._restart(kill=True)
        answer = await self.own_client.post(paths.at(paths.LOGIN), body)
        self.refused(answer, 403, "M_FORBIDDEN")

    async def test_key_file(self) -> None:
        """The key file is made at the first start, readable by the owner only, and is kept."""
        key_file = self.process.folder.path / "token.key"
        self.assertEqual(stat.S_IMODE(key_file.stat().st_mode), 0o600)
        before = key_file.read_bytes()
        await self._restart()
        self.assertEqual(key_file.read_bytes(), before)

    async def test_nothing_in_the_clear(self) -> None:
        """No token and no password is in any file that the server writes."""
        login = (await self.own_client.login(refresh_token=True)).json
        await self.own_client.refresh(login["refresh_token"])
        await self.own_client.send(
            "GET", paths.at(paths.WHOAMI), query={"access_token": login["access_token"]}
        )
        wrong = TestAccount(accounts.CHEEKY.user, "hunter2hunter2")
        await self.own_client.login(wrong)
        self.process.stop()
        self.assertTrue(len(self.own_client.secrets) >= 6)
        for path in sorted(self.process.folder.path.iterdir()):
            if path.is_file():
                content = path.read_bytes()
                for secret in self.own_client.secrets:
                    self.assertNotIn(secret.encode(), content, path.name)

    async def test_database_alone(self) -> None:
        """The database of sessions is worth nothing with another key. The missing key may be
        restored, so clients are not told to log in again.
        """
        login = (await self.own_client.login(refresh_token=True)).json
        await self.own_client.close()
        self.process.stop()
        other = base64.b64encode(os.urandom(32)).decode()
        (self.process.folder.path / "token.key").write_text(f"2 {other}\n")
        self.process.start()
        for answer in (
            await self.own_client.whoami(login["access_token"]),
            await self.own_client.refresh(login["refresh_token"]),
        ):
            self.assertEqual(answer.status, 503, str(answer))


class HealthTests(ProcessTestCase):
    """``/health`` of a server that cannot write."""

    async def test_disk_full(self) -> None:
        """It is unhealthy while nothing can be written, and healthy afterwards."""
        if not hasattr(resource, "prlimit"):
            self.skipTest("only Linux sets the limits of another process")
        for room, status in ((None, 200), (0, 503), (None, 200)):
            self._allow_files(room)
            await self._until_health_is(status)
            answer = await self.own_client.get(paths.HEALTH)
            self.assertEqual(answer.status, status, str(answer))

    async def _until_health_is(self, status: int) -> None:
        """Wait for a status, because the database is checked every few seconds at most."""
        deadline = time.monotonic() + 60.0
        while (await self.own_client.get(paths.HEALTH)).status != status:
            self.assertLess(time.monotonic(), deadline, f"no {status}")
            await pause(0.1)

    def _allow_files(self, size: int | None) -> None:
        """Limit the size of files that the server may write, or remove the limit."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        soft = hard if size is None else size
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (soft, hard))


class LimitTests(ProcessTestCase):
    """Clients that use too many resources."""

    profile = Profile(
        "limits", {"limits": {"connections": 20, "request_timeout": "1s", "idle_timeout": "2s"}}
    )

    async def test_trickle(self) -> None:
        """A request that arrives too slowly gets 408, and the connection is closed."""
        connection = await wire.connect_to(self.process.target.base_url)
        for byte in wire.request("GET", paths.VERSIONS):
            if connection.received:
                break
            connection.send(bytes([byte]))
            await pause(0.05)
        (answer,) = await connection.answers(("GET", paths.VERSIONS))
        self.refused(answer, 408, "M_UNKNOWN")
        await connection.lost()

    async def test_idle(self) -> None:
        """An idle connection is closed."""
        connection = await wire.connect_to(self.process.target.base_url)
        connection.send(wire.request("GET", paths.VERSIONS))
        await connection.answers(("GET", paths.VERSIONS))
        await connection.lost()

    async def test_too_many(self) -> None:
        """A new connection is served despite too many idle ones."""
        connections = [await wire.connect_to(self.process.target.base_url) for _ in range(100)]
        self.assertEqual((await self.own_client.login()).status, 200)
        for connection in connections:
            await connection.lost()

    async def test_does_not_read(self) -> None:
        """A client that sends requests without reading responses is cut off; others are served."""
        requests = wire.request("GET", paths.VERSIONS) * 1000
        with socket.socket() as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            greedy.connect(("127.0.0.1", self.process.port))
            greedy.setblocking(False)
            with contextlib.suppress(ConnectionError):
                while True:
                    with contextlib.suppress(BlockingIOError):
                        greedy.send(requests)
                    self.assertEqual((await self.own_client.get(paths.HEALTH)).status, 200)


class LogTests(ConformanceTestCase):
    """The log line of each login."""

    async def test_failure(self) -> None:
        """A failed login is logged with the address and the user."""
        own = self.own_server()
        start = own.folder.log_size()
        await self.client.login(TestAccount("logged_monkey", "x"))
        lines = [line for line in own.folder.log(start).splitlines() if "logged_monkey" in line]
        self.assertEqual(len(lines), 1, own.folder.log(start))
        self.assertIn("127.0.0.1", lines[0])

    async def test_success(self) -> None:
        """A successful login is logged in the same way."""
        own = self.own_server()
        start = own.folder.log_size()
        await self.client.login(self.second_account())
        user = self.second_account().user
        lines = [line for line in own.folder.log(start).splitlines() if user in line]
        self.assertEqual(len(lines), 1, own.folder.log(start))
        self.assertIn("127.0.0.1", lines[0])

    async def test_no_forged_lines(self) -> None:
        """A user name with newlines cannot forge a line."""
        own = self.own_server()
        start = own.folder.log_size()
        await self.client.login(TestAccount("x\nforged_line 203.0.113.9\r\nforged_line", "x"))
        for line in own.folder.log(start).splitlines():
            self.assertFalse(line.startswith("forged_line"), line)


class ConfigurationTests(ConformanceTestCase):
    """Configurations with which the server does not start."""

    def _fails(self, config: dict[str, Any], *needles: str) -> None:
        self.own_server()
        folder = Folder(config, {})
        self.addCleanup(folder.remove)
        status, output = folder.run_until_exit()
        self.assertNotEqual(status, 0)
        self.assertNotIn("Traceback", output)
        for needle in needles:
            lines = [line for line in output.splitlines() if needle in line]
            self.assertEqual(len(lines), 1, f"{needle!r} in {output}")

    def _config(self, **changes: Any) -> dict[str, Any]:
        return Profile("wrong", changes).config(free_port())

    def _providers(self, *configs: dict[str, Any]) -> list[dict[str, Any]]:
        module = "synapse_login_module.providers.BcryptProvider"
        return [{"module": module, "config": config} for config in configs]

    @cases(
        *named(
            [
                ("unknown_key", {"unknown_key": 1}),
                ("tokens.unknown_key", {"tokens": {"unknown_key": 1}}),
                ("server_name", {"server_name": 1}),
                ("listen", {"listen": "tcp:8008"}),
                ("tokens.refresh_token", {"tokens": {"refresh_token": "sometimes"}}),
                ("tokens.reuse_interval", {"tokens": {"reuse_interval": "soon"}}),
                ("tokens.session_lifetime", {"tokens": {"session_lifetime": -1}}),
                (
                    "tokenrefresh.require_access_token",
                    {"tokenrefresh": {"require_access_token": "perhaps"}},
                ),
                (
                    "rate_limits.address.per_second",
                    {"rate_limits": {"address": {"per_second": "x"}}},
                ),
                ("hashing.queue", {"hashing": {"queue": "long"}}),
                ("trusted_proxies.0", {"trusted_proxies": ["nonsense"]}),
                (
                    "password_providers.0.module",
                    {"password_providers": [{"module": "nowhere.Nothing"}]},
                ),
                ("token_store.module", {"token_store": {"module": "synapse_login_module.Nothing"}}),
            ]
        )
    )
    def test_wrong(self, changes: Named) -> None:
        """A mistake at {} is reported on one line with its path."""
        self._fails(self._config(**changes.value), f"{changes.name}: ")

    def test_no_server_name(self) -> None:
        """A missing required key is reported."""
        config = self._config()
        del config["server_name"]
        self._fails(config, "server_name: ")

    def test_unreadable(self) -> None:
        """A file that cannot be read is reported with its path in the configuration."""
        providers = self._providers({"users": {}}, {"path": "nowhere.yaml"})
        self._fails(
            self._config(password_providers=providers), "password_providers.1.config.path: "
        )

    def test_provider_key(self) -> None:
        """A provider's mistakes are reported in the same way."""
        providers = self._providers({"users": {}, "salt": "x"})
        self._fails(
            self._config(password_providers=providers), "password_providers.0.config.salt: "
        )

    def test_plain_password(self) -> None:
        """A password in place of a hash is a mistake, and is not quoted."""
        providers = self._providers({"users": {"alice": {"password_hash": "sesame"}}})
        config = self._config(password_providers=providers)
        folder = Folder(config, {})
        self.addCleanup(folder.remove)
        status, output = folder.run_until_exit()
        self.assertNotEqual(status, 0)
        self.assertIn("password_providers.0.config.users.alice.password_hash: ", output)
        self.assertNotIn("sesame", output)

    def test_no_file(self) -> None:
        """A missing configuration file is reported on one line."""
        folder = Folder({}, {})
        self.addCleanup(folder.remove)
        folder.config_file.unlink()
        status, output = folder.run_until_exit()
        self.assertNotEqual(status, 0)
        self.assertNotIn("Traceback", output)
        self.assertIn("config.yaml", output)

    def test_port_taken(self) -> None:
        """A server that cannot listen does not start."""
        config = NORMAL.config(self.own_server().port)
        folder = Folder(config, {})
        self.addCleanup(folder.remove)
        status, output = folder.run_until_exit()
        self.assertNotEqual(status, 0, output)


class SampleConfigTests(ConformanceTestCase):
    """The sample configuration."""

    def _sample(self, interface: str, port: int) -> dict[str, Any]:
        self.own_server()
        path = REPOSITORY / "sample_config.yaml"
        if not path.exists():
            self.skipTest("there is no sample_config.yaml")
        config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        config["listen"] = [f"tcp:{port}:interface={interface}"]
        return config

    async def test_seed_example(self) -> None:
        """The seed specification's own example logs in."""

        class Sample(Profile):
            def config(self, port: int) -> dict[str, Any]:
                return sample

        process_port = free_port()
        sample = self._sample("127.0.0.1", process_port)
        process = ConformanceServer(Sample("sample"))
        self.addCleanup(process.folder.remove)
        self.addCleanup(process.kill)
        process.port = process_port
        process.start()
        client = CheckedClient(process.target)
        self.addCleanup(client.close)
        body = {"type": "m.login.password", "user": "cheeky_monkey", "password": "ilovebananas"}
        answer = self.succeeded(await client.post("/_matrix/client/r0/login", body))
        self.assertEqual(answer["home_server"], sample["server_name"])
        self.assertEqual(answer["user_id"], f"@cheeky_monkey:{sample['server_name']}")

    def test_listens_on_loopback(self) -> None:
        """It listens on loopback only."""
        self.own_server()
        path = REPOSITORY / "sample_config.yaml"
        if not path.exists():
            self.skipTest("there is no sample_config.yaml")
        for endpoint in yaml.safe_load(path.read_text(encoding="utf-8"))["listen"]:
            self.assertTrue(
                any(f"interface={host}" in endpoint for host in ("127.0.0.1", r"\:\:1", "::1")),
                endpoint,
            )

    @cases(*named([("IPv4", "0.0.0.0"), ("IPv6", r"\:\:"), ("unnamed", "")]))
    def test_exposed(self, interface: Named) -> None:
        """A server with its well-known password does not start on all addresses ({})."""
        folder = Folder(self._sample(interface.value, free_port()), {})
        self.addCleanup(folder.remove)
        status, output = folder.run_until_exit()
        self.assertNotEqual(status, 0, output)
        self.assertNotIn("Traceback", output)
