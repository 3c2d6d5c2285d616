"""A circuit breaker: what failed is left alone for a while."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from synapse_login_module.errors import (
    LoginServiceError,
    Overloaded,
    ProviderBusy,
    ProviderUnavailable,
)
from synapse_login_module.providers.identifiers import UnusableAccount

NO_ROOM = (Overloaded, ProviderBusy)
"""Too much is asked at once, which does not say that the backend is away."""


class State(enum.Enum):
    """What a circuit does with the next question."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitBreaking(NamedTuple):
    """When a circuit opens, and for how long.

    :param failures: after how many outages in a row.
    :param window: within how many seconds they must come.
    :param pause: how many seconds it stays open; then one question is let through.
    :param clock: a clock that never goes back.
    """

    failures: int
    window: float
    pause: float
    clock: Callable[[], float]


class Circuit:
    """Counts outages in a row, and decides who may ask.

    :param name: what is asked, for the error while it is open.
    :param breaking: when it opens.
    :param tell: called with each state that it changes to.
    """

    def __init__(
        self,
        name: str,
        breaking: CircuitBreaking,
        tell: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._name = name
        self._tell = tell
        _, self._window, self._pause, self._clock = breaking
        self._outages: deque[float] = deque(maxlen=breaking.failures)
        self._open_until = 0.0
        self.state = State.CLOSED

    @property
    def is_due(self) -> bool:
        """Whether a question is let through: it is closed, or its pause is over."""
        if self.state is State.OPEN:
            return self._clock() >= self._open_until
        return self.state is State.CLOSED

    def open(self) -> None:
        """Begin the pause, anew if it has begun."""
        self._outages.clear()
        self._open_until = self._clock() + self._pause
        self._become(State.OPEN)

    def close(self) -> None:
        """Let every question through."""
        self._outages.clear()
        self._become(State.CLOSED)

    @contextmanager
    def question(self) -> Iterator[None]:
        """Let one question through, and count how it ends.

        A refusal is an answer. So is an account that cannot be used: otherwise one such account
        could open the circuit for all.

        :raise ProviderUnavailable: at once, while the circuit is open.
        """
        if not self.is_due:
            raise ProviderUnavailable(f"{self._name} is left alone after its outages")
        is_trial = self.state is State.OPEN
        if is_trial:
            self._become(State.HALF_OPEN)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, LoginServiceError) or isinstance(error, NO_ROOM):
                if is_trial:
                    # Who asked went away, or found no room: the next one tries.
                    self._become(State.OPEN)
            elif isinstance(error, ProviderUnavailable) and not isinstance(error, UnusableAccount):
                self._failed(is_trial)
            else:
                self._answered(is_trial)
            raise
        self._answered(is_trial)

    def _answered(self, is_trial: bool) -> None:
        # What was asked before it opened says nothing of now.
        if is_trial or self.state is State.CLOSED:
            self.close()

    def _failed(self, is_trial: bool) -> None:
        if is_trial:
            self.open()
        elif self.state is State.CLOSED:
            now = self._clock()
            self._outages.append(now)
            full = len(self._outages) == self._outages.maxlen
            if full and now - self._outages[0] <= self._window:
                self.open()

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._tell(state)
