"""Requests to the resource tree in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from synapse_login_module.web.responses import send_by_headers
from tests.support.accounts import ALICE_PASSWORD
from tests.support.response import Response
from tests.support.rig import Rig


@dataclass(frozen=True)
class Reply(Response):
    """A response in which no header is repeated."""

    @property
    def lasting_headers(self) -> frozenset[tuple[bytes, bytes]]:
        """Return the headers without the date."""
        return frozenset(
            (name, value)
            for name, values in self.headers.getAllRawHeaders()
            for value in values
            if name != b"Date"
        )

    def header(self, name: str) -> str | None:
        """Return the value of a header, or ``None``."""
        values = self.headers.getRawHeaders(name)
        if values is None:
            return None
        assert len(values) == 1, f"{name} is there {len(values)} times"
        return values[0]


def _treq(root: Resource) -> Any:
    return StubTreq(root)


class WebCase(SynchronousTestCase):
    """A test case with requests to the real resource tree in memory."""

    def setUp(self) -> None:
        self.use(Rig())

    def use(self, rig: Rig) -> None:
        """Send requests to this rig from now on."""
        self.rig = rig
        self.treq: Any = _treq(rig.tree(send_by_headers))

    def begin(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[bytes, bytes] | None = None,
        token: str | None = None,
    ) -> Deferred[Any]:
        """Send a request without waiting."""
        given = Headers({name: [value] for name, value in (headers or {}).items()})
        if token is not None:
            given.addRawHeader(b"Authorization", b"Bearer " + token.encode("utf-8"))
        asked: Deferred[Any] = self.treq.request(
            method, f"http://login.example{path}", headers=given, data=body or None
        )
        return asked

    def read(self, response: Any) -> Reply:
        """Read a response whole."""
        body = self.successResultOf(response.content())
        reply = Reply(response.code, response.headers, body)
        self.assert_common_headers(reply)
        return reply

    def assert_common_headers(self, reply: Reply) -> None:
        """Assert the headers of every response: any site may read it, and no cache stores it."""
        self.assertEqual(reply.header("Access-Control-Allow-Origin"), "*")
        self.assertIn("POST", reply.header("Access-Control-Allow-Methods") or "")
        self.assertIn("Authorization", reply.header("Access-Control-Allow-Headers") or "")
        self.assertEqual(reply.header("Cache-Control"), "no-store")

    def ask(
        self,
        method: str,
        path: str,
        payload: object = None,
        *,
        body: bytes = b"",
        headers: Mapping[bytes, bytes] | None = None,
        token: str | None = None,
    ) -> Reply:
        """Send a request and return the response."""
        if payload is not None:
            body = json.dumps(payload).encode("ascii")
        asked = self.begin(method, path, body, headers, token)
        self.treq.flush()
        return self.read(self.successResultOf(asked))

    def log_in(
        self, user: str = "alice", password: str = ALICE_PASSWORD, **more: object
    ) -> dict[str, Any]:
        """Log in successfully; return the response's JSON."""
        payload = {"type": "m.login.password", "user": user, "password": password, **more}
        reply = self.ask("POST", "/_matrix/client/v3/login", payload)
        self.assertEqual(reply.status, 200, reply.body)
        answer: dict[str, Any] = reply.json
        return answer

    def assert_error(self, reply: Reply, status: int, errcode: str) -> None:
        """Assert that the response is this error, as JSON with ``errcode`` and ``error`` alone."""
        self.assertEqual((reply.status, reply.errcode), (status, errcode), reply.body)
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertIsInstance(reply.json["error"], str)
        self.assertTrue(reply.json["error"])
