"""Tests for the checks of endpoint descriptions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config import listen
from synapse_login_module.errors import ConfigError


class CheckTests(SynchronousTestCase):
    """The check of descriptions."""

    def test_good(self) -> None:
        """Valid descriptions pass, and nothing listens."""
        reactor = MemoryReactorClock()
        for description in (
            "tcp:8008",
            "tcp:8008:interface=127.0.0.1",
            "tcp:port=8008:interface=\\:\\:1",
            "unix:/run/login.sock",
            "unix:address=/run/login.sock:mode=660",
        ):
            listen.check(reactor, description)
        self.assertEqual((reactor.tcpServers, reactor.unixServers), ([], []))

    def test_bad(self) -> None:
        """Invalid descriptions are rejected in one line that quotes them."""
        for description in (
            "",
            "x",
            "8008",
            "tcp",
            "tcp:",
            "tcp:x",
            "tcp:8008:nonsense=1",
            "tcp:interface=127.0.0.1",
            "udp:8008",
            "tcp:8008:127.0.0.1:50:more:and:more",
            "ssl:8443:privateKey=/nowhere.pem",
            "a\nb",
            "tcp:8008\0",
        ):
            error = self.assertRaises(ConfigError, listen.check, MemoryReactorClock(), description)
            self.assertEqual(len(str(error).splitlines()), 1)
            self.assertIn(repr(description), str(error))

    def test_socket_of_systemd(self) -> None:
        """Of a socket that only systemd opens, the description is checked where there is none."""
        for description in (
            "systemd:domain=INET:index=0",
            "systemd:domain=INET6:name=login",
            "systemd:UNIX:1",
        ):
            listen.check(MemoryReactorClock(), description)
            error = self.assertRaises(
                ConfigError, listen.check, MemoryReactorClock(), description, starts=True
            )
            self.assertEqual(str(error), f"systemd has not handed over {description!r}")

    def test_mistake_in_a_socket_of_systemd(self) -> None:
        """A description that no socket of systemd's can have is rejected everywhere."""
        for description in (
            "systemd:",
            "systemd:domain=INET",
            "systemd:domain=INET:index=x",
            "systemd:domain=INET:index=-1",
            "systemd:domain=INET:index=0:name=login",
            "systemd:domain=INTE:index=0",
            "systemd:index=0",
            "systemd:domain=INET:index=0:more=1",
        ):
            for starts in (False, True):
                error = self.assertRaises(
                    ConfigError, listen.check, MemoryReactorClock(), description, starts=starts
                )
                self.assertIn(f"{description!r} is not an endpoint", str(error))

    @given(st.text(max_size=20) | st.text(":=\\tcp0123456789 ", max_size=20).map("tcp:".__add__))
    def test_anything(self, description: str) -> None:
        """Any text passes or is a ConfigError, and is classified as local or not."""
        try:
            listen.check(MemoryReactorClock(), description)
        except ConfigError as error:
            self.assertEqual(len(str(error).splitlines()), 1, ascii(str(error)))
        self.assertIn(listen.is_local(description), (True, False))


class PlainTCPTests(SynchronousTestCase):
    """Descriptions that say no more than a port and an interface."""

    def test_as_twisted(self) -> None:
        """Twisted listens at the same port and interface, whatever the description."""
        for description in (
            "tcp:8008",
            "tcp:port=8008",
            "tcp:8008:interface=",
            "tcp:8008:interface=127.0.0.1",
            "tcp:port=8008:interface=\\:\\:1",
            "tcp:8008:interface=localhost",
        ):
            reactor = MemoryReactorClock()
            serverFromString(reactor, description).listen(Factory())
            port, _, _, interface = reactor.tcpServers[0]
            self.assertEqual(listen.plain_tcp(description), (port, interface), description)

    def test_other(self) -> None:
        """A description that says more, or has mistakes, is left to Twisted."""
        for description in (
            "tcp",
            "tcp:",
            "tcp:x",
            "tcp:٨",
            "tcp:8008:127.0.0.1",
            "tcp:8008:backlog=5",
            "tcp:8008:interface=127.0.0.1:backlog=5",
            "tcp:port=8008:127.0.0.1",
            "tcp:8008:interface=::1",
            "tcp6:8008",
            "haproxy:tcp:8008",
            "unix:/run/login.sock",
        ):
            self.assertIsNone(listen.plain_tcp(description), description)


class IsLocalTests(SynchronousTestCase):
    """The check whether an endpoint is local."""

    def test_local(self) -> None:
        """Loopback addresses and Unix sockets are local."""
        for description in (
            "tcp:8008:interface=127.0.0.1",
            "tcp:8008:interface=127.1.2.3",
            "tcp:8008:interface=localhost",
            "tcp:interface=127.0.0.1:port=8008",
            "tcp:8008:127.0.0.1",
            "tcp:8008:127.0.0.1:50",
            "tcp:8008:interface=\\:\\:1",
            "tcp6:8008:interface=\\:\\:1",
            "ssl:8443:interface=127.0.0.1",
            "unix:/run/login.sock",
        ):
            self.assertTrue(listen.is_local(description), description)

    def test_not_local(self) -> None:
        """Everything else is not local, including unknown descriptions."""
        for description in (
            "tcp:8008",
            "tcp:8008:",
            "tcp:8008:interface=",
            "tcp:8008:interface=0.0.0.0",
            "tcp:8008:interface=192.0.2.1",
            "tcp:8008:interface=\\:\\:",
            "tcp:8008:0.0.0.0",
            "tcp:8008:interface=example.com",
            "tcp:8008:interface=localhost.example.com",
            "tcp:8008:interface=127.0.0.1.example.com",
            "tcp:8008:50",
            "tcp:8008:backlog=127.0.0.1",
            "systemd:domain=INET:index=0",
            "haproxy:tcp:8008:interface=127.0.0.1",
            "",
            "x",
        ):
            self.assertFalse(listen.is_local(description), description)

    def test_said_twice(self) -> None:
        """If the interface is given twice, the one that Twisted uses counts."""
        for first, second in (("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")):
            description = f"tcp:8008:interface={first}:interface={second}"
            reactor = MemoryReactorClock()
            serverFromString(reactor, description).listen(Factory())
            listens_on = reactor.tcpServers[0][3]
            if listen.is_local(description):
                self.assertEqual(listens_on, "127.0.0.1", description)
