"""Tests for the handler of the page of metrics."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.metrics import MetricsHandler, NoPage
from synapse_login_module.web.routes import internal_root
from synapse_login_module.web.site import LoginSite
from tests.support.rig import Rig
from tests.support.site import MemoryWire
from tests.support.wire import request


class MetricsTests(SynchronousTestCase):
    """``/metrics``."""

    def ask(self, method: str, page: Deferred[bytes] | NoPage) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return the status, the headers and the body of the response."""
        handler = MetricsHandler(page if isinstance(page, NoPage) else lambda: page, b"text/plain")
        root = internal_root(HTTPRequest.respond, Rig().handlers.health, metrics=handler)
        wire = MemoryWire(LoginSite(root, Clock()))
        wire.send(request(method, "/metrics"))
        head, _, body = wire.received().partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, body

    def test_get(self) -> None:
        """The page is sent in Prometheus' format, and no cache keeps it."""
        status, headers, body = self.ask("GET", succeed(b"up 1\n"))
        self.assertEqual((status, body), (200, b"up 1\n"))
        self.assertEqual(headers["Content-Type"], "text/plain")
        self.assertEqual(headers["Cache-Control"], "no-store")

    def test_head(self) -> None:
        """HEAD is answered as GET, without the page."""
        status, headers, body = self.ask("HEAD", succeed(b"up 1\n"))
        self.assertEqual((status, headers["Content-Length"], body), (200, "5", b""))

    def test_other_methods(self) -> None:
        """Other methods are refused."""
        for method in ("POST", "PUT", "DELETE"):
            status, headers, _ = self.ask(method, succeed(b""))
            self.assertEqual(status, 405)
            self.assertEqual(headers["Allow"], "GET, HEAD, OPTIONS")

    def why(self, reason: NoPage) -> str:
        """Return what the error says when there is no page."""
        status, _, body = self.ask("GET", reason)
        self.assertEqual(status, 404)
        self.assertEqual(json.loads(body)["errcode"], "M_UNRECOGNIZED")
        error: str = json.loads(body)["error"]
        return error

    def test_not_installed(self) -> None:
        """Without prometheus_client, the error says what to install."""
        self.assertIn("synapse-login-module[metrics]", self.why(NoPage.NOT_INSTALLED))

    def test_no_room(self) -> None:
        """Where a worker has no room for them, the error says that, and not to install anything."""
        said = self.why(NoPage.NO_ROOM)
        self.assertIn("no room", said)
        self.assertNotIn("install", said)
