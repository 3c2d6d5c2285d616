"""A real Prometheus scrapes real servers, and the alerts fire for real faults.

The shipped rules are used with all times divided by sixty. Two alerts need more than that:
``promtool`` alone shows ``SynapseLoginOutboxGrowing``, which needs a hundred devices, and
``SynapseLoginSweepBehind``, which needs a provider that is slow for a quarter of an hour.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from synapse_login_module.tokens import keyfile
from tests.homeservers.fake_synapse import SECRET, FakeSynapse, SynapseSite
from tests.metrics.case import MeasuredServer
from tests.support.configuration import password_hash
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.prometheus import RULES, Prometheus
from tests.support.waiting import reactor

PASSWORD = "correct horse"
CHEAP, COSTLY = password_hash(PASSWORD), password_hash(PASSWORD, 12)
PATIENCE = 100.0
REFRESH, STRICT = "/_matrix/client/v3/refresh", "/_matrix/client/v3/tokenrefresh"

BY_PROMTOOL_ALONE = {"SynapseLoginOutboxGrowing", "SynapseLoginSweepBehind"}


def quick_rules() -> str:
    """Return the shipped rules with minutes in the place of hours: all times through sixty."""
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = _quick(rule.get("for", "0m"))
            expression = re.sub(r"\[(\d+m)\]", lambda each: f"[{_quick(each[1])}]", rule["expr"])
            rule["expr"] = re.sub(r"(_seconds > )(\d+)", _sixtieth, expression)
    return yaml.safe_dump(rules)


def _quick(minutes: str) -> str:
    return f"{minutes.removesuffix('m')}s"


def _sixtieth(match: re.Match[str]) -> str:
    return f"{match[1]}{int(match[2]) / 60:g}"


def _names() -> set[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"]}


class AlertsTests(TestCase):
    """The alerts, with a server in front of a homeserver and one with workers on PostgreSQL."""

    timeout = 300

    async def test_fire(self) -> None:
        """No alert fires while all is well, and each fires for its fault."""
        self.database = PostgreSQL()
        self.addCleanup(self.database.remove)
        self.homeserver = SynapseSite(FakeSynapse())
        self.addCleanup(self.homeserver.stop)
        self.front, self.shared = self.make_front(), self.make_shared()
        ports = {"front": self.front.internal_port, "shared": self.shared.internal_port}
        self.prometheus = Prometheus(self, ports, quick_rules())
        await self.front.start()
        await self.shared.start()
        await self.prometheus.start()
        sessions = await self.log_everybody_in()
        up = 'up{job="synapse-login"} == 1'
        await self.until(lambda: self.count(up), 2)
        await self.until(lambda: self.count("synapse_login_build_info"), 2)
        await pause(3.0)
        self.assertEqual(await self.prometheus.firing(), set())

        faults = gatherResults([Deferred.fromCoroutine(each) for each in self.cause(sessions)])
        self.addCleanup(self.end, faults)
        wanted = _names() - BY_PROMTOOL_ALONE - {"SynapseLoginDown"}
        await self.until_fired(wanted)
        await self.end(faults)
        await self.front.process.terminate()
        await self.until_fired({"SynapseLoginDown"})

    def make_front(self) -> MeasuredServer:
        """Make the server in front of the homeserver, with a provider that is away."""
        people = {f"user{number}": {"password_hash": CHEAP} for number in range(4)}
        people["slow"] = {"password_hash": COSTLY}
        server = MeasuredServer(
            self,
            password_providers=[
                {
                    "module": "synapse_login_module.providers.BcryptProvider",
                    "config": {"path": "users.yaml"},
                },
                {
                    "module": "synapse_login_module.providers.HTTPProvider",
                    "name": "away",
                    "circuit_breaker": {"failures": 3},
                    "config": {"endpoint": f"http://127.0.0.1:{free_port()}"},
                },
            ],
            public_baseurl="http://127.0.0.1:1",
            homeserver={
                "module": "synapse_login_module.homeservers.SynapseHomeserver",
                "config": {"url": self.homeserver.url, "secret_file": "secret"},
            },
            hashing={"threads": 1, "queue": 1, "rounds": 4},
            limits={"connections": 20},
            brake={"accounts": 1, "percent": 0},
            tokens={"reuse_interval": 0, "account_check_interval": "8s"},
        )
        (server.folder / "secret").write_text(f"{SECRET}\n")
        (server.folder / "secret").chmod(0o600)
        self.write_people(server, people)
        return server

    def make_shared(self) -> MeasuredServer:
        """Make the server of two workers on PostgreSQL."""
        return MeasuredServer(
            self,
            ["--workers", "2"],
            token_store={
                "module": "synapse_login_module.stores.PostgreSQLTokenStore",
                "config": {"dsn": self.database.conninfo, "timeout": "1s"},
            },
        )

    @staticmethod
    def write_people(server: MeasuredServer, people: dict[str, Any]) -> None:
        path = server.folder / "users.yaml"
        fresh = path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({"users": people}))
        fresh.chmod(0o600)
        fresh.replace(path)

    async def log_everybody_in(self) -> list[dict[str, Any]]:
        """Log in four users."""
        sessions = []
        for number in range(4):
            status, body = await self.front.login(
                f"user{number}", PASSWORD, refresh_token=True, device_id="PHONE"
            )
            self.assertEqual(status, 200, body)
            sessions.append(json.loads(body))
        return sessions

    def cause(self, sessions: list[dict[str, Any]]) -> list[Any]:
        """Return the faults, as coroutines that go on until all alerts have fired."""
        self.running = True
        return [
            self.reuse(sessions[0]),
            self.again(lambda: self.front.login("nobody", PASSWORD)),
            self.again(self.flood_with_logins),
            self.again(self.flood_with_connections),
            self.lose_homeserver(sessions[1]),
            self.lose_store(),
        ]

    def end(self, faults: Deferred[Any]) -> Deferred[Any]:
        """End the faults; fires when they have ended."""
        self.running = False
        return faults

    async def again(self, cause: Callable[[], Awaitable[object]]) -> None:
        """Do something again and again."""
        while self.running:
            with contextlib.suppress(OSError):  # a connection that the server has cut
                await cause()
            await pause(0.3)

    async def reuse(self, session: dict[str, Any]) -> None:
        """Use a refresh token again, long after it was replaced."""
        token, stolen = session["access_token"], session["refresh_token"]
        current = stolen
        for _ in range(2):
            status, body = await self.post(STRICT, {"refresh_token": current}, token)
            self.assertEqual(status, 200, body)
            token, current = (json.loads(body)[key] for key in ("access_token", "refresh_token"))
        status, _ = await self.post(REFRESH, {"refresh_token": stolen})
        self.assertEqual(status, 401)

    async def post(self, path: str, body: object, token: str | None = None) -> tuple[int, bytes]:
        """Post to the server in front, again while the flood of connections leaves no room."""
        while True:
            try:
                return await self.front.post(path, body, token)
            except OSError:
                await pause(0.3)

    async def flood_with_logins(self) -> None:
        """Have more passwords hashed at once than there is room for."""
        results = [Deferred.fromCoroutine(self.front.login("slow", PASSWORD)) for _ in range(6)]
        for each in results:
            with contextlib.suppress(OSError):
                await each

    async def flood_with_connections(self) -> None:
        """Open more connections than there may be."""
        opened = []
        for _ in range(25):
            opened.append(socket.create_connection(("127.0.0.1", self.front.port)))
        await pause(0.2)
        for each in opened:
            each.close()

    async def lose_homeserver(self, session: dict[str, Any]) -> None:
        """Stop the homeserver, log out, remove the accounts, and change the token key."""
        await self.homeserver.stop()
        status, body = await self.post("/_matrix/client/v3/logout", {}, session["access_token"])
        self.assertEqual(status, 200, body)
        self.write_people(self.front, {"slow": {"password_hash": COSTLY}})
        await self.until_fired({"SynapseLoginBrakeHeld"})
        key = self.front.folder / "token.key"
        key.unlink()
        keyfile.load_or_make(key, lambda size: b"k" * size)

    async def lose_store(self) -> None:
        """Make the database refuse writes."""
        self.database.take_writes(False)
        await self.again(lambda: self.shared.login("alice", PASSWORD))

    async def count(self, expression: str) -> int:
        return len(await self.prometheus.query(expression))

    async def until(self, read: Callable[[], Awaitable[object]], expected: object) -> None:
        """Wait until what is read is as expected."""
        deadline = time.monotonic() + PATIENCE
        while (found := await read()) != expected:
            if time.monotonic() > deadline:
                raise AssertionError(f"{found} is not {expected}")
            await pause(0.5)

    async def until_fired(self, wanted: set[str]) -> None:
        """Wait until each of some alerts has fired."""

        async def missing() -> set[str]:
            found = await self.prometheus.query('max_over_time(ALERTS{alertstate="firing"}[5m])')
            return wanted - {each["metric"]["alertname"] for each in found}

        await self.until(missing, set())


def pause(seconds: float) -> Deferred[None]:
    """Fire after some seconds."""
    return deferLater(reactor, seconds)
