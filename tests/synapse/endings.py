"""Helpers for tests of what ends sessions: pushers, keys, and who is told."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.support.synapse.profile import Profile
from tests.support.waiting import reactor
from tests.synapse.case import HomeserverCase, fresh
from tests.synapse.client import Pair

INTERVAL = 2.0
"""Seconds in which the servers of these tests look at every account once."""

_SLACK = 5.0
"""Seconds that this machine may be busy with something else."""

_PAUSE = 0.1
_DIRECTORY = "directory.json"
_GATEWAY = "https://push.example/_matrix/push/v1/notify"

MODULE: Mapping[str, Any] = {
    "tokens": {"account_check_interval": int(INTERVAL * 1000), "refresh_token": "on_request"}
}

SYNAPSE: Mapping[str, Any] = {
    "email": {
        "smtp_host": "127.0.0.1",
        "smtp_port": 9,
        "notif_from": "noreply@hs.example",
        "enable_notifs": True,
        "client_base_url": "http://hs.example",
    },
}

WATCHER = {"module": "tests.synapse.modules.LogoutWatcher"}


def directory_profile(name: str, **more: Any) -> Profile:
    """A server with the directory of :mod:`tests.synapse.directory`.

    :param more: laid over the module's configuration.
    """
    provider = {
        "module": "tests.synapse.directory.DirectoryProvider",
        "config": {"path": _DIRECTORY},
    }
    return Profile(
        name,
        module={**MODULE, "password_providers": [provider], "brake": {}, **more},
        synapse=SYNAPSE,
        more_modules=[WATCHER],
    )


async def sleep(seconds: float) -> None:
    """Let time pass."""
    waiting: Deferred[None] = deferLater(reactor, seconds)
    await waiting


class EndingCase(HomeserverCase):
    """A server that looks at every account every two seconds."""

    async def plain(self, name: str, base: str | None = None, **more: Any) -> dict[str, Any]:
        """Log in as a client that does not refresh; the answer."""
        answer = await self.client.login(base or self.client.module, name, **more)
        self.assertEqual(answer.status, 200, str(answer))
        self.assertNotIn("refresh_token", answer.json)
        content: dict[str, Any] = answer.json
        return content

    async def until_dead(self, access: str, base: str | None = None) -> None:
        """Wait until an access token is refused, as one whose client may keep its keys."""
        deadline = time.monotonic() + INTERVAL + _SLACK
        answer = await self.client.whoami(access, base)
        while answer.status == 200 and time.monotonic() < deadline:
            await sleep(_PAUSE)
            answer = await self.client.whoami(access, base)
        self.assert_error(answer, 401, "M_UNKNOWN_TOKEN", soft_logout=True)

    async def until(self, condition: Any, what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + INTERVAL + _SLACK
        while not await condition():
            self.assertTrue(time.monotonic() < deadline, f"{what} does not come")
            await sleep(_PAUSE)

    async def assert_takes(self, *tokens: str) -> None:
        """Synapse takes access tokens."""
        for token in tokens:
            answer = await self.client.whoami(token)
            self.assertEqual(answer.status, 200, str(answer))

    async def push(self, access: str, kind: str = "http", key: str = "") -> str:
        """Set a pusher; its app ID, or for an e-mail its address."""
        app = fresh("app.") if kind == "http" else "m.email"
        body = {
            "kind": kind,
            "app_id": app,
            "pushkey": key or fresh("key"),
            "app_display_name": "an app",
            "device_display_name": "a device",
            "lang": "en",
            "data": {"url": "https://push.example/_matrix/push/v1/notify"}
            if kind == "http"
            else {},
            "append": True,
        }
        answer = await self.client.post(self.client.own, "/pushers/set", body, access)
        self.assertEqual(answer.status, 200, str(answer))
        return app

    def pushers(self, user: str) -> set[str]:
        """The apps of a user's pushers, in the database."""
        found = self.server.query("SELECT app_id FROM pushers WHERE user_name = ?", user)
        return {app for (app,) in found}

    async def running_pushers(self) -> dict[str, float]:
        """How many pushers run in the main process, by their app IDs."""
        text = await self.metrics()
        found = re.findall(r"^synapse_pushers\{(.*)\} (\S+)$", text, re.MULTILINE)
        return {
            app.group(1): float(number)
            for labels, number in found
            if (app := re.search(r'app_id="([^"]*)"', labels)) and float(number)
        }

    async def metrics(self) -> str:
        """All metrics of the main process."""
        answer = await self.client.send("GET", f"{self.client.own}/_synapse/metrics")
        return answer.body.decode("utf-8")

    async def metric(self, name: str) -> float:
        """One of the module's, without labels or summed over them."""
        text = await self.metrics()
        found = re.findall(rf"^synapse_login_{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        self.assertTrue(found, name)
        return sum(map(float, found))

    async def upload_keys(self, pair: Pair | dict[str, Any]) -> None:
        """Upload the keys of a device."""
        user, device, access = _names(pair)
        keys = {
            "user_id": user,
            "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {f"ed25519:{device}": "k" * 43},
            "signatures": {user: {f"ed25519:{device}": "s" * 86}},
        }
        answer = await self.client.post(
            self.client.own, "/keys/upload", {"device_keys": keys}, access
        )
        self.assertEqual(answer.status, 200, str(answer))

    def keys(self, user: str) -> set[str]:
        """The devices of a user that have keys."""
        found = self.server.query(
            "SELECT k.device_id FROM e2e_device_keys_json AS k JOIN devices AS d"
            " ON d.user_id = k.user_id AND d.device_id = k.device_id WHERE k.user_id = ?",
            user,
        )
        return {device for (device,) in found}

    def told(self, user: str) -> list[str]:
        """Hashes of the access tokens that the other module was told of, in order."""
        return re.findall(rf"logged out: {re.escape(user)} \S+ (\w{{64}})", self.logged())


class DirectoryCase(EndingCase):
    """A server whose accounts are in a directory that cannot tell when it changes.

    It keeps those whom earlier tests have entered.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.file = self.server.folder / _DIRECTORY
        self.known: dict[str, str] = {}
        if self.file.exists():
            self.known = json.loads(self.file.read_text())
        self.write()

    def write(self) -> None:
        """Write the directory."""
        fresh_file = self.file.with_suffix(".new")
        fresh_file.write_text(json.dumps(self.known))
        fresh_file.replace(self.file)

    def enter(self, number: int = 1) -> list[str]:
        """Add a number of people to the directory; return their names."""
        names = [fresh("person") for _ in range(number)]
        self.known.update(dict.fromkeys(names, "active"))
        self.write()
        return names

    def say(self, name: str, status: str | None) -> None:
        """Set a person's status in the directory; ``None`` removes the person."""
        if status is None:
            self.known.pop(name, None)
        else:
            self.known[name] = status
        self.write()


def hashed(access: str) -> str:
    """What :class:`tests.synapse.modules.LogoutWatcher` writes for an access token."""
    return hashlib.sha256(access.encode("ascii")).hexdigest()


def _names(session: Pair | dict[str, Any]) -> tuple[str, str, str]:
    if isinstance(session, Pair):
        return session.user_id, session.device_id, session.access
    return session["user_id"], session["device_id"], session["access_token"]
