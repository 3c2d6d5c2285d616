"""Tests for the homeserver against a real Synapse that delegates."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.web.http import Request
from twisted.web.resource import Resource

from synapse_login_module import testing
from synapse_login_module.homeservers.synapse import SynapseHomeserver
from synapse_login_module.interfaces import IHomeserver
from synapse_login_module.plugin import Environment
from tests.providers.backends import QuietSite
from tests.providers.case import ProviderCase, reactor
from tests.support.http import ask
from tests.support.ports import free_port
from tests.support.synapse.delegating import (
    AS_TOKEN,
    SECRET,
    SECRET_FILE,
    application_service,
    call,
    deactivate,
    delegating,
    devices_of,
    display_name_of,
    is_deactivated,
    make_user,
)
from tests.support.synapse.profile import SERVER_NAME, Profile
from tests.support.synapse.server import shared

ENDPOINT_PORT = free_port()
SERVICE = application_service("bridge", "bridge_.*")
DELEGATING = delegating("homeserver", ENDPOINT_PORT, application_services=[SERVICE])
WITH_KEYS = dataclasses.replace(
    delegating("homeserver-keys", ENDPOINT_PORT),
    client_listener={"resources": [{"names": ["client", "keys"]}]},
)
WITH_WORKER = delegating(
    "homeserver-worker", ENDPOINT_PORT, worker=True, application_services=[SERVICE]
)
ALONE = Profile("homeserver-alone", module=None, files={SECRET_FILE: f"{SECRET}\n"})

PHONE_TOKEN = "token-of-alice"


class _Introspection(Resource):
    """Says which access tokens are active, as the service that Synapse delegates to."""

    isLeaf = True

    def __init__(self, tokens: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self._tokens = tokens
        self.asked: list[str | None] = []

    def render_POST(self, request: Request) -> bytes:
        """Answer a question about a token."""
        assert request.content is not None
        self.asked.append(request.getHeader("authorization"))
        (token,) = parse_qs(request.content.read().decode())["token"]
        if token not in self._tokens:
            return b'{"active": false}'
        localpart, device_id = self._tokens[token]
        return json.dumps(
            {
                "active": True,
                "scope": "urn:matrix:client:api:*",
                "username": localpart,
                "device_id": device_id,
            }
        ).encode()


class RealSynapseCase(ProviderCase):
    """A real Synapse, the service that it asks, and the homeserver that calls it."""

    timeout = 600.0
    profile = DELEGATING

    async def setUp(self) -> None:  # type: ignore[override]
        self.server = await shared(self.profile)
        self.tokens: dict[str, tuple[str, str]] = {}
        self.introspection = _Introspection(self.tokens)
        site = QuietSite(self.introspection)
        listening = reactor.listenTCP(ENDPOINT_PORT, site, interface="127.0.0.1")
        self.addCleanup(self._stop, listening, site)

    async def _stop(self, listening: Any, site: QuietSite) -> None:
        await maybeDeferred(listening.stopListening)
        for channel in list(site.channels):
            channel._channel.transport.abortConnection()

    def environment(self) -> Environment:
        """An environment with the real reactor and the real server name."""
        return dataclasses.replace(testing.environment(reactor=reactor), server_name=SERVER_NAME)

    def homeserver(self, **config: Any) -> SynapseHomeserver:
        """The homeserver of this configuration."""
        secret_file = str(self.server.folder / SECRET_FILE)
        given = {"url": self.server.client_url, "secret_file": secret_file, "timeout": "20s"}
        built: SynapseHomeserver = self.build(SynapseHomeserver, {**given, **config})
        return built


class RealSynapseContractTests(testing.HomeserverContract, RealSynapseCase):
    """The contract, for a real Synapse."""

    server_name = SERVER_NAME
    as_token = AS_TOKEN

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.built = self.homeserver()

    def make_homeserver(self) -> IHomeserver:
        return self.built

    async def deactivate(self, user_id: str) -> None:
        await deactivate(self.server, user_id[1:].partition(":")[0])

    async def devices_of(self, user_id: str) -> Mapping[str, str | None]:
        return devices_of(self.server, user_id)

    async def make_bridged_user(self, localpart: str) -> str:
        body = {
            "type": "m.login.application_service",
            "username": f"bridge_{localpart}",
            "inhibit_login": True,
        }
        path = "/_matrix/client/v3/register"
        status, content = await call(self.server, "POST", path, body, AS_TOKEN)
        self.assertEqual(status, 200, content)
        return str(json.loads(content)["user_id"])

    async def reserved_user_id(self) -> str:
        return f"@bridge_new:{SERVER_NAME}"


class RealSynapseTests(RealSynapseCase):
    """What the contract does not say of every homeserver."""

    async def test_token_of_a_user(self) -> None:
        """The access token of a user is not that of an application service."""
        alice = await make_user(self.server, "token_of_a_user")
        homeserver = self.homeserver()
        await homeserver.make_device(alice, "PHONE", None)
        self.tokens[PHONE_TOKEN] = ("token_of_a_user", "PHONE")
        path = f"/_matrix/client/v3/account/whoami?user_id={alice}"
        status, _ = await call(self.server, "GET", path, token=PHONE_TOKEN)
        self.assertEqual(status, 200)
        self.assertIs(await homeserver.owns_user(PHONE_TOKEN, alice), False)
        self.assertEqual(set(self.introspection.asked), {f"Bearer {SECRET}"})

    async def test_deleted_device_is_logged_out(self) -> None:
        """The token of a deleted device is refused at once, although it is active."""
        alice = await make_user(self.server, "logged_out")
        homeserver = self.homeserver()
        await homeserver.make_device(alice, "PHONE", None)
        self.tokens[PHONE_TOKEN + "2"] = ("logged_out", "PHONE")
        path = "/_matrix/client/v3/account/whoami"
        status, _ = await call(self.server, "GET", path, token=PHONE_TOKEN + "2")
        self.assertEqual(status, 200)
        await homeserver.delete_device(alice, "PHONE")
        status, _ = await call(self.server, "GET", path, token=PHONE_TOKEN + "2")
        self.assertEqual(status, 401)

    async def test_account(self) -> None:
        """An account is made active, without addresses, and with its display name."""
        user_id = f"@account:{SERVER_NAME}"
        self.assertIs(await self.homeserver().make_account(user_id, "y" * 300), True)
        self.assertEqual(display_name_of(self.server, user_id), "y" * 256)
        self.assertIs(is_deactivated(self.server, user_id), False)
        addresses = self.server.query("SELECT * FROM user_threepids WHERE user_id = ?", user_id)
        self.assertEqual(addresses, [])

    async def test_addresses_stay(self) -> None:
        """The addresses of an account stay when it is made again or renamed."""
        emails = ["stay@example.com"]
        alice = await make_user(self.server, "addresses", set_emails=emails)
        homeserver = self.homeserver()
        await homeserver.make_account(alice, "Alice")
        await homeserver.make_account(alice, None)
        await homeserver.set_display_name(alice, "Alice Liddell")
        found = self.server.query("SELECT address FROM user_threepids WHERE user_id = ?", alice)
        self.assertEqual([address for (address,) in found], emails)

    async def test_check(self) -> None:
        """Nothing is wrong; a wrong secret and a missing module are told apart."""
        self.assertIsNone(await self.homeserver().check())
        self.write("wrong", "another-secret")
        problem = await self.homeserver(secret_file="wrong").check()
        self.assertIn("secret_file and the secret of matrix_authentication_service", str(problem))
        problem = await self.homeserver(forget_tokens=True).check()
        self.assertIn("SynapseLoginModule is not loaded there", str(problem))

    async def test_unreachable(self) -> None:
        """A port where nothing listens is named with the cause."""
        url = f"http://127.0.0.1:{free_port()}"
        problem = await self.homeserver(url=url).check()
        self.assertIn(f"query_user at {url}: ConnectionRefusedError: ", str(problem))


class RealKeysTests(RealSynapseCase):
    """A listener that serves the signing keys too."""

    profile = WITH_KEYS

    async def test_server_name(self) -> None:
        """A Synapse of another server name is found out, even if it has no users."""
        self.assertIsNone(await self.homeserver().check())
        config = {"url": self.server.client_url, "secret_file": self.server.folder / SECRET_FILE}
        elsewhere = self.build(
            SynapseHomeserver,
            {key: str(value) for key, value in config.items()},
            testing.environment(reactor=reactor),
        )
        url = self.server.client_url
        self.assertEqual(
            await elsewhere.check(), f"the server_name of {url} is not {testing.SERVER_NAME}"
        )


class RealPostgreSQLContractTests(RealSynapseContractTests):
    """The contract, for a real Synapse on PostgreSQL, which takes fewer names than SQLite."""

    profile = WITH_WORKER


class RealWorkerTests(RealSynapseCase):
    """A Synapse with a worker."""

    profile = WITH_WORKER

    async def test_worker(self) -> None:
        """A worker takes the calls too."""
        homeserver = self.homeserver(url=self.server.worker_client_url)
        self.assertIsNone(await homeserver.check())
        alice = await make_user(self.server, "alice", set_displayname="Alice")
        self.assertIs(await homeserver.make_device(alice, "PHONE", "Phone"), True)
        account = await homeserver.find_account(alice)
        assert account is not None
        self.assertEqual(account.display_name, "Alice")
        self.assertEqual(devices_of(self.server, alice), {"PHONE": "Phone"})
        await homeserver.delete_device(alice, "PHONE")
        self.assertEqual(devices_of(self.server, alice), {})


class RealSynapseAloneTests(RealSynapseCase):
    """A Synapse that does not delegate."""

    profile = ALONE

    async def test_check(self) -> None:
        """It is told that it does not."""
        problem = await self.homeserver().check()
        self.assertIn("404 M_UNRECOGNIZED: matrix_authentication_service is not", str(problem))
        status, _ = await deferToThread(ask, self.server.client_port, "GET", "/health")
        self.assertEqual(status, 200)
