"""A provider that is left alone for a while when it cannot be reached."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import (
    LoginServiceError,
    Overloaded,
    ProviderBusy,
    ProviderUnavailable,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier

T = TypeVar("T")


class State(enum.Enum):
    """What a circuit does with the next question."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Circuit:
    """Counts the outages of one operation, and decides who may try it.

    :param name: whose operation, and which, for the log.
    :param failures: after how many outages in a row it opens.
    :param window: within how many seconds they must come.
    :param pause: for how many seconds nobody tries.
    :param clock: a clock that never goes back.
    :param tell: called with each state that it changes to.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        failures: int,
        window: float,
        pause: float,
        clock: Callable[[], float],
        tell: Callable[[State], None],
    ) -> None:
        self._name = name
        self._window = window
        self._pause = pause
        self._clock = clock
        self._tell = tell
        self._outages: deque[float] = deque(maxlen=failures)
        self._open_until = 0.0
        self.state = State.CLOSED

    def ask(self, question: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Ask, unless the circuit is open.

        :return: what the question fires with; while the circuit is open it fails at once with
            :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """
        trial = self.state is State.OPEN and self._clock() >= self._open_until
        if trial:
            self._become(State.HALF_OPEN)
        elif self.state is not State.CLOSED:
            return fail(ProviderUnavailable(f"{self._name} is left alone after its outages"))
        return question().addCallbacks(
            self._answered, self._failed, callbackArgs=(trial,), errbackArgs=(trial,)
        )

    def _answered(self, answer: T, trial: bool) -> T:
        self._reached(trial)
        return answer

    def _failed(self, failure: Failure, trial: bool) -> Failure:
        no_room = failure.check(Overloaded, ProviderBusy)
        if failure.check(ProviderUnavailable) and not no_room:
            self._unreached(trial)
        elif failure.check(LoginServiceError) and not no_room:
            self._reached(trial)
        elif trial:
            # Whoever tried went away, or found no room: the next one tries.
            self.state = State.OPEN
            self._tell(self.state)
        return failure

    def _reached(self, trial: bool) -> None:
        if trial:
            self._become(State.CLOSED)
        if self.state is State.CLOSED:
            self._outages.clear()

    def _unreached(self, trial: bool) -> None:
        now = self._clock()
        if trial:
            self._open(now)
            return
        if self.state is not State.CLOSED:
            return
        self._outages.append(now)
        full = len(self._outages) == self._outages.maxlen
        if full and now - self._outages[0] <= self._window:
            self._open(now)

    def _open(self, now: float) -> None:
        self._outages.clear()
        self._open_until = now + self._pause
        self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self.state = state
        self._tell(state)
        self.log.warn("{name}: the circuit is {state}", name=self._name, state=state.value)


@implementer(IPasswordProvider)
class CircuitBreaker:
    """Spares a provider that is down, and those who would wait for it in vain.

    Logins and looks at an account's status are counted apart: the one may be answered from memory
    while the other cannot reach anybody.

    :param provider: who is asked; with a deadline of its own, or an outage may last for ever.
    :param failures: after how many outages in a row it is left alone.
    :param window: within how many seconds they must come.
    :param pause: for how many seconds it is left alone; then one question is let through.
    :param clock: a clock that never goes back.
    :param tell: called with the provider's name, the operation and each state that it changes to.
    """

    def __init__(
        self,
        provider: IPasswordProvider,
        failures: int,
        window: float,
        pause: float,
        clock: Callable[[], float],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._provider = provider
        self.name = provider.name

        def circuit(operation: str) -> Circuit:
            def tell_state(state: State) -> None:
                tell(provider.name, operation, state.value)

            name = f"{provider.name}.{operation}"
            return Circuit(name, failures, window, pause, clock, tell_state)

        self._authenticate = circuit("authenticate")
        self._account_status = circuit("account_status")

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Ask for a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._authenticate.ask(lambda: self._provider.authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Ask for a status; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._account_status.ask(lambda: self._provider.account_status(subject))
