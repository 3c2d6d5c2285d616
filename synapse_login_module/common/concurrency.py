"""Some work for each of many things, concurrently but bounded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults

A = TypeVar("A")
B = TypeVar("B")


async def at_once(number: int, work: Callable[[A], Awaitable[B]], given: Sequence[A]) -> list[B]:
    """Do some work for each of many things, a few at once; return the results in their order.

    :param number: how many at once.
    :raise Exception: what the first work that fails raises.
    """
    places = DeferredSemaphore(number)

    async def one(each: A) -> B:
        return await work(each)

    def in_turn(each: A) -> Deferred[B]:
        done: Deferred[B] = places.run(lambda: Deferred.fromCoroutine(one(each)))
        return done

    try:
        return list(await gatherResults(map(in_turn, given), consumeErrors=True))
    except FirstError as error:
        error.subFailure.raiseException()
        raise
