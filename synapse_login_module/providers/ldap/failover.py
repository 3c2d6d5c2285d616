"""Chooses among several LDAP servers, by preference and by recent failures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.outbound.circuit import Circuit, CircuitBreaking, State
from synapse_login_module.providers.ldap.connection import LDAPServer, ServerFailed


@dataclass(eq=False)
class _Member:
    """A server and its circuit.

    :ivar problem: why the circuit is open; empty while it is closed.
    """

    server: LDAPServer
    circuit: Circuit
    problem: str = ""


class Failover:
    """Servers in order of preference, each with a circuit that opens when the server fails.

    A server whose circuit is open comes after the others until the pause is over.

    :param servers: the servers, the preferred one first.
    :param retry_after: the pause, in seconds.
    :param clock: a monotonic clock, in seconds.
    """

    log = Logger()

    def __init__(
        self, servers: Sequence[LDAPServer], retry_after: float, clock: Callable[[], float]
    ) -> None:
        breaking = CircuitBreaking(1, math.inf, retry_after, clock)
        self._members = [_Member(each, Circuit(each.url, breaking)) for each in servers]

    def __len__(self) -> int:
        return len(self._members)

    @property
    def all_failed(self) -> bool:
        """Whether every server has failed and not answered since."""
        return all(member.problem for member in self._members)

    def candidates(self) -> Iterator[LDAPServer]:
        """Yield the servers in the order to try them: those in their pause come last."""
        for member in sorted(self._members, key=lambda each: not each.circuit.is_due):
            if member.circuit.state is State.OPEN:
                member.circuit.open()  # so that other callers do not try it meanwhile
            yield member.server

    def is_best(self, server: LDAPServer) -> bool:
        """Return whether no server that is preferred to this one is due."""
        return next(
            member.server is server
            for member in self._members
            if member.server is server or member.circuit.is_due
        )

    def unavailable(self) -> ProviderUnavailable:
        """Return an error that says why each server failed."""
        problems = "; ".join(f"{each.server.url}: {each.problem}" for each in self._members)
        return ProviderUnavailable(f"LDAP: {problems}")

    def failed(self, server: LDAPServer, problem: ServerFailed) -> None:
        """Open the circuit of a server. Log the problem if it is a new one."""
        member = self._member(server)
        if member.problem != str(problem):
            self.log.error(
                "LDAP: {url} is left alone for now: {problem}", url=server.url, problem=str(problem)
            )
        member.problem = str(problem)
        member.circuit.open()

    def answered(self, server: LDAPServer) -> None:
        """Close the circuit of a server. Log that, if it had failed."""
        member = self._member(server)
        if member.problem:
            self.log.info("LDAP: {url} answers again", url=server.url)
            member.problem = ""
        member.circuit.close()

    def _member(self, server: LDAPServer) -> _Member:
        return next(member for member in self._members if member.server is server)
