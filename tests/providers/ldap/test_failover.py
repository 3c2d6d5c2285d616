"""Tests for the choice among several servers."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.providers.ldap.connection import LDAPServer, ServerFailed
from synapse_login_module.providers.ldap.failover import Failover
from tests.providers.case import lines


def server(name: str) -> LDAPServer:
    """A server."""
    return LDAPServer(f"ldap://{name}", name, 389, None, start_tls=False)


class FailoverTests(SynchronousTestCase):
    """Two servers, the first of which is preferred."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.first, self.second = server("first"), server("second")
        self.servers = Failover([self.first, self.second], 30, self.clock.seconds)

    def order(self) -> list[str]:
        """The servers as they would be tried."""
        return [each.host for each in self.servers.candidates()]

    def leave(self, failing: LDAPServer, problem: str = "it is away") -> None:
        """Have a server fail."""
        self.servers.failed(failing, ServerFailed(problem))

    def test_left_alone(self) -> None:
        """One that failed comes last for so long, and is preferred again then."""
        self.assertEqual(self.order(), ["first", "second"])
        self.leave(self.first)
        self.clock.advance(29.9)
        self.assertTrue(self.servers.is_best(self.second))
        self.clock.advance(0.1)
        self.assertFalse(self.servers.is_best(self.second))
        self.assertEqual(self.order(), ["first", "second"])

    def test_one_tries(self) -> None:
        """While one tries it again, however that ends, it comes last for the others."""
        self.leave(self.first)
        self.clock.advance(30)
        self.assertEqual(next(self.servers.candidates()), self.first)
        self.assertTrue(self.servers.is_best(self.second))
        self.assertEqual(self.order(), ["second", "first"])
        self.clock.advance(30)
        self.assertFalse(self.servers.is_best(self.second))

    def test_answers(self) -> None:
        """An answer, also to what was asked before it failed, has it preferred at once."""
        self.leave(self.first)
        self.servers.answered(self.first)
        self.assertTrue(self.servers.is_best(self.first))
        self.assertEqual(self.order(), ["first", "second"])

    def test_all_failed(self) -> None:
        """When all have failed they are tried in order, and each is named with its problem."""
        self.leave(self.first)
        self.assertFalse(self.servers.all_failed)
        self.leave(self.second, "it is busy")
        self.assertTrue(self.servers.all_failed)
        self.assertEqual(self.order(), ["first", "second"])
        problems = "LDAP: ldap://first: it is away; ldap://second: it is busy"
        self.assertEqual(str(self.servers.unavailable()), problems)
        self.servers.answered(self.second)
        self.assertFalse(self.servers.all_failed)
        self.assertEqual(self.order(), ["second", "first"])

    def test_log(self) -> None:
        """Each problem is logged once in a row, and so is that the server answers again."""
        with capturedLogs() as events:
            self.servers.answered(self.first)
            for problem in ("it is away", "it is away", "it is busy"):
                self.leave(self.first, problem)
            self.servers.answered(self.first)
            self.servers.answered(self.first)
        self.assertEqual(
            lines(events, LogLevel.info),
            [
                "LDAP: ldap://first is left alone for now: it is away",
                "LDAP: ldap://first is left alone for now: it is busy",
                "LDAP: ldap://first answers again",
            ],
        )

    def test_twice(self) -> None:
        """A server that is named twice is tried twice."""
        servers = Failover([server("only"), server("only")], 30, self.clock.seconds)
        self.assertEqual(len(list(servers.candidates())), 2)
