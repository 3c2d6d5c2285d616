"""Which of several servers is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twisted.logger import Logger

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.providers.ldap.connection import LDAPServer, ServerFailed


class _State:
    """What is known of a server.

    :ivar problem: why it is not used for now; empty when it is.
    :ivar retry_at: when it is preferred again all the same.
    """

    def __init__(self, server: LDAPServer) -> None:
        self.server = server
        self.problem = ""
        self.retry_at = 0.0

    def is_preferred(self, now: float) -> bool:
        """Whether it answers, or failed so long ago that it may again."""
        return not self.problem or now >= self.retry_at


class Failover:
    """Servers in order of preference; one that failed is left alone for a while.

    :param retry_after: for how many seconds.
    :param clock: a clock that never goes back.
    """

    log = Logger()

    def __init__(
        self, servers: Sequence[LDAPServer], retry_after: float, clock: Callable[[], float]
    ) -> None:
        self._states = [_State(server) for server in servers]
        self._retry_after = retry_after
        self._clock = clock

    def __len__(self) -> int:
        return len(self._states)

    @property
    def nobody_answers(self) -> bool:
        """Whether all have failed."""
        return all(state.problem for state in self._states)

    def candidates(self) -> Iterator[LDAPServer]:
        """The servers to try, in order; those that failed lately come last."""
        now = self._clock()
        for state in sorted(self._states, key=lambda state: not state.is_preferred(now)):
            state.retry_at = now + self._retry_after
            yield state.server

    def is_best(self, server: LDAPServer) -> bool:
        """Whether none that would be better is due."""
        now = self._clock()
        for state in self._states:
            if state.server is server:
                return True
            if state.is_preferred(now):
                return False
        raise ValueError("no server of ours")

    def unavailable(self) -> ProviderUnavailable:
        """What is wrong with each."""
        problems = "; ".join(f"{each.server.url}: {each.problem}" for each in self._states)
        return ProviderUnavailable(f"LDAP: {problems}")

    def failed(self, server: LDAPServer, problem: ServerFailed) -> None:
        """Leave a server alone."""
        state = self._state_of(server)
        if state.problem != str(problem):
            self.log.error(
                "LDAP: {url} is left alone for now: {problem}", url=server.url, problem=str(problem)
            )
        state.problem = str(problem)
        state.retry_at = self._clock() + self._retry_after

    def answered(self, server: LDAPServer) -> None:
        """Prefer a server again."""
        state = self._state_of(server)
        if state.problem:
            self.log.info("LDAP: {url} answers again", url=server.url)
            state.problem = ""

    def _state_of(self, server: LDAPServer) -> _State:
        return next(state for state in self._states if state.server is server)
