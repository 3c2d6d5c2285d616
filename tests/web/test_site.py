"""Tests for the HTTP server around the tree, byte by byte over in-memory transports."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http
from zope.interface import directlyProvides

from synapse_login_module.model import UserId, UserIdentifier
from synapse_login_module.testing import SERVER_NAME
from synapse_login_module.web.client import Clients
from synapse_login_module.web.requests import MAX_BODY
from synapse_login_module.web.site import (
    DRAIN_TIMEOUT,
    IDLE_TIMEOUT,
    LEAVE_TIMEOUT,
    RECEIVE_TIMEOUT,
    REQUEST_TIMEOUT,
    LoginSite,
    SiteLimits,
)
from tests.support.accounts import ALICE, ALICE_PASSWORD
from tests.support.rig import Rig
from tests.support.site import MemoryWire, get, post, responses
from tests.support.web import Reply

LOGIN = "/_matrix/client/v3/login"
LOGOUT = "/_matrix/client/v3/logout"
WHOAMI = "/_matrix/client/v3/account/whoami"
GOOD = json.dumps({"type": "m.login.password", "user": "alice", "password": ALICE_PASSWORD}).encode(
    "ascii"
)


def head(path: str, *headers: bytes) -> bytes:
    """The bytes of a POST up to the body."""
    start = b"POST %b HTTP/1.1" % path.encode("ascii")
    return b"\r\n".join([start, b"Host: login.example", *headers, b"", b""])


def chunk(data: bytes) -> bytes:
    """Encode one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class SiteCase(SynchronousTestCase):
    """A site on a clock that the test advances."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.clock = Clock()
        self.site = LoginSite(self.rig.root, self.clock)

    def connect(self) -> MemoryWire:
        """Open a connection."""
        return MemoryWire(self.site)

    def answers(self, wire: MemoryWire) -> list[Reply]:
        """Return the responses since the last call."""
        return responses(wire.received())

    def answer(self, wire: MemoryWire) -> Reply:
        """Return the only response since the last call."""
        (reply,) = self.answers(wire)
        return reply

    def stall(self) -> list[Deferred[Any]]:
        """Delay all password checks; each adds its Deferred to the list that this returns."""
        waiting: list[Deferred[Any]] = []
        self.rig.provider.only = {"authenticate"}
        self.rig.provider.stalled = waiting
        return waiting

    def assert_too_large(self, wire: MemoryWire) -> None:
        """Check that the client got a 413."""
        self.assert_refused(wire, 413, "M_TOO_LARGE")

    def assert_refused(self, wire: MemoryWire, status: int, errcode: str) -> None:
        """Check that the client got one whole error response, and that the server has closed its
        side.
        """
        reply = self.answer(wire)
        self.assertEqual((reply.status, reply.errcode), (status, errcode))
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertEqual(reply.header("Connection"), "close")
        self.assertEqual(reply.header("Access-Control-Allow-Origin"), "*")
        self.assertEqual(reply.header("Cache-Control"), "no-store")
        self.assertTrue(wire.transport.write_closed)

    def turns(self, count: int = 1) -> None:
        """Run the calls that are due now, but not those that they schedule."""
        for _ in range(count):
            for call in [each for each in self.clock.calls if each.time <= self.clock.seconds()]:
                self.clock.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


class BodyLimitTests(SiteCase):
    """The limit on the size of a body."""

    def padded(self, size: int) -> bytes:
        """Make a valid login of this many bytes."""
        return GOOD + b" " * (size - len(GOOD))

    def test_length_too_large(self) -> None:
        """A Content-Length over 64 KiB gets a 413 before any of the body has arrived."""
        for length in (MAX_BODY + 1, 10**7, 10**30):
            wire = self.connect()
            wire.send(head(LOGIN, b"Content-Length: %d" % length))
            self.assert_too_large(wire)
            wire.vanish()

    def test_no_continue(self) -> None:
        """``Expect: 100-continue`` with a body that is too large gets no ``100 Continue``."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Expect: 100-continue", b"Content-Length: %d" % (MAX_BODY + 1)))
        self.assert_too_large(wire)
        wire.vanish()

    def test_continue(self) -> None:
        """``Expect: 100-continue`` with a body that fits gets ``100 Continue``."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Expect: 100-continue", b"Content-Length: %d" % len(GOOD)))
        self.assertEqual(wire.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.send(GOOD)
        self.assertEqual(self.answer(wire).status, 200)

    def test_exactly_the_limit(self) -> None:
        """64 KiB to the byte are taken, with a length or in chunks."""
        body = self.padded(MAX_BODY)
        wire = self.connect()
        wire.send(post(LOGIN, body))
        self.assertEqual(self.answer(wire).status, 200)
        wire.send(head(LOGIN, b"Transfer-Encoding: chunked"))
        for start in range(0, MAX_BODY, 1000):
            wire.send(chunk(body[start : start + 1000]))
        self.assertEqual(self.answers(wire), [])
        wire.send(chunk(b""))
        self.assertEqual(self.answer(wire).status, 200)

    def test_chunks_too_large(self) -> None:
        """Chunks over 64 KiB in all are answered 413 as soon as they are over it."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Transfer-Encoding: chunked"))
        wire.send(chunk(self.padded(MAX_BODY)))
        self.assertEqual(wire.received(), b"")
        wire.send(chunk(b" "))
        self.assert_too_large(wire)
        wire.send(chunk(b""))
        self.assertEqual(wire.received(), b"")
        self.assertEqual(self.rig.audit.counts.total(), 0)

    def test_reaches_no_handler(self) -> None:
        """A body that is too large reaches no handler, even if all of it arrives."""
        wire = self.connect()
        wire.send(post(LOGIN, self.padded(MAX_BODY + 1)))
        self.assert_too_large(wire)
        self.assertEqual(self.rig.audit.counts.total(), 0)

    def test_rest_is_read(self) -> None:
        """The rest of the body is read for a while, so that a reset does not lose the response."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: 500000"))
        self.assert_too_large(wire)
        wire.send(b"x" * 500_000)
        self.assertFalse(wire.settle())
        wire.send(get("/health"))
        self.assertEqual(wire.received(), b"")

    def test_tls(self) -> None:
        """Under TLS, the server's side is not closed on its own, because that would cut off the
        response.
        """
        wire = self.connect()
        directlyProvides(wire.transport, ISSLTransport)
        wire.send(head(LOGIN, b"Content-Length: 500000"))
        self.assertFalse(wire.transport.write_closed)
        self.assertEqual(self.answer(wire).status, 413)
        self.assertTrue(wire.settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rest_is_not_read_for_ever(self) -> None:
        """After another megabyte the connection is aborted."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: 100000000"))
        self.assert_too_large(wire)
        for _ in range(20):
            wire.send(b"x" * 100_000)
        self.assertTrue(wire.transport.disconnected)
        self.assertTrue(wire.settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rest_is_not_waited_for_for_ever(self) -> None:
        """After a few seconds the connection is aborted, even if the client still sends slowly."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: 100000000"))
        self.assert_too_large(wire)
        for _ in range(10):
            wire.send(b"x")
            self.clock.advance(1)
        self.assertTrue(wire.transport.disconnected)
        self.assertTrue(wire.settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone_while_it_lingers(self) -> None:
        """A client that disconnects after its 413 leaves no timer."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: 100000000"))
        wire.vanish()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_any_path(self) -> None:
        """The limit holds on every path and for every method."""
        for method, path in ((b"PUT", b"/nowhere"), (b"GET", b"/health"), (b"POST", b"/")):
            wire = self.connect()
            wire.send(
                b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                % (method, path, MAX_BODY + 1)
            )
            self.assert_too_large(wire)
            wire.vanish()

    def test_others_go_on(self) -> None:
        """A body that is too large does not affect other connections."""
        large, other = self.connect(), self.connect()
        large.send(head(LOGIN, b"Content-Length: 100000000"))
        other.send(post(LOGIN, GOOD))
        self.assertEqual(self.answer(other).status, 200)
        large.vanish()


class FormTests(SiteCase):
    """Bodies are parsed as JSON under every content type."""

    def test_json_called_a_form(self) -> None:
        """JSON is read as JSON under every content type, those of forms included."""
        for content_type in (
            b"application/x-www-form-urlencoded",
            b"multipart/form-data",
            b"multipart/form-data; boundary=x",
            b"multipart/form-data; boundary=" + b"x" * 500,
        ):
            wire = self.connect()
            wire.send(post(LOGIN, GOOD, [b"Content-Type: " + content_type]))
            self.assertEqual(self.answer(wire).status, 200, content_type)

    def test_form(self) -> None:
        """A form is no JSON, and no token is found in one."""
        body = b"access_token=x&user=alice"
        content_type = b"Content-Type: application/x-www-form-urlencoded"
        wire = self.connect()
        wire.send(post(LOGIN, body, [content_type]))
        self.assertEqual(self.answer(wire).errcode, "M_NOT_JSON")
        wire.send(post(LOGOUT, body, [content_type]))
        self.assertEqual(self.answer(wire).errcode, "M_MISSING_TOKEN")


class PipelineTests(SiteCase):
    """Several requests on one connection."""

    def test_one_after_the_other(self) -> None:
        """A connection is kept for the next request."""
        wire = self.connect()
        for _ in range(3):
            wire.send(get("/health"))
            self.assertEqual(self.answer(wire).status, 200)
        self.assertFalse(wire.settle())

    def test_answered_in_order(self) -> None:
        """Requests sent at once are answered in their order, though a later one is quicker."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD) + get("/health") + get("/nowhere") + post(LOGIN, b"x"))
        self.assertEqual((len(waiting), wire.received()), (1, b""))
        waiting[0].callback(None)
        self.turns(3)
        statuses = [reply.status for reply in self.answers(wire)]
        self.assertEqual(statuses, [403, 200, 404, 400])

    def test_every_cut(self) -> None:
        """Two requests are parsed, wherever the stream is split."""
        data = post(LOGIN, GOOD) + get("/health")
        for cut in range(1, len(data)):
            wire = self.connect()
            wire.send(data[:cut])
            wire.send(data[cut:])
            self.turns()
            statuses = [reply.status for reply in self.answers(wire)]
            self.assertEqual(statuses, [200, 200], cut)

    def test_large_after_good(self) -> None:
        """A body that is too large is refused after the request before it is answered."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD) + head(LOGIN, b"Content-Length: 100000"))
        self.assertEqual(wire.received(), b"")
        waiting[0].callback(None)
        self.turns()
        self.assertEqual([reply.status for reply in self.answers(wire)], [403, 413])
        wire.vanish()

    def test_close(self) -> None:
        """With ``Connection: close``, or over HTTP/1.0, the connection is closed after the
        response.
        """
        for request in (
            get("/health", [b"Connection: close"]),
            b"GET /health HTTP/1.0\r\n\r\n",
        ):
            wire = self.connect()
            wire.send(request)
            self.assertEqual(self.answer(wire).status, 200)
            self.assertTrue(wire.settle())

    def test_disconnect_with_more_to_come(self) -> None:
        """After a client has disconnected, its later requests are not handled."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD) * 3)
        wire.vanish()
        self.assertEqual(len(waiting), 1)
        self.assertEqual(self.rig.provider.cancelled, ["authenticate"])


class NonsenseTests(SiteCase):
    """Data that is not HTTP, and unusual HTTP."""

    def test_no_http(self) -> None:
        """Data that is not HTTP gets a 400, and the connection is closed. The site goes on."""
        for data in (
            b"nonsense\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/9.9.9\r\nno colon here\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"
            b"\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ):
            wire = self.connect()
            wire.send(data)
            self.assert_refused(wire, 400, "M_UNKNOWN")
            self.assertEqual(self.flushLoggedErrors(), [])
        wire = self.connect()
        wire.send(get("/health"))
        self.assertEqual(self.answer(wire).status, 200)

    def test_headers_too_large(self) -> None:
        """Headers that are too long, too many or too much in all are answered 431."""
        for headers in (
            b"X: " + b"a" * 20_000,
            b"\r\n".join([b"X: " + b"a" * 1000] * 20),
            b"\r\n".join([b"X: a"] * 600),
        ):
            for data in (headers + b"\r\n\r\n", headers):
                wire = self.connect()
                wire.send(b"GET /health HTTP/1.1\r\n" + data)
                self.assert_refused(wire, 431, "M_TOO_LARGE")

    def test_target_too_long(self) -> None:
        """A request line that is too long is answered 414."""
        for data in (b"GET /" + b"a" * 20_000, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n"):
            wire = self.connect()
            wire.send(data)
            self.assert_refused(wire, 414, "M_TOO_LARGE")

    def test_absolute_targets(self) -> None:
        """Targets with scheme and host are those without (RFC 9112, section 3.2.2)."""
        for target, status in (
            (b"http://login.example/_matrix/client/versions", 200),
            (b"HTTPS://login.example:8448/_matrix/client/v3/login?access_token=x", 200),
            (b"http://[::1]:8008/health", 200),
            (b"http://login.example", 404),
            (b"http://login.example?x", 404),
            (b"ftp://login.example/health", 404),
            (b"http:/health", 404),
            (b"x/health", 404),
        ):
            wire = self.connect()
            wire.send(b"GET %b HTTP/1.1\r\nHost: login.example\r\n\r\n" % target)
            self.assertEqual(self.answer(wire).status, status, target)

    def test_length_of_many_digits(self) -> None:
        """A Content-Length too long to be a number is refused as any other nonsense is."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: " + b"9" * 5000))
        self.assertIn(wire.received()[:13], (b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))

    def test_methods(self) -> None:
        """Methods are case-sensitive. Unknown ones get a 405."""
        for method in (b"post", b"BREW", b"CONNECT", b"P" * 200):
            wire = self.connect()
            wire.send(b"%b %b HTTP/1.1\r\nHost: x\r\n\r\n" % (method, LOGIN.encode("ascii")))
            reply = self.answer(wire)
            self.assertEqual((reply.status, reply.errcode), (405, "M_UNRECOGNIZED"))

    def test_odd_targets(self) -> None:
        """Targets that are no paths of ours are JSON 404s."""
        for target in (b"/%", b"/%ff%fe", b"//", b"http://x/", b"x", b"health", b"xhealth"):
            wire = self.connect()
            wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            reply = self.answer(wire)
            self.assertEqual((reply.status, reply.errcode), (404, "M_UNRECOGNIZED"), target)

    def test_escaped_targets(self) -> None:
        """A path may be escaped, but for what stands between its parts."""
        for target, status in ((b"/%68ealth", 200), (b"/_matrix%2Fclient/v3/login", 404)):
            wire = self.connect()
            wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            self.assertEqual(self.answer(wire).status, status, target)

    def test_older_version(self) -> None:
        """HTTP/1.0 is answered, and the client told that the connection ends with that."""
        wire = self.connect()
        wire.send(b"GET /health HTTP/1.0\r\n\r\n")
        reply = self.answer(wire)
        self.assertEqual((reply.status, reply.header("Connection")), (200, "close"))
        self.assertTrue(wire.transport.disconnecting)

    def test_date(self) -> None:
        """Every response has a ``Date`` header and no ``Server`` header."""
        for request in (b"GET /health HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"):
            wire = self.connect()
            wire.send(request)
            reply = self.answer(wire)
            self.assertTrue((reply.header("Date") or "").endswith(" GMT"), request)
            self.assertIsNone(reply.header("Server"))

    def test_the_server_as_a_target(self) -> None:
        """``OPTIONS *`` succeeds. Other methods get an error in JSON there."""
        wire = self.connect()
        wire.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(self.answer(wire).status, (200, 204))
        wire.send(b"GET * HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = self.answer(wire)
        self.assertIn(reply.status, (400, 404, 405))
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertEqual(reply.errcode, "M_UNRECOGNIZED")

    def test_peers(self) -> None:
        """Peers of every kind are served, those without an address included."""
        for peer in (
            IPv6Address("TCP", "2001:db8::1", 50000),
            UNIXAddress(None),
            UNIXAddress(b"/run/proxy.sock"),
        ):
            wire = MemoryWire(self.site, peer)
            wire.send(post(LOGIN, GOOD))
            self.assertEqual(self.answer(wire).status, 200)


class NegotiationTests(SiteCase):
    """The protocols that are offered over TLS."""

    def test_no_http2(self) -> None:
        """HTTP/2 is not offered, even where Twisted supports it."""
        self.patch(http, "H2_ENABLED", True)  # as where the package h2 is installed
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])


class LogTests(SiteCase):
    """The lines that the site itself logs."""

    def test_no_request_lines(self) -> None:
        """No path, query or header of a request is logged."""
        marks = ("marker-path", "marker-query", "marker-agent", "marker-token")
        self.site.noisy = True  # Synapse, once imported, has all factories quiet
        with capturedLogs() as events:
            self.site.doStart()
            self.addCleanup(self.site.doStop)
            wire = self.connect()
            for method in (b"GET", b"POST", b"OPTIONS"):
                wire.send(
                    b"%b /marker-path?access_token=marker-query HTTP/1.1\r\nHost: x\r\n"
                    b"User-Agent: marker-agent\r\nReferer: /marker-path\r\n"
                    b"Authorization: Bearer marker-token\r\n\r\n" % method
                )
            wire.send(get(f"{WHOAMI}?access_token=marker-query"))
            self.assertEqual(len(self.answers(wire)), 4)
            self.clock.advance(IDLE_TIMEOUT)
            wire.settle()
        self.assertGreater(len(events), 0)
        for event in events:
            for mark in marks:
                self.assertNotIn(mark, formatEvent(event))


class TimeoutTests(SiteCase):
    """The timeouts for clients."""

    def test_no_request(self) -> None:
        """A connection without a request is closed."""
        wire = self.connect()
        self.clock.advance(IDLE_TIMEOUT - 1)
        self.assertFalse(wire.settle())
        self.clock.advance(1)
        self.assertTrue(wire.settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whole_request(self) -> None:
        """A request that arrives in whole has no timeout to start; what follows it has one."""
        wire = self.connect()
        begun: list[object] = []
        add = self.site.receiving.add

        def note(channel: Any) -> None:
            begun.append(channel)
            add(channel)

        self.patch(self.site.receiving, "add", note)
        whole = get(WHOAMI)
        wire.send(whole)
        self.assertEqual((len(self.answers(wire)), begun), (1, []))
        wire.send(whole[:5])
        self.assertEqual(begun, [wire.channel])
        wire.send(whole[5:] + whole[:5])
        self.clock.advance(0)
        self.assertIn(wire.channel, self.site.receiving)

    def test_half_a_request(self) -> None:
        """A client that stops in the middle of a request gets a 408."""
        data = post(LOGIN, GOOD)
        for cut in (1, 10, len(data) - len(GOOD), len(data) - 1):
            wire = self.connect()
            wire.send(data[:cut])
            self.clock.advance(REQUEST_TIMEOUT)
            self.assert_refused(wire, 408, "M_UNKNOWN")
            wire.vanish()
        self.assertEqual(self.rig.audit.counts.total(), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_trickle(self) -> None:
        """A request that trickles in gets a 408 too, in its head or its body."""
        data = post(LOGIN, GOOD)
        for start in (0, len(data) - len(GOOD)):
            wire = self.connect()
            wire.send(data[:start])
            for at in range(start, start + int(REQUEST_TIMEOUT)):
                self.assertEqual(wire.received(), b"")
                wire.send(data[at : at + 1])
                self.clock.advance(1)
            self.assert_refused(wire, 408, "M_UNKNOWN")
            wire.vanish()

    def test_time_is_for_each_request(self) -> None:
        """Each request has its own time, from its first byte."""
        wire = self.connect()
        for _ in range(3):
            self.clock.advance(IDLE_TIMEOUT - 1)
            wire.send(b"GET /health ")
            self.clock.advance(REQUEST_TIMEOUT - 1)
            wire.send(b"HTTP/1.1\r\n\r\n")
            self.assertEqual(self.answer(wire).status, 200)

    def test_empty_lines(self) -> None:
        """An empty line is no request: the connection is closed without an answer to it."""
        wire = self.connect()
        wire.send(b"\r\n")
        self.clock.advance(IDLE_TIMEOUT)
        self.assertTrue(wire.settle())
        self.assertEqual(wire.received(), b"")

    def test_after_an_answer(self) -> None:
        """A connection that is idle after a response is closed."""
        wire = self.connect()
        self.clock.advance(IDLE_TIMEOUT - 1)
        wire.send(get("/health"))
        self.assertEqual(self.answer(wire).status, 200)
        self.clock.advance(IDLE_TIMEOUT - 1)
        self.assertFalse(wire.settle())
        self.clock.advance(1)
        self.assertTrue(wire.settle())

    def test_not_while_it_waits(self) -> None:
        """A connection that waits for a slow response is not closed."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD))
        self.clock.advance(IDLE_TIMEOUT * 10)
        self.assertFalse(wire.settle())
        waiting[0].callback(None)
        self.assertEqual(self.answer(wire).status, 403)

    def test_each_in_its_turn(self) -> None:
        """Each connection is closed at its own time."""
        wires = []
        for _ in range(3):
            wires.append(self.connect())
            self.clock.advance(1)
        self.clock.advance(IDLE_TIMEOUT - 4)
        for closed in range(3):
            self.assertEqual([wire.settle() for wire in wires], [n < closed for n in range(3)])
            self.clock.advance(1)
        self.assertTrue(wires[-1].settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_will_not_close(self) -> None:
        """If the client does not close its side, the connection is aborted."""
        wire = self.connect()
        self.clock.advance(IDLE_TIMEOUT)
        self.assertFalse(wire.transport.disconnected)
        self.clock.advance(LEAVE_TIMEOUT)
        self.assertTrue(wire.transport.disconnected)

    def test_last_answer_not_read(self) -> None:
        """The same holds if the client does not read a response to ``Connection: close``."""
        wire = self.connect()
        wire.send(get("/health", [b"Connection: close"]))
        self.clock.advance(LEAVE_TIMEOUT)
        self.assertTrue(wire.transport.disconnected)


class UnreadTests(SiteCase):
    """Clients that send without pause, and do not read their responses."""

    def test_one_a_turn(self) -> None:
        """Of many pipelined requests, one is handled in each turn of the reactor."""
        for request, status in ((get("/health"), 200), (post(LOGIN, b"x"), 400)):
            wire = self.connect()
            wire.send(request * 100)
            for _ in range(100):
                self.assertEqual(self.answer(wire).status, status)
                self.turns()
            self.assertEqual(self.answers(wire), [])
            self.assertFalse(wire.settle())

    def test_answered_before_more_is_read(self) -> None:
        """Nothing is read while a complete request has no response."""
        wire = self.connect()
        wire.send(get("/health") * 100)
        while wire.received():
            read_from = wire.read_from
            self.turns()
            self.assertEqual(read_from, wire.transport.value() == b"")

    def test_others_have_their_turn(self) -> None:
        """Requests of other connections are handled in between."""
        greedy, other = self.connect(), self.connect()
        greedy.send(get("/health") * 100)
        other.send(get("/health"))
        self.assertEqual((len(self.answers(greedy)), len(self.answers(other))), (1, 1))

    def test_paused(self) -> None:
        """While the client does not read, its requests are not handled, and nothing is read from
        it.
        """
        wire = self.connect()
        for _ in range(200):
            if wire.read_from:
                wire.send(get("/health") * 10)
            self.turns(10)
        self.assertFalse(wire.read_from)
        unread = len(wire.transport.value())
        self.assertGreater(unread, wire.transport.full_at)
        self.assertLess(unread, wire.transport.full_at + 1000)

    def test_reads_at_last(self) -> None:
        """A client that reads before the timeout gets every response, and may go on."""
        wire = self.connect()
        sent, answered = 0, 0
        while wire.read_from:
            wire.send(get("/health"))
            sent += 1
            self.turns()
        wire.send(get("/nowhere") * 3)
        while answers := self.answers(wire):
            answered += len(answers)
            self.turns()
        self.assertEqual(answered, sent + 3)
        self.assertTrue(wire.read_from)
        wire.send(get("/health"))
        self.assertEqual(self.answer(wire).status, 200)

    def test_never_reads(self) -> None:
        """After a timeout without reading, the connection is aborted, and no timer is left."""
        wire = self.connect()
        wire.transport.full_at = 0
        wire.send(get("/health") * 2)
        self.turns()
        self.assertFalse(wire.read_from)
        self.clock.advance(REQUEST_TIMEOUT - 1)
        self.assertFalse(wire.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(wire.transport.disconnected)
        wire.vanish()
        self.assertEqual(len(self.answers(wire)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone_before_its_turn(self) -> None:
        """After a client has disconnected, its pipelined requests are not handled."""
        wire = self.connect()
        wire.send(get("/health") * 3)
        self.answer(wire)
        wire.vanish()
        self.turns()
        self.assertEqual(wire.received(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ConnectionLimitTests(SiteCase):
    """The limit on open connections."""

    def setUp(self) -> None:
        super().setUp()
        self.limit(connections=3)

    def limit(self, **limits: Any) -> None:
        """Make a site with these limits."""
        trusted = [ip_network("127.0.0.0/8")]
        self.site = LoginSite(
            self.rig.root, self.clock, SiteLimits(**limits), Clients(trusted).network_of
        )

    def connect(self, peer: str = "203.0.113.9") -> MemoryWire:
        """Open a connection, a moment after the last."""
        self.clock.advance(0.001)
        kind = IPv6Address if ":" in peer else IPv4Address
        return MemoryWire(self.site, kind("TCP", peer, 50000))

    def cut(self, *wires: MemoryWire) -> list[bool]:
        """Return which connections were aborted."""
        return [bool(wire.transport.disconnected) for wire in wires]

    def test_longest_idle(self) -> None:
        """Beyond the limit, the connection that was idle the longest is aborted."""
        first, second, third = (self.connect() for _ in range(3))
        self.clock.advance(1)
        first.send(get("/health"))
        self.connect()
        self.assertEqual(self.cut(first, second, third), [False, True, False])

    def test_longest_trickle(self) -> None:
        """A request that is still arriving counts as idle since its first byte."""
        first, second, third = (self.connect() for _ in range(3))
        second.send(b"GET ")
        first.send(get("/health"))
        third.send(get("/health"))
        self.connect()
        self.assertEqual(self.cut(first, second, third), [False, True, False])

    def test_trickle_gains_nothing(self) -> None:
        """Another byte of a request does not change that."""
        dripping, *others = (self.connect() for _ in range(3))
        for byte in b"GET /hea":
            self.clock.advance(1)
            dripping.send(bytes([byte]))
        for other in others:
            other.send(get("/health"))
        self.connect()
        self.assertEqual(self.cut(dripping, *others), [True, False, False])

    def test_not_read(self) -> None:
        """A connection whose responses are not read counts as idle."""
        greedy, *others = (self.connect() for _ in range(3))
        greedy.transport.full_at = 0
        greedy.send(get("/health"))
        for other in others:
            other.send(get("/health"))
        self.connect()
        self.assertEqual(self.cut(greedy, *others), [True, False, False])

    def test_answers_go_out(self) -> None:
        """A connection that waits for a response is kept. If all do, the new one is aborted."""
        waiting = self.stall()
        wires = [self.connect() for _ in range(3)]
        for wire in wires:
            wire.send(post(LOGIN, GOOD))
        newcomer = self.connect()
        self.assertEqual(self.cut(newcomer, *wires), [True, False, False, False])
        for each in waiting:
            each.callback(None)
        self.assertEqual([self.answer(wire).status for wire in wires], [403] * 3)

    def test_flood(self) -> None:
        """In a flood of connections, no more than the limit stay open."""
        wires = [self.connect() for _ in range(100)]
        self.assertEqual(self.cut(*wires), [True] * 97 + [False] * 3)
        for wire in wires:
            wire.vanish()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_room_again(self) -> None:
        """A connection that was closed makes room for another."""
        wires = [self.connect() for _ in range(3)]
        wires[1].vanish()
        self.assertEqual(self.cut(self.connect(), *wires), [False] * 4)

    def test_each_address(self) -> None:
        """An address beyond its own limit loses its own connections only."""
        self.limit(connections=100, connections_per_address=2)
        other = self.connect("203.0.113.10")
        wires = [self.connect() for _ in range(4)]
        self.assertEqual(self.cut(other, *wires), [False, True, True, False, False])

    def test_network_of_an_address(self) -> None:
        """All addresses of an IPv6 /64 share one limit."""
        self.limit(connections=100, connections_per_address=1)
        peers = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")
        self.assertEqual(self.cut(*[self.connect(peer) for peer in peers]), [True, False, False])

    def test_proxy(self) -> None:
        """A trusted proxy is bound by the limit of all connections only."""
        self.limit(connections=4, connections_per_address=1)
        wires = [self.connect("127.0.0.1") for _ in range(4)]
        unix = MemoryWire(self.site, UNIXAddress(b"/run/proxy.sock"))
        self.assertEqual(self.cut(unix, *wires), [False, True, False, False, False])

    def test_no_limit_to_an_address(self) -> None:
        """The limit for an address can be switched off."""
        self.limit(connections=4, connections_per_address=None)
        self.assertEqual(self.cut(*[self.connect() for _ in range(4)]), [False] * 4)

    def test_told(self) -> None:
        """It is logged, at most once a minute."""
        with capturedLogs() as events:
            for _ in range(100):
                self.connect()
            self.clock.advance(60)
            for _ in range(100):
                self.connect()
        told = [formatEvent(event) for event in events if "are cut" in formatEvent(event)]
        self.assertEqual(told, ["3 connections are open: the longest idle are cut"] * 2)

    def test_drained_without_them(self) -> None:
        """Draining does not wait for aborted connections."""
        wires = [self.connect() for _ in range(10)]
        drained = self.site.drain()
        for wire in wires[7:]:
            self.assertTrue(wire.settle())
        self.successResultOf(drained)


class DrainTests(SiteCase):
    """How the site drains its connections."""

    def drain(self) -> Deferred[None]:
        """Start to drain."""
        return self.site.drain()

    def test_no_connections(self) -> None:
        """A site without connections is drained at once, and no timer is left."""
        self.successResultOf(self.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_all_closed(self) -> None:
        """Draining does not wait for connections that were closed before."""
        wire = self.connect()
        wire.send(get("/health"))
        wire.vanish()
        self.successResultOf(self.drain())

    def test_idle(self) -> None:
        """Idle connections are closed, those without a request included."""
        fresh, used = self.connect(), self.connect()
        used.send(get("/health"))
        drained = self.drain()
        self.assertNoResult(drained)
        self.assertTrue(fresh.settle())
        self.assertNoResult(drained)
        self.assertTrue(used.settle())
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_flight(self) -> None:
        """A request in flight gets its response. Then its connection is closed."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD))
        drained = self.drain()
        self.assertFalse(wire.settle())
        self.assertNoResult(drained)
        waiting[0].callback(
            self.successResultOf(self.rig.accounts.authenticate(_ALICE, ALICE_PASSWORD))
        )
        reply = self.answer(wire)
        self.assertEqual((reply.status, reply.json["user_id"]), (200, ALICE))
        self.assertTrue(wire.settle())
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pipelined(self) -> None:
        """Of pipelined requests, at least the one in flight gets its response."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD) + get("/health"))
        drained = self.drain()
        waiting[0].callback(None)
        self.assertEqual(self.answers(wire)[0].status, 403)
        self.assertTrue(wire.settle())
        self.successResultOf(drained)

    def test_half_a_request(self) -> None:
        """A request that has begun to arrive gets its response when it is complete."""
        data = post(LOGIN, GOOD)
        body_starts = len(data) - len(GOOD)
        for cut in (data.index(b"\r\n") + 2, body_starts - 2, body_starts, len(data) - 1):
            self.setUp()
            wire = self.connect()
            wire.send(data[:cut])
            drained = self.drain()
            self.assertFalse(wire.settle(), cut)
            wire.send(data[cut:])
            self.assertEqual(self.answer(wire).status, 200)
            self.assertTrue(wire.settle())
            self.successResultOf(drained)

    def test_half_a_request_and_no_more(self) -> None:
        """A request that does not become complete within a few seconds is aborted, even if it still
        trickles in.
        """
        data = post(LOGIN, GOOD)
        for cut in (10, len(data) - len(GOOD), len(data) - 20):
            self.setUp()
            wire = self.connect()
            wire.send(data[: max(cut, data.index(b"\r\n") + 2)])
            drained = self.drain()
            for _ in range(int(RECEIVE_TIMEOUT) - 1):
                self.clock.advance(1)
                wire.send(data[cut : cut + 1])
            self.assertFalse(wire.transport.disconnected)
            self.clock.advance(1)
            self.assertTrue(wire.transport.disconnected)
            self.assertTrue(wire.settle())
            self.successResultOf(drained)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_grace(self) -> None:
        """With a grace, an idle connection is kept for that time. A request on it is the last."""
        quiet, used = self.connect(), self.connect()
        drained = self.site.drain(2.0)
        self.clock.advance(1.9)
        used.send(get("/health"))
        reply = self.answer(used)
        self.assertEqual(
            (reply.status, reply.headers.getRawHeaders("Connection")), (200, ["close"])
        )
        self.assertTrue(used.settle())
        self.assertFalse(quiet.settle())
        self.clock.advance(0.1)
        self.assertTrue(quiet.settle())
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_last_answer(self) -> None:
        """The response to a request in flight has ``Connection: close``, and no other has."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(get("/health"))
        self.assertFalse(self.answer(wire).headers.hasHeader("Connection"))
        wire.send(post(LOGIN, GOOD))
        self.drain()
        waiting[0].callback(None)
        self.assertEqual(self.answer(wire).headers.getRawHeaders("Connection"), ["close"])
        self.assertTrue(wire.settle())

    def test_slow_request_then_slow_answer(self) -> None:
        """A request that is complete in time has the whole drain timeout for its response."""
        waiting = self.stall()
        data = post(LOGIN, GOOD)
        wire = self.connect()
        wire.send(data[:-1])
        drained = self.drain()
        self.clock.advance(RECEIVE_TIMEOUT - 1)
        wire.send(data[-1:])
        self.clock.advance(DRAIN_TIMEOUT - RECEIVE_TIMEOUT)
        self.assertFalse(wire.settle())
        waiting[0].callback(None)
        self.assertEqual(self.answer(wire).status, 403)
        self.assertTrue(wire.settle())
        self.successResultOf(drained)

    def test_slow_answer(self) -> None:
        """A request that has no response by the drain timeout is cancelled."""
        self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD))
        drained = self.drain()
        self.clock.advance(DRAIN_TIMEOUT)
        self.assertTrue(wire.settle())
        self.successResultOf(drained)
        self.assertEqual(self.rig.provider.cancelled, ["authenticate"])
        self.assertEqual(wire.received(), b"")

    def test_too_large(self) -> None:
        """A connection that still sends a rejected body is closed at the drain timeout."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: 100000000"))
        drained = self.drain()
        self.clock.advance(DRAIN_TIMEOUT)
        self.assertTrue(wire.settle())
        self.successResultOf(drained)

    def test_new_request_on_an_old_connection(self) -> None:
        """A request on a connection that is being closed gets a whole response or none."""
        wire = self.connect()
        wire.send(get("/health"))
        wire.received()
        self.drain()
        wire.send(get("/health"))
        self.assertIn([reply.status for reply in self.answers(wire)], ([], [200]))
        self.assertTrue(wire.settle())


_ALICE = UserIdentifier(UserId("alice", SERVER_NAME))
