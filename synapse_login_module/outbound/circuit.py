"""A circuit breaker: after outages in a row, no requests are made for a while."""

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
    ProviderUnreachable,
    UnusableAccount,
)

NO_ROOM = (Overloaded, ProviderBusy)
"""Errors of a full queue or pool. They are no sign that the backend is down."""


class State(enum.Enum):
    """What a circuit does with the next request."""

    CLOSED = "closed"
    """Let it through."""
    OPEN = "open"
    """Reject it during the pause. After the pause, let it through as the trial."""
    HALF_OPEN = "half-open"
    """Reject it, because the trial is under way."""


class CircuitBreaking(NamedTuple):
    """When a circuit opens, and for how long.

    :param failures: how many outages in a row open it.
    :param window: within how many seconds these outages have to occur.
    :param pause: how many seconds it stays open. Then one request is let through as a trial.
    :param clock: a monotonic clock, in seconds.
    """

    failures: int
    window: float
    pause: float
    clock: Callable[[], float]


class Circuit:
    """Counts outages in a row, and decides which requests are let through.

    :param name: the name in the error that is raised while it is open.
    :param breaking: when it opens, and for how long.
    :param changed: called with each new state.
    """

    def __init__(
        self,
        name: str,
        breaking: CircuitBreaking,
        changed: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._name = name
        self._changed = changed
        _, self._window, self._pause, self._clock = breaking
        self._outages: deque[float] = deque(maxlen=breaking.failures)
        self._open_until = 0.0
        self.state = State.CLOSED

    @property
    def is_due(self) -> bool:
        """Whether the next request is let through: it is closed, or its pause is over."""
        if self.state is State.OPEN:
            return self._clock() >= self._open_until
        return self.state is State.CLOSED

    def open(self) -> None:
        """Open the circuit, or restart its pause if it is open."""
        self._outages.clear()
        self._open_until = self._clock() + self._pause
        self._become(State.OPEN)

    def close(self) -> None:
        """Close the circuit, and reset the count of outages."""
        self._outages.clear()
        self._become(State.CLOSED)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Let a request through, which is the body of the ``with``, and count its outcome.

        A refusal shows that the backend is up. So does an account that cannot be used: otherwise
        one such account could open the circuit for all. An error of another kind, such as
        ``CancelledError`` or one of :data:`NO_ROOM`, shows nothing.

        :raise ProviderUnreachable: at once, while the circuit is open or the trial is under way.
        """
        if not self.is_due:
            raise ProviderUnreachable(f"{self._name} is left alone after its outages")
        is_trial = self.state is State.OPEN
        if is_trial:
            self._become(State.HALF_OPEN)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, LoginServiceError) or isinstance(error, NO_ROOM):
                if is_trial:
                    # The trial has shown nothing, so the next request is the trial.
                    self._become(State.OPEN)
            elif isinstance(error, ProviderUnavailable) and not isinstance(error, UnusableAccount):
                self._failed(is_trial)
            else:
                self._answered(is_trial)
            raise
        self._answered(is_trial)

    def _answered(self, is_trial: bool) -> None:
        # The response to a request from before the circuit opened is out of date.
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
            self._changed(state)
