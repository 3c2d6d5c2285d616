"""Tests of a reverse proxy with its configuration from ``contrib/``.

The test cases here are abstract; ``test_proxies`` has them for each proxy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import ClassVar

from twisted.internet.defer import Deferred

from tests.clients.case import ClientCase, ProgramCase, StandaloneCase
from tests.clients.proxy import HAProxy, Nginx, Proxy
from tests.clients.upstream import Broken, Recorder
from tests.conformance import accounts, paths
from tests.support import wire
from tests.support.client import Client
from tests.support.ports import free_ports
from tests.support.response import Response
from tests.support.synapse.profile import PASSWORD
from tests.support.waiting import together

CLIENT_ADDRESS = "127.0.0.2"
"""The address of the client in these tests; the proxies are on 127.0.0.1."""

FORGED_ADDRESS = "203.0.113.9"
LIMIT = 64 * 1024

REFRESHES = [
    *(paths.at(name, prefix) for name in ("tokenrefresh", "refresh") for prefix in paths.PREFIXES),
    paths.MSC2918_REFRESH,
]
LOGINS = [paths.at("login", prefix) for prefix in paths.PREFIXES]

OF_SYNAPSE = [
    paths.VERSIONS,
    *(paths.at(f"login/{more}") for more in ("get_token", "sso/redirect", "cas/ticket", "")),
    *(paths.at(f"{name}/") for name in ("tokenrefresh", "refresh")),
    *(paths.at(name) for name in ("logout", "logout/all", "account/whoami", "sync", "loginx")),
    *(paths.at("login", prefix) for prefix in ("v2", "v33", "unstable/org.matrix.msc2918")),
    f"{paths.CLIENT}/unstable/orgXmatrix.msc2918/refresh",
    "/_matrix/federation/v1/version",
    "/_matrix/client/v3x/_matrix/client/v3/login",
    "/_synapse/client/_matrix/client/v3/login",
]


async def send(
    url: str,
    method: str = "POST",
    body: bytes | None = b"{}",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Send a request from :data:`CLIENT_ADDRESS`."""
    return await Client(connections=0, address=CLIENT_ADDRESS).send(method, url, body, headers)


class OutageCase(ProgramCase):
    """A test case that knows what clients are to be told."""

    def assert_outage(self, answer: Response) -> None:
        """Assert that a response reports an outage in plain text, so that no client logs out."""
        self.assertIn(answer.status, (502, 503), str(answer))
        self.assertEqual(answer.media_type, "text/plain", str(answer))
        self.assertRaises(ValueError, json.loads, answer.body)
        self.assertTrue(answer.header("Retry-After"), str(answer))
        self.assert_cors(answer)

    def assert_login_outage(self, answer: Response) -> None:
        """Assert that the response to a login reports an outage."""
        self.assertIn(answer.status, (502, 503), str(answer))
        self.assertEqual(answer.errcode, "M_UNKNOWN", str(answer))
        self.assert_cors(answer)

    def assert_too_large(self, answer: Response) -> None:
        """Assert that a response rejects a body that is too large."""
        self.assertEqual((answer.status, answer.errcode), (413, "M_TOO_LARGE"), str(answer))
        self.assertEqual(answer.media_type, "application/json")
        self.assert_cors(answer)

    def assert_cors(self, answer: Response) -> None:
        """Assert that a browser may read a response."""
        self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*", str(answer))


class ProxyCase(OutageCase):
    """The base of the tests of a proxy.

    :cvar proxy_class: the proxy.
    """

    proxy_class: ClassVar[type[Nginx] | type[HAProxy]]

    async def proxy(self, module_port: int, synapse_port: int | None) -> Nginx | HAProxy:
        """Start the proxy in front of these ports, until the end of the test."""
        return await self.started(self.proxy_class(module_port, synapse_port))


class SynapseProxyTests(ClientCase, ProxyCase):
    """A proxy in front of a Synapse with the module."""

    timeout = ProxyCase.timeout

    async def before_synapse(self) -> Proxy:
        """Start the proxy in front of the tests' Synapse."""
        return await self.proxy(self.server.module_port, self.server.client_port)

    async def before_recorders(self) -> tuple[Proxy, Recorder, Recorder]:
        """Start the proxy in front of two recorders, in place of the module and of Synapse."""
        module, synapse = Recorder(), Recorder()
        self.addCleanup(module.stop)
        self.addCleanup(synapse.stop)
        proxy = await self.proxy(module.port, synapse.port)
        return proxy, module, synapse

    async def test_paths_of_the_module(self) -> None:
        """Each of the module's paths is forwarded to the module alone, unchanged."""
        proxy, module, synapse = await self.before_recorders()
        wanted = [*LOGINS, *REFRESHES, f"{LOGINS[0]}?a=b%20c", "/_matrix/client/v3/%6Cogin"]
        for path in wanted:
            await send(proxy.url + path)
        self.assertEqual([path for path, _ in module.requests], wanted)
        self.assertEqual(synapse.requests, [])

    async def test_other_paths(self) -> None:
        """Every other path of Matrix is forwarded to Synapse."""
        proxy, module, synapse = await self.before_recorders()
        for path in OF_SYNAPSE:
            await send(proxy.url + path)
        self.assertEqual([path for path, _ in synapse.requests], OF_SYNAPSE)
        self.assertEqual(module.requests, [])

    async def test_forwarded(self) -> None:
        """Both upstreams get the client's real address and scheme, whatever headers it sends."""
        proxy, module, synapse = await self.before_recorders()
        forged = {"X-Forwarded-For": FORGED_ADDRESS, "X-Forwarded-Proto": "https"}
        for path in (LOGINS[0], REFRESHES[0], paths.VERSIONS):
            await send(proxy.url + path, headers=forged)
        for _, headers in [*module.requests, *synapse.requests]:
            self.assertEqual(headers.getRawHeaders("X-Forwarded-For"), [CLIENT_ADDRESS])
            self.assertEqual(headers.getRawHeaders("X-Forwarded-Proto"), ["http"])
        self.assertEqual((len(module.requests), len(synapse.requests)), (2, 1))

    async def test_synapse(self) -> None:
        """With the real upstreams a client logs in, refreshes and uses the new access token."""
        proxy = await self.before_synapse()
        body = {
            "type": "m.login.password",
            "user": "alice",
            "password": PASSWORD,
            "refresh_token": True,
        }
        login = await send(proxy.url + LOGINS[0], body=json.dumps(body).encode())
        self.assertEqual(login.status, 200, str(login))
        refreshed = await send(
            proxy.url + paths.at("tokenrefresh", "r0"),
            body=json.dumps({"refresh_token": login.json["refresh_token"]}).encode(),
            headers={"Authorization": f"Bearer {login.json['access_token']}"},
        )
        self.assertEqual(refreshed.status, 200, str(refreshed))
        for token, status in (
            (refreshed.json["access_token"], 200),
            (login.json["access_token"], 401),
        ):
            whoami = await send(
                proxy.url + paths.at("account/whoami"),
                "GET",
                None,
                {"Authorization": f"Bearer {token}"},
            )
            self.assertEqual(whoami.status, status, str(whoami))

    async def test_address_in_the_log(self) -> None:
        """The module's log line has the client's address, also when the client claims another."""
        proxy = await self.before_synapse()
        body = {"type": "m.login.password", "user": "alice", "password": "not this one"}
        for claimed in (FORGED_ADDRESS, f"{FORGED_ADDRESS}, 127.0.0.1", "::1", "nonsense"):
            answer = await send(
                proxy.url + LOGINS[0],
                body=json.dumps(body).encode(),
                headers={"X-Forwarded-For": claimed},
            )
            self.assertEqual(answer.status, 403, str(answer))
        addresses = re.findall(r"login outcome=refused .*? address=(\S+)", self.logged())
        self.assertEqual(addresses, [CLIENT_ADDRESS] * 4)

    async def test_largest_body(self) -> None:
        """A body of 64 KiB is forwarded."""
        proxy, module, _ = await self.before_recorders()
        for path in (LOGINS[0], REFRESHES[0]):
            answer = await send(proxy.url + path, body=b" " * LIMIT)
            self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual(len(module.requests), 2)

    async def test_body_too_large(self) -> None:
        """A larger body is rejected in JSON with CORS headers, and is not forwarded."""
        proxy, module, _ = await self.before_recorders()
        sizes = (LIMIT + 1, 16 * LIMIT) if proxy.lingers else (LIMIT + 1,)
        for path in (LOGINS[0], REFRESHES[0]):
            for size in sizes:
                answer = await send(proxy.url + path, body=b" " * size)
                self.assert_too_large(answer)
        self.assertEqual(module.requests, [])

    async def test_chunked_body_too_large(self) -> None:
        """A larger chunked body gets the same response."""
        proxy = await self.before_synapse()
        chunk = b"%x\r\n%s\r\n" % (LIMIT, b" " * LIMIT)
        connection = await wire.connect_to(proxy.url)
        self.addCleanup(lambda: Deferred.fromCoroutine(connection.close()))
        connection.send(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            % LOGINS[0].encode()
            + chunk * 2
            + b"0\r\n\r\n"
        )
        (answer,) = await connection.answers(("POST", LOGINS[0]))
        self.assert_too_large(answer)

    async def test_other_bodies(self) -> None:
        """The limit applies to the module's paths only."""
        proxy, _, synapse = await self.before_recorders()
        path = "/_matrix/media/v3/upload"
        answer = await send(proxy.url + path, body=b" " * (16 * LIMIT))
        self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual([asked for asked, _ in synapse.requests], [path])

    async def test_not_listening(self) -> None:
        """While the module's port is closed, refreshes get the outage in plain text."""
        (closed,) = free_ports(1)
        proxy = await self.proxy(closed, self.server.client_port)
        for answer in await together(*(send(proxy.url + path) for path in REFRESHES)):
            self.assert_outage(answer)
        self.assert_login_outage(await send(proxy.url + LOGINS[0]))
        versions = await send(proxy.url + paths.VERSIONS, "GET", None)
        self.assertEqual(versions.status, 200, str(versions))

    async def test_no_answer(self) -> None:
        """A module that closes the connection without a response gives the same outage."""
        broken = Broken()
        self.addCleanup(broken.stop)
        proxy = await self.proxy(broken.port, self.server.client_port)
        for path in (REFRESHES[0], REFRESHES[-1]):
            self.assert_outage(await send(proxy.url + path))
        self.assert_login_outage(await send(proxy.url + LOGINS[0]))

    async def test_preflight_in_an_outage(self) -> None:
        """A browser's preflight request succeeds during an outage, so that it sees the outage."""
        (closed,) = free_ports(1)
        proxy = await self.proxy(closed, self.server.client_port)
        for path in (LOGINS[0], REFRESHES[0]):
            answer = await send(proxy.url + path, "OPTIONS", None)
            self.assertEqual(answer.status, 204, str(answer))
            self.assert_cors(answer)
            self.assertIn("POST", answer.header("Access-Control-Allow-Methods"))
            self.assertIn("Authorization", answer.header("Access-Control-Allow-Headers"))

    async def test_answers_of_the_module(self) -> None:
        """An error of the module is forwarded unchanged."""
        proxy = await self.before_synapse()
        self.server.set_fault("unavailable")
        body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
        through = await send(proxy.url + LOGINS[0], body=json.dumps(body).encode())
        direct = await send(self.server.module_url + LOGINS[0], body=json.dumps(body).encode())
        self.assertEqual((through.status, through.json), (503, direct.json))
        self.assertEqual(through.header("Retry-After"), direct.header("Retry-After"))

    async def test_no_token_in_the_log(self) -> None:
        """Access tokens in a query are not logged, even during an outage."""
        secret = "an-access-token-in-a-query"
        (closed,) = free_ports(1)
        for port in (self.server.module_port, closed):
            proxy = await self.proxy(port, self.server.client_port)
            for path in (LOGINS[0], REFRESHES[0], paths.at("account/whoami")):
                await send(f"{proxy.url}{path}?access_token={secret}")
                await send(f"{proxy.url}{path}?access_token={secret}", body=b" " * (LIMIT + 1))
            self.assertIn("/account/whoami", proxy.logs())
            self.assertNotIn(secret, proxy.logs())


class StandaloneProxyTests(StandaloneCase, ProxyCase):
    """A proxy in front of the standalone server."""

    timeout = ProxyCase.timeout

    async def test_session(self) -> None:
        """A whole session works: all paths of the standalone server are forwarded."""
        proxy = await self.proxy(self.server.port, None)
        account = accounts.CHEEKY
        login = await self.log_in(proxy, account.password)
        self.assertEqual(login.status, 200, str(login))
        bearer = {"Authorization": f"Bearer {login.json['access_token']}"}
        for method, path, status in (
            ("GET", paths.VERSIONS, 200),
            ("GET", paths.at("account/whoami"), 200),
            ("POST", paths.at("login/get_token", "v1"), 401),
            ("POST", paths.at("refresh"), 400),
            ("POST", paths.at("tokenrefresh", "v2_alpha"), 400),
            ("POST", paths.MSC2918_REFRESH, 400),
            ("POST", paths.at("logout/all", "r0"), 200),
            ("POST", paths.at("logout"), 401),
        ):
            body = b"{}" if method == "POST" else None
            answer = await send(proxy.url + path, method, body, bearer)
            self.assertEqual(answer.status, status, str(answer))

    async def test_address_in_the_log(self) -> None:
        """The server's log line has the client's address, also when the client claims another."""
        proxy = await self.proxy(self.server.port, None)
        start = self.server.folder.log_size()
        answer = await self.log_in(proxy, "not this one", {"X-Forwarded-For": FORGED_ADDRESS})
        self.assertEqual(answer.status, 403, str(answer))
        log = self.server.folder.log(start)
        self.assertEqual(re.findall(r"outcome=refused .*? address=(\S+)", log), [CLIENT_ADDRESS])

    async def test_body_too_large(self) -> None:
        """A body of more than 64 KiB is rejected in JSON with CORS headers."""
        proxy = await self.proxy(self.server.port, None)
        for path in (LOGINS[0], REFRESHES[0], paths.at("logout")):
            self.assert_too_large(await send(proxy.url + path, body=b" " * (LIMIT + 1)))

    async def test_not_listening(self) -> None:
        """While the server's port is closed, refreshes get the outage in plain text."""
        (closed,) = free_ports(1)
        proxy = await self.proxy(closed, None)
        for answer in await together(*(send(proxy.url + path) for path in REFRESHES)):
            self.assert_outage(answer)
        for path in (LOGINS[0], paths.at("logout")):
            self.assert_login_outage(await send(proxy.url + path))

    async def log_in(
        self, proxy: Proxy, password: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Log in through the proxy."""
        body = {"type": "m.login.password", "user": accounts.CHEEKY.user, "password": password}
        return await send(proxy.url + LOGINS[0], body=json.dumps(body).encode(), headers=headers)
