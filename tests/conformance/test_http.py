"""HTTP: paths, methods, CORS, bodies of any size and kind, and unusual connections."""

from __future__ import annotations

import json

from tests.conformance import paths
from tests.conformance.case import ConformanceTestCase, Named, cases, named, needs
from tests.conformance.description import service_description
from tests.conformance.target import Feature
from tests.support import wire
from tests.support.response import Response

_LIMIT = 64 * 1024
_LOGIN = paths.at(paths.LOGIN)
_JSON = {"Content-Type": "application/json"}


class DescriptionTests(ConformanceTestCase):
    """The description itself."""

    def test_complete(self) -> None:
        """Every path is described, under every prefix, with its methods."""
        operations = service_description().operations
        self.assertEqual(set(operations), set(paths.ALL_METHODS))
        for path, methods in operations.items():
            self.assertEqual(set(methods), set(paths.ALL_METHODS[path]), path)


class StandalonePathTests(ConformanceTestCase):
    """The paths that are under no prefix."""

    @needs(Feature.VERSIONS)
    async def test_versions(self) -> None:
        """The versions of the specification are listed."""
        answer = self.succeeded(await self.client.get(paths.VERSIONS))
        self.assertTrue(answer["versions"])

    @needs(Feature.VERSIONS, Feature.STRICT_ERRORS)
    async def test_refresh_version(self) -> None:
        """Among them is one that has /refresh (v1.3), so that clients use it."""
        answer = self.succeeded(await self.client.get(paths.VERSIONS))
        modern = [name for name in answer["versions"] if name.startswith("v1.")]
        self.assertTrue(any(int(name.partition(".")[2]) >= 3 for name in modern), str(answer))

    @needs(Feature.HEALTH)
    async def test_health(self) -> None:
        """A healthy server says so to load balancers."""
        answer = await self.client.get(paths.HEALTH)
        self.assertEqual(answer.status, 200)

    @needs(Feature.HEALTH, Feature.STRICT_HTTP)
    async def test_head(self) -> None:
        """HEAD will do for load balancers."""
        for path in (paths.HEALTH, paths.VERSIONS, _LOGIN):
            answer = await self.client.send("HEAD", path)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.body, b"")


class CorsTests(ConformanceTestCase):
    """The headers that browsers need."""

    features = (Feature.STRICT_ERRORS,)

    def _assert_preflight(self, answer: Response, method: str) -> None:
        self.assertIn(answer.status, (200, 204), str(answer))
        self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")
        allowed = (answer.header("Access-Control-Allow-Methods") or "").upper()
        self.assertIn(method, [name.strip() for name in allowed.split(",")])
        headers = (answer.header("Access-Control-Allow-Headers") or "").lower()
        names = [name.strip() for name in headers.split(",")]
        for name in ("content-type", "authorization", "x-requested-with"):
            self.assertIn(name, names)

    @cases(*paths.ALL_METHODS)
    async def test_preflight(self, path: str) -> None:
        """OPTIONS {} lists what a browser may send."""
        for method in paths.ALL_METHODS[path]:
            headers = {
                "Origin": "https://app.example",
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization,content-type",
            }
            answer = await self.client.send("OPTIONS", path, headers=headers)
            self._assert_preflight(answer, method)

    @cases("/", "/_matrix/client/v3/nowhere", "/_matrix/client/v3/login/nowhere")
    async def test_unknown_path(self, path: str) -> None:
        """OPTIONS of a path that is not known ({}) carries the headers at least."""
        answer = await self.client.send("OPTIONS", path)
        self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")

    async def test_success(self) -> None:
        """A success carries the header."""
        for answer in (await self.client.login(), await self.client.get(paths.HEALTH)):
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")

    async def test_errors(self) -> None:
        """So do errors of every kind."""
        for answer in (
            await self.client.send("POST", _LOGIN, b"nonsense"),
            await self.client.refresh("no such token"),
            await self.client.tokenrefresh("no such token", "no such token"),
            await self.client.whoami(None),
            await self.client.get("/nowhere"),
            await self.client.send("DELETE", _LOGIN),
        ):
            self.assertTrue(answer.status >= 400)
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*", str(answer))


class UnknownPathTests(ConformanceTestCase):
    """Paths that are not known."""

    features = (Feature.STRICT_ERRORS,)

    @cases(
        *named(
            [
                ("root", "/"),
                ("nowhere", "/nowhere"),
                ("matrix", "/_matrix"),
                ("client", "/_matrix/client"),
                ("client slash", "/_matrix/client/"),
                ("prefix", "/_matrix/client/v3"),
                ("prefix slash", "/_matrix/client/v3/"),
                ("api", "/_matrix/client/api"),
                ("unknown prefix", "/_matrix/client/v4/login"),
                ("half a prefix", "/_matrix/client/api/login"),
                ("no prefix", "/login"),
                ("within login", "/_matrix/client/v3/login/nowhere"),
                ("within get_token", "/_matrix/client/v3/login/get_token/nowhere"),
                ("within refresh", "/_matrix/client/v3/refresh/nowhere"),
                ("account", "/_matrix/client/v3/account"),
                ("msc2918", "/_matrix/client/unstable/org.matrix.msc2918"),
                ("msc2918 login", "/_matrix/client/unstable/org.matrix.msc2918/login"),
                ("msc2918 in v3", "/_matrix/client/v3/org.matrix.msc2918/refresh"),
                ("doubled slash", "/_matrix/client//v3/login"),
                ("dots", "/_matrix/client/v3/../login"),
                ("capitals", "/_matrix/client/v3/LOGIN"),
                ("snowman", "/_matrix/client/v3/%E2%98%83"),
                ("not UTF-8", "/_matrix/client/v3/%ff"),
                ("NUL", "/_matrix/client/v3/login%00"),
                ("long", "/" + "x" * 4000),
                ("deep", "/x" * 1000),
                ("within versions", "/_matrix/client/versions/nowhere"),
                ("within health", "/health/nowhere"),
            ]
        )
    )
    async def test_unknown(self, path: Named) -> None:
        """An unknown path ({}) gets an error in JSON for any method."""
        connection = await self.connect()
        for method in ("GET", "POST", "PUT"):
            connection.send(wire.request(method, path.value, b"{}"))
            answers = await connection.answers((method, path.value))
            connection.received = b""
            self.assertEqual(len(answers), 1, "the server closed the connection")
            self.client.check(answers[0])
            self.refused(answers[0], 404, "M_UNRECOGNIZED")


class MethodTests(ConformanceTestCase):
    """Methods that a path does not take."""

    features = (Feature.STRICT_ERRORS,)

    @cases(*paths.ALL_METHODS)
    async def test_not_allowed(self, path: str) -> None:
        """A method that {} does not take gets an error in JSON."""
        allowed = paths.ALL_METHODS[path]
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            if method not in allowed:
                answer = await self.client.send(method, path)
                self.refused(answer, 405, "M_UNRECOGNIZED")

    @cases("BREW", "TRACE", "get", "PROPFIND", "CONNECT")
    async def test_odd_method(self, method: str) -> None:
        """A method that is not of this API ({}) gets an error in JSON."""
        connection = await self.connect()
        connection.send(wire.request(method, _LOGIN))
        answers = await connection.answers((method, _LOGIN))
        self.assertEqual(len(answers), 1, "the server closed the connection")
        self.client.check(answers[0])
        self.refused(answers[0], 405, "M_UNRECOGNIZED")

    async def test_head(self) -> None:
        """HEAD of a path that takes POST alone is not allowed."""
        answer = await self.client.send("HEAD", paths.at(paths.TOKENREFRESH))
        self.assertEqual(answer.status, 405)

    async def test_allow(self) -> None:
        """The answer lists the methods that are taken (RFC 9110, section 15.5.6)."""
        answer = await self.client.send("DELETE", _LOGIN)
        allowed = [name.strip() for name in (answer.header("Allow") or "").split(",")]
        self.assertIn("GET", allowed)
        self.assertIn("POST", allowed)


class ContentTypeTests(ConformanceTestCase):
    """The Content-Type of a request is ignored, because clients and curl send various ones."""

    features = (Feature.STRICT_HTTP,)

    @cases(
        *named(
            [
                ("none", None),
                ("JSON", "application/json"),
                ("JSON with charset", "application/json; charset=utf-8"),
                ("text", "text/plain"),
                ("form, as curl", "application/x-www-form-urlencoded"),
                ("multipart without boundary", "multipart/form-data"),
                ("multipart", "multipart/form-data; boundary=x"),
                ("nonsense", "?"),
                ("empty", ""),
            ]
        )
    )
    async def test_login(self, content_type: Named) -> None:
        """A login is understood with this Content-Type: {}."""
        account = self.target.account
        body = {"type": "m.login.password", "user": account.user, "password": account.password}
        headers = [] if content_type.value is None else [("Content-Type", content_type.value)]
        connection = await self.connect()
        connection.send(wire.request("POST", _LOGIN, json.dumps(body).encode(), headers))
        answers = await connection.answers(("POST", _LOGIN))
        self.assertEqual(len(answers), 1, "the server closed the connection")
        self.client.check(answers[0])
        self.succeeded(answers[0])

    async def test_answers(self) -> None:
        """Successes and errors are JSON, and say so."""
        for answer in (await self.client.login(), await self.client.get("/nowhere")):
            self.assertEqual(answer.media_type, "application/json")


class BodySizeTests(ConformanceTestCase):
    """Bodies up to 64 KiB are read; larger ones are rejected before their end."""

    features = (Feature.STRICT_HTTP,)

    def _login(self, size: int) -> bytes:
        account = self.target.account
        body = {"type": "m.login.password", "user": account.user, "password": account.password}
        return json.dumps(body).encode().ljust(size)

    async def _answer(self, connection: wire.Wire, method: str = "POST") -> Response:
        answers = await connection.answers((method, _LOGIN))
        self.assertEqual(len(answers), 1, f"the server closed after {connection.received!r}")
        self.client.check(answers[0])
        return answers[0]

    async def test_largest(self) -> None:
        """A body of 64 KiB is read."""
        answer = await self.client.send("POST", _LOGIN, self._login(_LIMIT), _JSON)
        self.succeeded(answer)

    async def test_largest_chunked(self) -> None:
        """A body of 64 KiB in chunks is read."""
        connection = await self.connect()
        connection.send(wire.request("POST", _LOGIN, headers=[("Transfer-Encoding", "chunked")]))
        body = self._login(_LIMIT)
        for at in range(0, _LIMIT, 4096):
            connection.send(b"1000\r\n" + body[at : at + 4096] + b"\r\n")
        connection.send(b"0\r\n\r\n")
        self.succeeded(await self._answer(connection))

    async def test_one_more(self) -> None:
        """A body of one byte more is too large."""
        connection = await self.connect()
        connection.send(wire.request("POST", _LOGIN, self._login(_LIMIT + 1)))
        self.refused(await self._answer(connection), 413, "M_TOO_LARGE")

    @cases(*(path for path, methods in paths.METHODS.items() if "POST" in methods))
    async def test_announced(self, path: str) -> None:
        """A larger Content-Length is rejected by /{} before any of the body is sent."""
        connection = await self.connect()
        connection.send(
            wire.request("POST", paths.at(path), headers=[("Content-Length", str(_LIMIT + 1))])
        )
        (answer,) = await connection.answers(("POST", paths.at(path)))
        self.client.check(answer)
        self.refused(answer, 413, "M_TOO_LARGE")

    async def test_announced_huge(self) -> None:
        """An absurdly large Content-Length is rejected."""
        for length in ("10000000000", "9" * 18):
            connection = await self.connect()
            connection.send(wire.request("POST", _LOGIN, headers=[("Content-Length", length)]))
            self.refused(await self._answer(connection), 413, "M_TOO_LARGE")

    @cases(*(path for path, methods in paths.METHODS.items() if "POST" in methods))
    async def test_chunked(self, path: str) -> None:
        """Chunks that add up to more are rejected by /{} before the last one is sent."""
        connection = await self.connect()
        connection.send(
            wire.request("POST", paths.at(path), headers=[("Transfer-Encoding", "chunked")])
        )
        for _ in range(17):
            connection.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
        answers = await connection.answers(("POST", paths.at(path)))
        self.assertEqual(len(answers), 1, "the server closed the connection")
        self.client.check(answers[0])
        self.refused(answers[0], 413, "M_TOO_LARGE")

    async def test_one_large_chunk(self) -> None:
        """So is one chunk that alone is too large."""
        connection = await self.connect()
        connection.send(wire.request("POST", _LOGIN, headers=[("Transfer-Encoding", "chunked")]))
        connection.send(b"20000\r\n" + b" " * 0x11000)
        self.refused(await self._answer(connection), 413, "M_TOO_LARGE")

    async def test_sent_whole(self) -> None:
        """A client that sends a megabyte before it reads gets the answer."""
        connection = await self.connect()
        connection.send(wire.request("POST", _LOGIN, b" " * 1_000_000))
        self.refused(await self._answer(connection), 413, "M_TOO_LARGE")

    async def test_expect_continue(self) -> None:
        """A client that waits for 100 Continue gets it, and logs in."""
        body = self._login(200)
        connection = await self.connect()
        connection.send(
            wire.request(
                "POST",
                _LOGIN,
                headers=[("Expect", "100-continue"), ("Content-Length", str(len(body)))],
            )
        )
        await connection.data()
        self.assertTrue(connection.received.startswith(b"HTTP/1.1 100 "), connection.received)
        connection.send(body)
        self.succeeded(await self._answer(connection))


class ConnectionTests(ConformanceTestCase):
    """Unusual uses of connections."""

    features = (Feature.STRICT_HTTP,)

    def _login(self) -> bytes:
        account = self.target.account
        body = {"type": "m.login.password", "user": account.user, "password": account.password}
        return wire.request("POST", _LOGIN, json.dumps(body).encode())

    async def test_pipelined(self) -> None:
        """Requests that come in one segment are answered in order, the slow one first."""
        connection = await self.connect()
        connection.send(self._login() + wire.request("GET", paths.VERSIONS))
        answers = await connection.answers(("POST", _LOGIN), ("GET", paths.VERSIONS))
        self.assertEqual(len(answers), 2, connection.received)
        for answer in answers:
            self.client.check(answer)
        self.assertIn("access_token", answers[0].json)
        self.assertIn("versions", answers[1].json)

    async def test_pipelined_many(self) -> None:
        """So are many, errors among them."""
        requests = [
            ("POST", _LOGIN, b"nonsense"),
            ("GET", "/nowhere", None),
            ("GET", paths.VERSIONS, None),
            ("DELETE", _LOGIN, None),
            ("POST", paths.at(paths.REFRESH), b'{"refresh_token": "x"}'),
            ("GET", _LOGIN, None),
        ] * 3
        connection = await self.connect()
        connection.send(b"".join(wire.request(*one) for one in requests))
        answers = await connection.answers(*((method, path) for method, path, _ in requests))
        self.assertEqual([answer.status for answer in answers], [400, 404, 200, 405, 401, 200] * 3)
        for answer in answers:
            self.client.check(answer)

    async def test_byte_by_byte(self) -> None:
        """A request may arrive byte by byte."""
        connection = await self.connect()
        for byte in self._login():
            connection.send(bytes([byte]))
        (answer,) = await connection.answers(("POST", _LOGIN))
        self.succeeded(answer)

    async def test_kept_alive(self) -> None:
        """A connection serves one request after another, errors or not."""
        connection = await self.connect()
        for _ in range(3):
            for request, key in (
                (self._login(), ("POST", _LOGIN)),
                (wire.request("POST", _LOGIN, b"nonsense"), ("POST", _LOGIN)),
                (wire.request("GET", "/nowhere"), ("GET", "/nowhere")),
            ):
                connection.send(request)
                self.assertEqual(len(await connection.answers(key)), 1)
                connection.received = b""

    async def test_asked_to_close(self) -> None:
        """A connection is closed when the client asks for it."""
        connection = await self.connect()
        connection.send(wire.request("GET", paths.VERSIONS, headers=[("Connection", "close")]))
        (answer,) = await connection.answers(("GET", paths.VERSIONS))
        self.assertEqual(answer.status, 200)
        await connection.lost()

    async def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 is served."""
        connection = await self.connect()
        connection.send(f"GET {paths.HEALTH} HTTP/1.0\r\n\r\n".encode())
        await connection.lost()
        self.assertTrue(connection.received.split(b" ")[1] == b"200", connection.received)

    @cases(
        *named(
            [
                ("in the line", b"POST /_matrix/cli"),
                ("in the headers", b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: loc"),
                (
                    "before the body",
                    wire.request("POST", _LOGIN, headers=[("Content-Length", "9")]),
                ),
                (
                    "in the body",
                    wire.request("POST", _LOGIN, headers=[("Content-Length", "999")]) + b'{"type"',
                ),
                (
                    "in a chunk",
                    wire.request("POST", _LOGIN, headers=[("Transfer-Encoding", "chunked")])
                    + b"10\r\n{",
                ),
            ]
        )
    )
    async def test_disconnect(self, sent: Named) -> None:
        """A client that disconnects midway ({}) does not affect the server."""
        for abrupt in (False, True):
            connection = await self.connect()
            connection.send(sent.value)
            await (connection.abort() if abrupt else connection.close())
        self.succeeded(await self.client.login())

    async def test_disconnect_before_answer(self) -> None:
        """So does a client that leaves while its password is being checked."""
        for abrupt in (False, True) * 5:
            connection = await self.connect()
            connection.send(self._login())
            await (connection.abort() if abrupt else connection.close())
        self.succeeded(await self.client.login())

    async def test_disconnect_pipelined(self) -> None:
        """So does a client that leaves with many requests outstanding."""
        for abrupt in (False, True):
            connection = await self.connect()
            connection.send(self._login() * 20)
            await (connection.abort() if abrupt else connection.close())
        self.succeeded(await self.client.login())

    @needs(Feature.REFRESH_LENIENT)
    async def test_disconnect_refresh(self) -> None:
        """A refresh whose response was not read can be repeated."""
        for abrupt in (False, True) * 3:
            login = await self.logged_in()
            body = json.dumps({"refresh_token": login["refresh_token"]}).encode()
            connection = await self.connect()
            connection.send(wire.request("POST", paths.at(paths.REFRESH), body))
            await (connection.abort() if abrupt else connection.close())
            pair = self.succeeded(await self.client.refresh(login["refresh_token"]))
            await self.assert_alive(pair["access_token"])

    async def test_no_http(self) -> None:
        """Bytes that are no HTTP are rejected, and the server goes on."""
        for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, b"nonsense\r\n\r\n"):
            connection = await self.connect()
            connection.send(nonsense + b"\r\n\r\n")
            await connection.close()
        self.succeeded(await self.client.login())

    async def test_half_closed(self) -> None:
        """A client that sends no more after its request gets the answer or is cut off."""
        connection = await self.connect()
        connection.send(self._login())
        connection.end()
        await connection.lost()
        self.succeeded(await self.client.login())
