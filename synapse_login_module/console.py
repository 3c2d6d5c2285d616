"""What all commands have in common: text for a terminal, and work in a reactor."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timezone
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import react

T = TypeVar("T")


def printable(text: str) -> str:
    """A text that stays on its line and in its column."""
    return text if text.isprintable() else ascii(text)


def moment(milliseconds: int | None) -> str:
    """A time as people and programs read it: ISO 8601, to the second, in UTC; ``-`` for none.

    :param milliseconds: since the epoch.
    """
    if milliseconds is None:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")


def run_in_reactor(work: Callable[[Any], Coroutine[Deferred[Any], Any, T]]) -> T:
    """Run work to its end in a reactor of its own.

    A signal that ends the reactor cancels the work, which has its ``finally`` clauses run.

    :param work: called with the reactor.
    :return: what the work returns.
    :raise Exception: what the work fails with.
    :raise KeyboardInterrupt: when a signal ended it.
    """
    results: list[T] = []
    problems: list[Exception] = []
    stopped = False

    async def watched(reactor: Any) -> None:
        nonlocal stopped
        try:
            results.append(await work(reactor))
        except KeyboardInterrupt:  # before the reactor runs, and handles signals
            stopped = True
        except Exception as error:
            problems.append(error)

    def main(reactor: Any) -> Deferred[None]:
        done = Deferred.fromCoroutine(watched(reactor))

        def cancel() -> Deferred[None] | None:
            nonlocal stopped
            if done.called:
                return None
            stopped = True
            done.cancel()
            return done

        reactor.addSystemEventTrigger("before", "shutdown", cancel)
        return done

    try:
        react(main)
    except SystemExit as ended:
        if ended.code:
            raise
    if stopped:
        raise KeyboardInterrupt
    if problems:
        raise problems[0]
    return results[0]
