"""Tests of what an idle server has not imported, and of TLS that is imported late."""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.providers.ldap.case import ALICE, PASSWORDS, SEARCH
from tests.support.accounts import ALICE_PASSWORD
from tests.support.certificates import Authority
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.process import require, run
from tests.support.server import Server, start_server
from tests.support.slapd import Slapd
from tests.support.wire import request

NOT_NEEDED = (
    "OpenSSL",
    "argon2",
    "click",
    "cryptography",
    "ldaptor",
    "prometheus_client",
    "psycopg",
    "service_identity",
    "synapse",
    "synapse_login_module.commands",
    "synapse_login_module.standalone.log_json",
    "synapse_login_module.standalone.workers",
    "synapse_login_module.stores.postgresql",
    "synapse_login_module.synapse",
    "treq",
    "twisted.internet.endpoints",
    "twisted.spread",
    "twisted.web.client",
    "twisted.web.server",
)
"""What a server of one process, a file of accounts and plain TCP has no use for."""

_TELLS_MODULES = (
    "import atexit, sys;"
    " tell = lambda: print('modules:', *list(sys.modules), file=sys.__stdout__, flush=True);"
    " atexit.register(tell);"
    " from twisted.scripts.twistd import run; run()"
)

_TLS_LATER = """
import sys
from synapse_login_module.standalone.lazy_tls import defer_tls

defer_tls()
defer_tls()  # a second call changes nothing
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorSSL
from twisted.internet.protocol import Factory, Protocol

assert "OpenSSL" not in sys.modules
assert IReactorSSL.providedBy(reactor)

certificate, key = sys.argv[1:]


class Starts(Protocol):
    is_client = False

    def connectionMade(self):
        if self.is_client:
            self.transport.write(b"start")

    def dataReceived(self, data):
        if data == b"start":
            self.transport.write(b"go")
            self.transport.startTLS(tls())
        elif data == b"go":
            self.transport.startTLS(ssl.CertificateOptions())
            self.transport.write(b"secret")
        elif data == b"secret":
            assert ISSLTransport.providedBy(self.transport)
            self.transport.write(b"done")
        else:
            print(data.decode(), self.transport.getPeerCertificate() is not None)
            reactor.stop()


class Client(Starts):
    is_client = True


def tls():
    return ssl.DefaultOpenSSLContextFactory(key, certificate)


plain = reactor.listenTCP(0, Factory.forProtocol(Starts), interface="127.0.0.1")
assert "OpenSSL" not in sys.modules
from twisted.internet import ssl
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import ClientFactory


factory = ClientFactory.forProtocol(Client)
reactor.connectTCP("127.0.0.1", plain.getHost().port, factory)
reactor.callLater(30, reactor.stop)
reactor.run()
"""


def imported(modules: set[str], name: str) -> bool:
    """Return whether a module or a part of it is among those imported."""
    return any(each == name or each.startswith(f"{name}.") for each in modules)


def maps(pid: int) -> str:
    """Return the files that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text()


class PlainServerTests(SynchronousTestCase):
    """A server with a plain configuration."""

    def serve(self, **launch: Any) -> Server:
        folder, port = temporary_folder(self), free_port()
        server = start_server(write_config(folder, good_config(port)), port, **launch)
        self.addCleanup(server.stop)
        return server

    def test_not_imported(self) -> None:
        """Idle, and after a login, it has imported nothing that it has no use for."""
        server = self.serve(program=["-c", _TELLS_MODULES])
        credentials = {"type": "m.login.password", "user": "alice", "password": ALICE_PASSWORD}
        status, _ = server.ask("POST", "/_matrix/client/v3/login", credentials)
        self.assertEqual(status, 200)
        server.stop()
        (line,) = [each for each in server.log().splitlines() if each.startswith("modules: ")]
        modules = set(line.split())
        self.assertTrue(imported(modules, "twisted.web.http"))
        self.assertEqual([each for each in NOT_NEEDED if imported(modules, each)], [])

    def test_workers(self) -> None:
        """Neither the parent nor its workers have loaded the library of pyOpenSSL."""
        server = self.serve(options=["--workers=2"])
        for pid in (server.pid, *server.workers):
            self.assertIn("_pydantic_core", maps(pid))
            self.assertNotIn("cryptography", maps(pid))


class LateTLSTests(SynchronousTestCase):
    """TLS that is imported after the reactor."""

    def setUp(self) -> None:
        require("OpenSSL")
        self.folder = temporary_folder(self)
        self.authority = Authority("Tests of imports")
        self.certificate, self.key = self.authority.sign("localhost").write(self.folder)

    def test_start_tls(self) -> None:
        """A connection of a reactor without TLS starts TLS, as client and as server."""
        ended = run(
            [sys.executable, "-c", _TLS_LATER, *map(str, (self.certificate, self.key))], timeout=60
        )
        self.assertEqual((ended.stdout, ended.returncode), ("done True\n", 0), ended.stderr)

    def test_listening(self) -> None:
        """A server serves at an ``ssl:`` endpoint, beside plain TCP."""
        port, secure = free_port(), free_port()
        listen = [
            f"tcp:{port}:interface=127.0.0.1",
            f"ssl:{secure}:interface=127.0.0.1:certKey={self.certificate.absolute()}"
            f":privateKey={self.key.absolute()}",
        ]
        config = write_config(self.folder, good_config(port, listen=listen))
        server = start_server(config, port)
        self.addCleanup(server.stop)
        trusted = self.authority.write(self.folder / "authority.pem")
        context = ssl.create_default_context(cafile=trusted)
        with (
            socket.create_connection(("127.0.0.1", secure), 30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(request("GET", "/health"))
            self.assertIn(b" 200 ", client.recv(1000))

    def test_ldap(self) -> None:
        """A server that listens at plain TCP asks a directory with StartTLS."""
        require("ldaptor")
        slapd = Slapd(self.authority.sign("127.0.0.1"))
        self.addCleanup(slapd.remove)
        slapd.fill(ALICE)
        slapd.start()
        trusted = self.authority.write(self.folder / "authority.pem")
        ldap = {
            "module": "synapse_login_module.providers.LDAPProvider",
            "config": {
                **SEARCH,
                "servers": [slapd.url],
                "start_tls": True,
                "ca_file": str(trusted.absolute()),
            },
        }
        port = free_port()
        config = write_config(self.folder, good_config(port, password_providers=[ldap]))
        server = start_server(config, port)
        self.addCleanup(server.stop)
        for password, expected in ((PASSWORDS["alice"], 200), ("wrong", 403)):
            credentials = {"type": "m.login.password", "user": "alice", "password": password}
            status, _ = server.ask("POST", "/_matrix/client/v3/login", credentials)
            self.assertEqual(status, expected, server.log())
