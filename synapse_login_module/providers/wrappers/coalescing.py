"""Questions that no single caller owns: shielded from cancelling, and shared."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import LoginServiceError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_log = Logger()


def shield(asked: Deferred[T]) -> Deferred[T]:
    """Wait for an answer without owning the question: cancelling this, or a timeout of it, does not
    cancel the question, and what that does by itself is done.

    :return: fires and fails as the question does.
    """
    if asked.called:
        return asked
    answer: Deferred[T] = Deferred()
    asked.addBoth(_tell, [answer])
    return answer


class Coalescing(Generic[K, T]):
    """Asks about each key once at a time. Callers who ask meanwhile share the answer, shielded.

    Nothing is remembered: a caller who comes after the answer asks anew.

    :param question: asks about a key. It has to end, so it needs a timeout.
    """

    def __init__(self, question: Callable[[K], Coroutine[Any, Any, T]]) -> None:
        self._question = question
        self._waiting: dict[K, list[Deferred[T]]] = {}

    def ask(self, key: K) -> Deferred[T]:
        """Ask, or join the question that is under way; fires and fails as that does."""
        waiting = self._waiting.get(key)
        if waiting is None:
            asked = Deferred.fromCoroutine(self._question(key))
            if asked.called:
                return asked
            waiting = self._waiting[key] = []
            asked.addBoth(self._answered, key)
        answer: Deferred[T] = Deferred()
        waiting.append(answer)
        return answer

    def _answered(self, result: T | Failure, key: K) -> None:
        _tell(result, self._waiting.pop(key))


def _tell(result: T | Failure, waiting: Sequence[Deferred[T]]) -> None:
    """Answer the callers who still wait. Where there are none, log a mistake."""
    is_told = False
    for answer in waiting:
        if not answer.called:
            is_told = True
            answer.callback(result)
    if is_told or not isinstance(result, Failure):
        return
    if result.check(LoginServiceError, CancelledError) is None:
        _log.failure("a question failed that nobody waits for any more", result)
