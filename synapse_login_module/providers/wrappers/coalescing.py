"""One question at a time about one thing, shared by all who ask meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import LoginServiceError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Coalescing(Generic[K, T]):
    """Asks about each key once at a time. Whoever asks meanwhile shares the answer.

    Nobody owns the question: to cancel, or to wait no longer than a timeout, leaves it to be
    answered, for the others and for what it does by itself. Nothing is remembered.

    :param question: asks about a key. It has to end, or the key is asked about in vain for ever.
    """

    log = Logger()

    def __init__(self, question: Callable[[K], Coroutine[Any, Any, T]]) -> None:
        self._question = question
        self._waiting: dict[K, list[Deferred[T]]] = {}

    def ask(self, key: K) -> Deferred[T]:
        """Ask, or wait for the answer to who has; fires and fails as the question does."""
        waiting = self._waiting.get(key)
        if waiting is None:
            asked = Deferred.fromCoroutine(self._question(key))
            if asked.called:
                return asked
            waiting = self._waiting[key] = []
            asked.addBoth(self._tell, key)
        answer: Deferred[T] = Deferred()
        waiting.append(answer)
        return answer

    def _tell(self, result: T | Failure, key: K) -> None:
        waiting = [answer for answer in self._waiting.pop(key) if not answer.called]
        for answer in waiting:
            answer.callback(result)
        if not waiting and isinstance(result, Failure):
            self._log_unseen(result)

    def _log_unseen(self, failure: Failure) -> None:
        """Log a mistake that nobody waited for any more; other failures need no line."""
        if not failure.check(LoginServiceError, CancelledError):
            self.log.failure("a question failed that nobody waits for any more", failure)
