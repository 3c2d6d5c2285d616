"""Tests for :mod:`synapse_login_module.web.responses`."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, integers, none, text
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import AccountRefused
from synapse_login_module.web.responses import (
    FOR_SERVERS,
    Response,
    response_to,
    success,
    success_in_utf8,
)
from synapse_login_module.web.site import LoginSite
from tests.support.site import MemoryWire, get, responses
from tests.support.web import Reply, WebCase


class RefusedTests(SynchronousTestCase):
    """Logins that the homeserver rejects."""

    def test_more(self) -> None:
        """The response has all fields of the homeserver's error."""
        more = {"limit_type": "monthly_active_user", "admin_contact": "mailto:a@b.example"}
        answer = response_to(AccountRefused(403, "M_RESOURCE_LIMIT_EXCEEDED", "full", more))
        assert answer is not None
        expected = {"errcode": "M_RESOURCE_LIMIT_EXCEEDED", "error": "full", **more}
        self.assertEqual((answer.status, answer.payload()), (403, expected))
        self.assertNotIn(b"Retry-After", answer.headers)

    def test_retry_after(self) -> None:
        """The time to retry is in the header too, in whole seconds."""
        problem = AccountRefused(429, "M_LIMIT_EXCEEDED", "wait", {"retry_after_ms": 1200})
        answer = response_to(problem)
        assert answer is not None
        self.assertEqual(answer.headers[b"Retry-After"], b"2")


class BodyTests(SynchronousTestCase):
    """The two ways to write the body of a 200."""

    @given(dictionaries(text(), none() | booleans() | integers(-(2**63), 2**63 - 1) | text()))
    def test_alike(self, payload: dict[str, Any]) -> None:
        """Both write the same object, and say that it is JSON."""
        slow, fast = success(payload), success_in_utf8(payload)
        self.assertEqual(fast.payload(), slow.payload())
        self.assertEqual(fast._replace(body=b""), slow._replace(body=b""))

    def test_no_unicode(self) -> None:
        """A lone surrogate, which UTF-8 cannot encode, is raised and not sent."""
        self.assertRaises(ValueError, success_in_utf8, {"name": "\ud800"})


class HeaderTests(SynchronousTestCase):
    """The headers of one response, as a mapping and as they are sent."""

    def test_same(self) -> None:
        """They are the same, whether or not there is a body or a header of its own."""
        for response in (
            Response(200, b"{}"),
            Response(200, b"", b"text/plain"),
            Response(503, b"later", b"text/plain", {b"Retry-After": b"5"}),
            Response(204, b""),
            Response(304, b"", headers={b"ETag": b'"1"'}, common=FOR_SERVERS),
        ):
            head, _, body = response.to_bytes(b"HTTP/1.1", False).partition(b"\r\n\r\n")
            sent = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            del sent[b"Date"]
            self.assertEqual(sent, {**response.common.headers, **response.own_headers()})
            self.assertEqual(body, response.body)
            length = sent.get(b"Content-Length")
            self.assertEqual(length is None, response.status in (204, 304))


class SendTests(WebCase):
    """The two ways to send a response."""

    def test_alike(self) -> None:
        """A response in one write is that of one header after the other."""
        site = LoginSite(self.rig.root, Clock())
        for method, path in (
            ("GET", "/health"),
            ("GET", "/_matrix/client/v3/login"),
            ("OPTIONS", "/_matrix/client/v3/login"),
            ("DELETE", "/_matrix/client/v3/login"),
            ("GET", "/_matrix/client/v3/account/whoami"),
            ("GET", "/nothing"),
        ):
            wire = MemoryWire(site)
            wire.send(get(path).replace(b"GET", method.encode("ascii"), 1))
            (whole,) = responses(wire.received())
            by_headers = self.ask(method, path)
            self.assertEqual((whole.status, whole.body), (by_headers.status, by_headers.body))
            self.assertEqual(_headers(whole), _headers(by_headers), path)


def _headers(reply: Reply) -> frozenset[tuple[bytes, bytes]]:
    """The headers but for those that Twisted's site or the client in memory adds or removes."""
    return frozenset(
        (name, value)
        for name, value in reply.lasting_headers
        if name not in (b"Server", b"Content-Encoding", b"Content-Length")
    )
