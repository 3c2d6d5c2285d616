"""Tests for the HTTP server around the tree, byte by byte over in-memory transports."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.model import UserId, UserIdentifier
from synapse_login_module.testing import SERVER_NAME
from synapse_login_module.web.bodies import MAX_BODY
from synapse_login_module.web.site import DRAIN_TIMEOUT, IDLE_TIMEOUT, RECEIVE_TIMEOUT, LoginSite
from tests.helpers import ALICE, ALICE_PASSWORD, Reply, Rig, Wire, get, post, responses

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
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class SiteCase(SynchronousTestCase):
    """A site with a clock that the test moves."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.clock = Clock()
        self.site = LoginSite(self.rig.root, self.clock)

    def connect(self) -> Wire:
        """A new connection."""
        return Wire(self.site)

    def answers(self, wire: Wire) -> list[Reply]:
        """What came back since the last time."""
        return responses(wire.received())

    def answer(self, wire: Wire) -> Reply:
        """The one answer that came back since the last time."""
        (reply,) = self.answers(wire)
        return reply

    def stall(self) -> list[Deferred[Any]]:
        """Make passwords be checked slowly; what is waited for is put in the list."""
        waiting: list[Deferred[Any]] = []
        self.rig.provider.only = {"authenticate"}
        self.rig.provider.stalled = waiting
        return waiting

    def assert_too_large(self, wire: Wire) -> None:
        """It was told that the body is too large, in one whole answer, and hears no more."""
        reply = self.answer(wire)
        self.assertEqual((reply.status, reply.errcode), (413, "M_TOO_LARGE"))
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertEqual(reply.header("Connection"), "close")
        self.assertEqual(reply.header("Access-Control-Allow-Origin"), "*")
        self.assertEqual(reply.header("Cache-Control"), "no-store")
        self.assertTrue(wire.transport.write_closed)


class BodyLimitTests(SiteCase):
    """How large a body may be."""

    def padded(self, size: int) -> bytes:
        """A good login of that many bytes."""
        return GOOD + b" " * (size - len(GOOD))

    def test_length_too_large(self) -> None:
        """A Content-Length over 64 KiB is answered 413 before any of the body is there."""
        for length in (MAX_BODY + 1, 10**7, 10**30):
            wire = self.connect()
            wire.send(head(LOGIN, b"Content-Length: %d" % length))
            self.assert_too_large(wire)
            wire.vanish()

    def test_no_continue(self) -> None:
        """Who asks whether to send a body that is too large is not invited to."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Expect: 100-continue", b"Content-Length: %d" % (MAX_BODY + 1)))
        self.assert_too_large(wire)
        wire.vanish()

    def test_continue(self) -> None:
        """Who asks whether to send a body that fits is invited to."""
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
        self.assertTrue(wire.settle())
        self.assertEqual(self.rig.audit.counts.total(), 0)

    def test_nobody_is_asked(self) -> None:
        """A body that is too large reaches no endpoint, even when all of it comes."""
        wire = self.connect()
        wire.send(post(LOGIN, self.padded(MAX_BODY + 1)))
        self.assert_too_large(wire)
        self.assertTrue(wire.settle())
        self.assertEqual(self.rig.audit.counts.total(), 0)

    def test_rest_is_read(self) -> None:
        """What else is sent is read for a while, so that the answer is not lost in a reset."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: 500000"))
        self.assert_too_large(wire)
        wire.send(b"x" * 250_000)
        self.assertFalse(wire.settle())
        wire.send(b"x" * 250_000)
        self.assertTrue(wire.settle())
        self.assertEqual(wire.received(), b"")

    def test_rest_is_not_read_for_ever(self) -> None:
        """After a megabyte more the connection is cut."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: 100000000"))
        self.assert_too_large(wire)
        for _ in range(20):
            wire.send(b"x" * 100_000)
        self.assertTrue(wire.transport.disconnected)
        self.assertTrue(wire.settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rest_is_not_waited_for_for_ever(self) -> None:
        """After a few seconds the connection is cut, however slowly the client sends."""
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
        """A client that goes away after its 413 leaves no timer behind."""
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
        """One client's large body does not disturb another's connection."""
        large, other = self.connect(), self.connect()
        large.send(head(LOGIN, b"Content-Length: 100000000"))
        other.send(post(LOGIN, GOOD))
        self.assertEqual(self.answer(other).status, 200)
        large.vanish()


class FormTests(SiteCase):
    """Bodies are JSON, whatever the client calls them."""

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
        statuses = [reply.status for reply in self.answers(wire)]
        self.assertEqual(statuses, [403, 200, 404, 400])

    def test_every_cut(self) -> None:
        """Two requests are understood wherever the network cuts them."""
        data = post(LOGIN, GOOD) + get("/health")
        for cut in range(1, len(data)):
            wire = self.connect()
            wire.send(data[:cut])
            wire.send(data[cut:])
            statuses = [reply.status for reply in self.answers(wire)]
            self.assertEqual(statuses, [200, 200], cut)

    def test_large_after_good(self) -> None:
        """A body that is too large is refused after the request before it is answered."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD) + head(LOGIN, b"Content-Length: 100000"))
        self.assertEqual(wire.received(), b"")
        waiting[0].callback(None)
        self.assertEqual([reply.status for reply in self.answers(wire)], [403, 413])
        wire.vanish()

    def test_close(self) -> None:
        """Who asks for it, or speaks HTTP/1.0, has the connection closed after the answer."""
        for request in (
            get("/health", [b"Connection: close"]),
            b"GET /health HTTP/1.0\r\n\r\n",
        ):
            wire = self.connect()
            wire.send(request)
            self.assertEqual(self.answer(wire).status, 200)
            self.assertTrue(wire.settle())

    def test_disconnect_with_more_to_come(self) -> None:
        """A client that goes away has none of its later requests handled."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD) * 3)
        wire.vanish()
        self.assertEqual(len(waiting), 1)
        self.assertEqual(self.rig.provider.cancelled, ["authenticate"])


class NonsenseTests(SiteCase):
    """What is no HTTP, or is HTTP that nobody sends."""

    def test_no_http(self) -> None:
        """What is no HTTP is answered 400 and closed, and the site goes on."""
        for data in (
            b"nonsense\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/9.9.9\r\nno colon here\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 600 + b"\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ):
            wire = self.connect()
            wire.send(data)
            self.assertTrue(wire.settle(), data[:60])
            self.assertIn(wire.received()[:13], (b"HTTP/1.1 400 ", b""), data[:60])
            self.assertEqual(self.flushLoggedErrors(), [])
        wire = self.connect()
        wire.send(get("/health"))
        self.assertEqual(self.answer(wire).status, 200)

    def test_length_of_many_digits(self) -> None:
        """A Content-Length too long to be a number is refused as any other nonsense is."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: " + b"9" * 5000))
        self.assertIn(wire.received()[:13], (b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))

    def test_methods(self) -> None:
        """Methods are told apart by case, and those that nobody knows are 405."""
        for method in (b"post", b"BREW", b"CONNECT", b"P" * 200):
            wire = self.connect()
            wire.send(b"%b %b HTTP/1.1\r\nHost: x\r\n\r\n" % (method, LOGIN.encode("ascii")))
            reply = self.answer(wire)
            self.assertEqual((reply.status, reply.errcode), (405, "M_UNRECOGNIZED"))

    def test_odd_targets(self) -> None:
        """Targets that are no paths of ours are JSON 404s."""
        for target in (b"/%", b"/%ff%fe", b"//", b"http://x/", b"x"):
            wire = self.connect()
            wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            reply = self.answer(wire)
            self.assertEqual((reply.status, reply.errcode), (404, "M_UNRECOGNIZED"), target)

    def test_the_server_as_a_target(self) -> None:
        """The server as a whole takes OPTIONS, and answers in JSON to whatever else."""
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
            wire = Wire(self.site, peer)
            wire.send(post(LOGIN, GOOD))
            self.assertEqual(self.answer(wire).status, 200)


class LogTests(SiteCase):
    """What the site itself writes into the log."""

    def test_no_request_lines(self) -> None:
        """Neither path nor query nor header of a request comes into the log."""
        marks = ("marker-path", "marker-query", "marker-agent", "marker-token")
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


class IdleTests(SiteCase):
    """Connections on which nothing happens."""

    def test_no_request(self) -> None:
        """A connection that never asks for anything is closed."""
        wire = self.connect()
        self.clock.advance(IDLE_TIMEOUT - 1)
        self.assertFalse(wire.settle())
        self.clock.advance(1)
        self.assertTrue(wire.settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_half_a_request(self) -> None:
        """So is one that stops in the middle of a request."""
        data = post(LOGIN, GOOD)
        for cut in (10, len(data) - len(GOOD), len(data) - 1):
            wire = self.connect()
            wire.send(data[:cut])
            self.clock.advance(IDLE_TIMEOUT)
            self.assertTrue(wire.settle(), cut)

    def test_after_an_answer(self) -> None:
        """So is one that goes silent after an answer."""
        wire = self.connect()
        self.clock.advance(IDLE_TIMEOUT - 1)
        wire.send(get("/health"))
        self.assertEqual(self.answer(wire).status, 200)
        self.clock.advance(IDLE_TIMEOUT - 1)
        self.assertFalse(wire.settle())
        self.clock.advance(1)
        self.assertTrue(wire.settle())

    def test_not_while_it_waits(self) -> None:
        """One that waits for a slow answer is not."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD))
        self.clock.advance(IDLE_TIMEOUT * 10)
        self.assertFalse(wire.settle())
        waiting[0].callback(None)
        self.assertEqual(self.answer(wire).status, 403)

    def test_will_not_close(self) -> None:
        """One that will not be closed is cut."""
        wire = self.connect()
        self.clock.advance(IDLE_TIMEOUT)
        self.assertFalse(wire.transport.disconnected)
        self.clock.advance(60)
        self.assertTrue(wire.transport.disconnected)


class DrainTests(SiteCase):
    """How the site ends."""

    def drain(self) -> Deferred[None]:
        """Begin to end."""
        return self.site.drain()

    def test_nobody_there(self) -> None:
        """A site without connections is drained at once, and leaves no timer."""
        self.successResultOf(self.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_everybody_gone(self) -> None:
        """Connections that were closed before are not waited for."""
        wire = self.connect()
        wire.send(get("/health"))
        wire.vanish()
        self.successResultOf(self.drain())

    def test_idle(self) -> None:
        """Connections on which nothing happens are closed, before and after a request."""
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
        """A request in flight is answered, and its connection closed then."""
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
        """Of several requests sent at once, at least the one in flight is answered."""
        waiting = self.stall()
        wire = self.connect()
        wire.send(post(LOGIN, GOOD) + get("/health"))
        drained = self.drain()
        waiting[0].callback(None)
        self.assertEqual(self.answers(wire)[0].status, 403)
        self.assertTrue(wire.settle())
        self.successResultOf(drained)

    def test_half_a_request(self) -> None:
        """A request that has begun to arrive is answered once it is there, then closed."""
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
        """A request that never arrives whole is given a few seconds, however it trickles in."""
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

    def test_patience(self) -> None:
        """An idle connection is kept for a while; a request on it is answered as the last one."""
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
        """The answer to a request in flight says that it is the last, and no other does."""
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
        """A request that arrives whole in time is given the time of an answer."""
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
        """Nor is an answer that takes too long: its request is cancelled."""
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
        """A connection that still sends what nobody wants is not waited for beyond its time."""
        wire = self.connect()
        wire.send(head(LOGIN, b"Content-Length: 100000000"))
        drained = self.drain()
        self.clock.advance(DRAIN_TIMEOUT)
        self.assertTrue(wire.settle())
        self.successResultOf(drained)

    def test_new_request_on_an_old_connection(self) -> None:
        """A request that arrives on a connection while it is being closed is not half answered."""
        wire = self.connect()
        wire.send(get("/health"))
        wire.received()
        self.drain()
        wire.send(get("/health"))
        self.assertIn([reply.status for reply in self.answers(wire)], ([], [200]))
        self.assertTrue(wire.settle())


_ALICE = UserIdentifier(UserId("alice", SERVER_NAME))
