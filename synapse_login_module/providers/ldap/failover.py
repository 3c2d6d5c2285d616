"""Which of several servers is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.providers.circuit import Circuit, CircuitBreaking, State
from synapse_login_module.providers.ldap.connection import LDAPServer, ServerFailed


@dataclass(eq=False)
class _Member:
    """A server, and its circuit.

    :ivar problem: why the circuit is open; empty while it is closed.
    """

    server: LDAPServer
    circuit: Circuit
    problem: str = ""


class Failover:
    """Servers in order of preference; the circuit of one that failed is open for a while.

    After that it is preferred again. Where no other answers it is tried before that too.

    :param retry_after: for how many seconds.
    :param clock: a clock that never goes back.
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
    def nobody_answers(self) -> bool:
        """Whether all have failed."""
        return all(member.problem for member in self._members)

    def candidates(self) -> Iterator[LDAPServer]:
        """The servers to try, in order; those that failed lately come last."""
        for member in sorted(self._members, key=lambda each: not each.circuit.is_due):
            if member.circuit.state is State.OPEN:
                member.circuit.open()  # it is left alone while this one tries
            yield member.server

    def is_best(self, server: LDAPServer) -> bool:
        """Whether none that would be better is due."""
        return next(
            member.server is server
            for member in self._members
            if member.server is server or member.circuit.is_due
        )

    def unavailable(self) -> ProviderUnavailable:
        """What is wrong with each."""
        problems = "; ".join(f"{each.server.url}: {each.problem}" for each in self._members)
        return ProviderUnavailable(f"LDAP: {problems}")

    def failed(self, server: LDAPServer, problem: ServerFailed) -> None:
        """Leave a server alone."""
        member = self._member(server)
        if member.problem != str(problem):
            self.log.error(
                "LDAP: {url} is left alone for now: {problem}", url=server.url, problem=str(problem)
            )
        member.problem = str(problem)
        member.circuit.open()

    def answered(self, server: LDAPServer) -> None:
        """Prefer a server again."""
        member = self._member(server)
        if member.problem:
            self.log.info("LDAP: {url} answers again", url=server.url)
            member.problem = ""
        member.circuit.close()

    def _member(self, server: LDAPServer) -> _Member:
        return next(member for member in self._members if member.server is server)
