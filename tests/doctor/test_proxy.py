"""What ``doctor`` says about what clients reach at ``public_baseurl``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from twisted.web.proxy import ReverseProxyResource
from twisted.web.resource import Resource
from twisted.web.server import Site

from synapse_login_module.doctor.fetching import LOGIN, VERSIONS
from synapse_login_module.model import Level
from tests.doctor.case import DoctorCase, reactor
from tests.support.configuration import good_config
from tests.support.ports import free_port
from tests.support.server import Server


class Static(Resource):
    """Answers everything alike."""

    isLeaf = True

    def __init__(self, status: int, content: object) -> None:
        super().__init__()
        self.status = status
        self.content = json.dumps(content).encode("ascii")

    def render(self, request: Any) -> bytes:
        request.setResponseCode(self.status)
        return self.content


class LoginElsewhere(Resource):
    """A proxy that lacks the path of the login.

    :param proxy: where the other paths go.
    """

    isLeaf = True

    def __init__(self, proxy: Resource) -> None:
        super().__init__()
        self.proxy = proxy

    def render(self, request: Any) -> Any:
        if request.path == LOGIN.encode("ascii"):
            return Static(404, {}).render(request)
        request.postpath = [segment for segment in request.path.split(b"/") if segment]
        proxied = self.proxy
        while request.postpath:
            proxied = proxied.getChild(request.postpath.pop(0), request)
        return proxied.render(request)


class ProxyDoctorTests(DoctorCase):
    """Paths that clients fetch first are fetched through the proxy, and compared."""

    def serve(self, root: Resource) -> str:
        """Serve a proxy; return its URL."""
        port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def configured(self, port: int, public: str, **changes: Any) -> Path:
        """Write the configuration of a server behind a proxy."""
        path = self.folder / "config.yaml"
        config = {**good_config(port, public_baseurl=public, **changes), "hashing": {"rounds": 10}}
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    async def run_server(self, path: Path, port: int) -> Server:
        """Start the server of a configuration."""
        server = Server(path, port)
        self.addCleanup(server.stop)
        await server.start()
        return server

    async def test_well(self) -> None:
        """A proxy that passes requests on to this server is well, and no attempt is counted."""
        port = free_port()
        path = self.configured(port, self.serve(ReverseProxyResource("127.0.0.1", port, b"")))
        server = await self.run_server(path, port)
        findings = await self.diagnose(path)
        self.assertIn("this server answers", str(self.assert_well(findings, "proxy")))
        self.assertIn("the server runs", str(self.assert_well(findings, "server")))
        self.assertNotIn("outcome=", server.log())

    async def test_another_server(self) -> None:
        """A proxy that sends the login elsewhere is one failure."""
        port = free_port()
        flows = {"flows": [{"type": "m.login.password"}], "versions": ["v1.1"]}
        path = self.configured(port, self.serve(Static(200, flows)))
        await self.run_server(path, port)
        findings = await self.diagnose(path)
        found = "another server answers"
        one = self.assert_line(findings, Level.FAILED, "proxy", found, "contrib/")
        self.assertEqual(one.what, f"{LOGIN} and {VERSIONS}")

    async def test_login_elsewhere(self) -> None:
        """A proxy that sends only the login elsewhere is one failure."""
        port = free_port()
        proxy = ReverseProxyResource("127.0.0.1", port, b"")
        path = self.configured(port, self.serve(LoginElsewhere(proxy)))
        await self.run_server(path, port)
        findings = await self.diagnose(path)
        found = "another server answers, or the proxy itself (status 404)"
        self.assert_line(findings, Level.FAILED, "proxy", found, "contrib/")

    async def test_does_not_reach(self) -> None:
        """A proxy that does not reach this server for logins is told by its status."""
        port = free_port()
        path = self.configured(port, self.serve(Static(502, {"versions": []})))
        await self.run_server(path, port)
        findings = await self.diagnose(path)
        found = "the proxy does not reach this server (status 502)"
        self.assert_line(findings, Level.FAILED, "proxy", found, "contrib/")

    async def test_away(self) -> None:
        """A proxy that is away is one failure."""
        path = self.configured(free_port(), f"http://127.0.0.1:{free_port()}")
        findings = await self.diagnose(path)
        found = "it cannot be reached (ConnectionRefusedError)"
        self.assert_line(findings, Level.FAILED, "proxy", found, "public_baseurl")

    async def test_server_down(self) -> None:
        """While the server does not run, its proxy's answer is a warning."""
        path = self.configured(free_port(), self.serve(Static(502, {})))
        findings = await self.diagnose(path)
        self.assert_line(findings, Level.WARNING, "server", "does not run", "start it")
        self.assertEqual([each for each in findings if each.level is Level.FAILED], [])

    async def test_another_program(self) -> None:
        """Another program at ``listen`` is one failure."""
        taken = reactor.listenTCP(0, Site(Static(404, {})), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        path = self.write(listen=[f"tcp:{taken.getHost().port}:interface=127.0.0.1"])
        findings = await self.diagnose(path)
        found = "another program answers"
        self.assert_line(findings, Level.FAILED, "server", found, "change listen")
