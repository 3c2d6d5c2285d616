"""Requests that callers share, and that are not cancelled with one of their callers."""

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


def shield(request: Deferred[T]) -> Deferred[T]:
    """Protect a request from being cancelled by its caller.

    :return: fires and fails as the request does. Cancelling it, or a timeout of it, does not cancel
        the request, which goes on to its end.
    """
    if request.called and not request.paused:
        return request
    result: Deferred[T] = Deferred()
    request.addBoth(_deliver, [result])
    return result


class Coalescing(Generic[K, T]):
    """Coalesces concurrent requests for one key. No caller can cancel the request.

    Results are not cached: after a request has ended, the next caller starts a new one.

    :param request: makes the request for a key. It has to end, so it needs a timeout.
    """

    def __init__(self, request: Callable[[K], Coroutine[Any, Any, T]]) -> None:
        self._request = request
        self._waiting: dict[K, list[Deferred[T]]] = {}

    def ask(self, key: K) -> Deferred[T]:
        """Start a request, or join the one that is under way; fires and fails as that does."""
        waiting = self._waiting.get(key)
        if waiting is None:
            request = Deferred.fromCoroutine(self._request(key))
            if request.called:
                return request
            waiting = self._waiting[key] = []
            request.addBoth(self._ended, key)
        result: Deferred[T] = Deferred()
        waiting.append(result)
        return result

    def _ended(self, result: T | Failure, key: K) -> None:
        _deliver(result, self._waiting.pop(key))


def _deliver(result: T | Failure, waiting: Sequence[Deferred[T]]) -> None:
    """Fire the Deferreds of the callers that still wait.

    If no caller waits any more, log an unexpected error.
    """
    is_delivered = False
    for each in waiting:
        if not each.called:
            is_delivered = True
            each.callback(result)
    if is_delivered or not isinstance(result, Failure):
        return
    if result.check(LoginServiceError, CancelledError) is None:
        _log.failure("a request that no caller waits for any more has failed", result)
