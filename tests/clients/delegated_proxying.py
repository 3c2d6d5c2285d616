"""Tests of a reverse proxy in front of a login service and of the Synapse that delegates to it.

The test case here is abstract; ``test_delegated_proxies`` has it for each proxy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from tests.clients.proxy import DelegatedCaddy, DelegatedHAProxy, DelegatedNginx, Proxy
from tests.clients.proxying import (
    CLIENT_ADDRESS,
    FORGED_ADDRESS,
    LIMIT,
    LOGINS,
    REFRESHES,
    OutageCase,
    send,
)
from tests.clients.upstream import Named
from tests.conformance import paths
from tests.support.ports import free_port
from tests.support.response import Response
from tests.support.waiting import together

SERVICE, SYNAPSE = "service", "synapse"

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")

METADATA = [
    f"{paths.CLIENT}/{prefix}/{name}"
    for prefix in ("v1", "unstable/org.matrix.msc2965")
    for name in ("auth_metadata", "auth_issuer")
]

PAGES = [
    "/_matrix/login/account",
    "/_matrix/login/account?action=org.matrix.cross_signing_reset",
    "/_matrix/login/account/page.js",
    "/_matrix/login/",
    "/_matrix/login",
    "/_matrix/static/client/login/",
    "/_matrix/static/client/login/page.css",
    "/_matrix/static/client/login",
]

OF_THE_SERVICE = [
    *REFRESHES,
    *(
        paths.at(name, prefix)
        for name in ("login", "login/get_token", "logout", "logout/all", "delete_devices")
        for prefix in paths.PREFIXES
    ),
    *METADATA,
    *PAGES,
    f"{paths.at('logout')}?a=b%20c",
    "/_matrix/client/v3/%6Cogin",
    "/_matrix/client/%76%33/login%2Fget_token",
    "/%5Fmatrix/client/v3/delete%5fdevices",
    "/_matrix/%6cogin/account",
]
"""Paths that are the service's with every method."""

DEVICES = [
    *(paths.at("devices/ABCDEFG", prefix) for prefix in paths.PREFIXES),
    paths.at("devices/ABCDEFG?a=b%20c"),
    paths.at("devices/a%2Fb%3Fc%23d%20e"),
    paths.at("devices/%C3%A4%E2%82%AC"),
    paths.at("devices/%2525"),
    paths.at("devices/ABCDEFG/"),
    "/_matrix/client/v3/%64evices/ABCDEFG",
]
"""Paths of a device, whose deletion alone is the service's."""

OF_SYNAPSE = [
    paths.VERSIONS,
    *(paths.at(f"login/{more}") for more in ("sso/redirect", "cas/ticket", "get_token/", "")),
    *(paths.at(f"{name}/") for name in ("tokenrefresh", "refresh", "logout", "logout/all")),
    *(paths.at(f"{name}/") for name in ("delete_devices", "devices")),
    *(paths.at(name) for name in ("devices", "account/whoami", "sync", "loginx", "register")),
    *(paths.at("login", prefix) for prefix in ("v2", "v33", "unstable/org.matrix.msc2918")),
    paths.at("devices/ABCDEFG", "v2"),
    paths.at("login_devices/ABCDEFG"),
    f"{paths.CLIENT}/v3/auth_metadata",
    f"{paths.CLIENT}/unstable/orgXmatrix.msc2918/refresh",
    f"{paths.CLIENT}/unstable/orgXmatrix.msc2965/auth_metadata",
    "/_matrix/loginx",
    "/_matrix/static/",
    "/_matrix/static/client/loginx",
    "/_matrix/static/client/register/",
    "/_matrix/federation/v1/version",
    "/_matrix/client/v3x/_matrix/client/v3/login",
    "/_synapse/client/_matrix/client/v3/login",
    "/_synapse/client/pick_username",
    "/_synapse/client/synapse_loginx",
]
"""Paths that are Synapse's with every method."""

INTERNAL = [
    "/_synapse/mas",
    "/_synapse/mas/",
    "/_synapse/mas/query_user?localpart=alice",
    "/_synapse/%6Das/query_user",
    "/%5Fsynapse/mas/provision_user",
    "/_synapse%2Fmas/query_user",
    "//_synapse/mas/query_user",
    "/_synapse//mas/query_user",
    "/_synapse/client/synapse_login/forget_tokens",
    "/_synapse/client/synapse_login/forget%5Ftokens",
    "/_synapse/client/synapse%5Flogin/forget_tokens",
    "/_synapse/client//synapse_login/forget_tokens",
    "/_synapse//client/synapse_login//forget_tokens",
    "/_synapse/client/synapse_login",
    "/oauth2",
    "/oauth2/introspect",
    "/oauth2//introspect",
    "//oauth2/introspect",
    "/%6Fauth2/introspect",
    "/oauth2%2Fintrospect",
]
"""Paths that no client reaches."""

DOUBLE_SLASHES = [
    "/_matrix/client/v3//login",
    "//_matrix/client/v3/login",
    "/_matrix//client/v3/tokenrefresh",
    "/_matrix/client/v3/devices//ABCDEFG",
    "/_matrix/client/v3//account/whoami",
]


class DelegatedProxyTests(OutageCase):
    """A proxy in front of a login service and of Synapse, both of which say who they are.

    :cvar proxy_class: the proxy.
    :cvar refuses_large_bodies: whether the proxy itself refuses a body of more than 64 KiB.
    :cvar outage_in_json: whether a login gets the outage in JSON.
    :cvar logs_requests: whether the proxy logs requests to Synapse.
    """

    proxy_class: ClassVar[type[DelegatedNginx] | type[DelegatedHAProxy] | type[DelegatedCaddy]]
    refuses_large_bodies = True
    outage_in_json = True
    logs_requests = True

    async def before_both(self) -> Proxy:
        """Start the proxy in front of both."""
        self.service, self.synapse = Named(SERVICE), Named(SYNAPSE)
        self.addCleanup(self.service.stop)
        self.addCleanup(self.synapse.stop)
        return await self.started(self.proxy_class(self.service.port, self.synapse.port))

    async def before_synapse_alone(self) -> Proxy:
        """Start the proxy while the service's port is closed."""
        self.synapse = Named(SYNAPSE)
        self.addCleanup(self.synapse.stop)
        return await self.started(self.proxy_class(free_port(), self.synapse.port))

    async def assert_forwarded(
        self, proxy: Proxy, upstream: str, methods: Iterable[str], given: Iterable[str]
    ) -> None:
        """Each path goes to an upstream with each method, as the client wrote it."""
        for path in given:
            for method in methods:
                answer = await send(proxy.url + path, method, b"{}" if method == "POST" else None)
                said = (answer.status, answer.header("X-Upstream"))
                self.assertEqual(said, (200, upstream), str(answer))
                if method != "HEAD":
                    asked = (answer.json["method"], answer.json["path"])
                    self.assertEqual(asked, (method, path))

    async def test_paths_of_the_service(self) -> None:
        """The service's paths go to it with every method."""
        proxy = await self.before_both()
        await self.assert_forwarded(proxy, SERVICE, METHODS, OF_THE_SERVICE)
        self.assertEqual(self.synapse.requests, [])

    async def test_devices(self) -> None:
        """A device is deleted at the service, and shown and renamed at Synapse."""
        proxy = await self.before_both()
        await self.assert_forwarded(proxy, SERVICE, ["DELETE"], DEVICES)
        self.assertEqual(self.synapse.requests, [])
        others = ("GET", "HEAD", "PUT", "POST", "OPTIONS")
        await self.assert_forwarded(proxy, SYNAPSE, others, DEVICES)
        self.assertEqual(len(self.service.requests), len(DEVICES))

    async def test_body_of_a_deletion(self) -> None:
        """The body of a deletion goes to the service too."""
        proxy = await self.before_both()
        answer = await send(proxy.url + DEVICES[0], "DELETE", b'{"auth": {}}')
        self.assertEqual(answer.json["upstream"], SERVICE)
        lengths = self.service.requests[0].getRawHeaders("Content-Length")
        self.assertEqual(lengths, ["12"])

    async def test_other_paths(self) -> None:
        """Every other path of Matrix goes to Synapse with every method."""
        proxy = await self.before_both()
        await self.assert_forwarded(proxy, SYNAPSE, METHODS, OF_SYNAPSE)
        self.assertEqual(self.service.requests, [])

    async def test_internal_paths(self) -> None:
        """What Synapse and the service ask one another is 404 from outside, however it is spelt."""
        proxy = await self.before_both()
        for path in INTERNAL:
            for method in METHODS:
                answer = await send(proxy.url + path, method, b"{}" if method == "POST" else None)
                self.assertEqual(answer.status, 404, str(answer))
                if method != "HEAD":
                    self.assertEqual(answer.errcode, "M_UNRECOGNIZED", str(answer))
        self.assertEqual((self.service.requests, self.synapse.requests), ([], []))

    async def test_double_slashes(self) -> None:
        """A path with a double slash, which neither upstream knows, reaches one unchanged."""
        proxy = await self.before_both()
        for path in DOUBLE_SLASHES:
            answer = await send(proxy.url + path, "DELETE", None)
            found = (answer.status, answer.json.get("path"))
            known = (answer.status, answer.json.get("errcode"))
            self.assertTrue(found == (200, path) or known == (404, "M_UNRECOGNIZED"), str(answer))

    async def test_address(self) -> None:
        """Both get the client's real address and scheme, whatever headers it sends."""
        proxy = await self.before_both()
        forged = {"X-Forwarded-For": FORGED_ADDRESS, "X-Forwarded-Proto": "https"}
        for path in (LOGINS[0], REFRESHES[0], METADATA[0], PAGES[0], paths.VERSIONS):
            await send(proxy.url + path, headers=forged)
        await send(proxy.url + DEVICES[0], "DELETE", None, forged)
        self.assertEqual((len(self.service.requests), len(self.synapse.requests)), (5, 1))
        for headers in [*self.service.requests, *self.synapse.requests]:
            self.assertEqual(headers.getRawHeaders("X-Forwarded-For"), [CLIENT_ADDRESS])
            self.assertEqual(headers.getRawHeaders("X-Forwarded-Proto"), ["http"])

    async def test_large_bodies(self) -> None:
        """A body of 64 KiB reaches the service, and a larger one does not where the proxy refuses
        it. Synapse gets large ones.
        """
        proxy = await self.before_both()
        asked = (("POST", LOGINS[0]), ("POST", REFRESHES[0]), ("DELETE", DEVICES[0]))
        for method, path in asked:
            largest = await send(proxy.url + path, method, b" " * LIMIT)
            self.assertEqual(largest.json["upstream"], SERVICE)
            larger = await send(proxy.url + path, method, b" " * (LIMIT + 1))
            if self.refuses_large_bodies:
                self.assert_too_large(larger)
            else:
                self.assertEqual(larger.json["upstream"], SERVICE)
        upload = await send(proxy.url + "/_matrix/media/v3/upload", body=b" " * (16 * LIMIT))
        self.assertEqual(upload.json["upstream"], SYNAPSE)

    async def test_outage(self) -> None:
        """While the service is down, refreshes and pages get that in plain text, and logins get it
        too. What is Synapse's works.
        """
        proxy = await self.before_synapse_alone()
        for answer in await together(*(send(proxy.url + path) for path in REFRESHES)):
            self.assert_outage(answer)
        for path in PAGES:
            self.assert_outage(await send(proxy.url + path, "GET", None))
        for method, path in (
            ("POST", LOGINS[0]),
            ("POST", paths.at("logout")),
            ("POST", paths.at("delete_devices")),
            ("DELETE", DEVICES[0]),
        ):
            self.assert_down(await send(proxy.url + path, method))
        await self.assert_forwarded(proxy, SYNAPSE, ["GET"], [paths.VERSIONS, *DEVICES])

    def assert_down(self, answer: Response) -> None:
        """A response other than to a refresh says that the service is down."""
        if self.outage_in_json:
            self.assert_login_outage(answer)
        else:
            self.assert_outage(answer)

    async def test_metadata_in_an_outage(self) -> None:
        """While the service is down, clients still learn that they use passwords."""
        proxy = await self.before_synapse_alone()
        for path in METADATA:
            answer = await send(proxy.url + path, "GET", None)
            self.assertEqual((answer.status, answer.errcode), (404, "M_UNRECOGNIZED"), str(answer))
            self.assertEqual(answer.media_type, "application/json")
            self.assert_cors(answer)

    async def test_preflight_in_an_outage(self) -> None:
        """A browser's preflight request succeeds during an outage, so that it sees the outage."""
        proxy = await self.before_synapse_alone()
        for path in (LOGINS[0], REFRESHES[0], METADATA[0], paths.at("delete_devices")):
            answer = await send(proxy.url + path, "OPTIONS", None)
            self.assertEqual(answer.status, 204, str(answer))
            self.assert_cors(answer)
            self.assertIn("POST", answer.header("Access-Control-Allow-Methods") or "")
            self.assertIn("Authorization", answer.header("Access-Control-Allow-Headers") or "")

    async def test_no_token_in_the_log(self) -> None:
        """Access tokens in a query are not logged, even during an outage."""
        secret = "an-access-token-in-a-query"
        for proxy in (await self.before_both(), await self.before_synapse_alone()):
            await send(f"{proxy.url}{paths.VERSIONS}?access_token={secret}", "GET", None)
            for path in (LOGINS[0], REFRESHES[0], DEVICES[0], METADATA[0], PAGES[0], INTERNAL[0]):
                for method in ("POST", "DELETE"):
                    await send(f"{proxy.url}{path}?access_token={secret}", method)
                    large = b" " * (LIMIT + 1)
                    await send(f"{proxy.url}{path}?access_token={secret}", method, large)
            self.assertEqual(paths.VERSIONS in proxy.logs(), self.logs_requests)
            self.assertNotIn(secret, proxy.logs())
