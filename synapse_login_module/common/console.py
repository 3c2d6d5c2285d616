"""Helpers for commands: text for a terminal, and work in a reactor."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timezone
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import react

T = TypeVar("T")


def printable(text: str) -> str:
    """Return the text, escaped if a terminal cannot print it on one line."""
    return text if text.isprintable() else ascii(text)


def escaped(line: str) -> str:
    """Return the line with each character escaped that a terminal cannot print or would obey.

    Unlike :func:`printable`, it leaves the other characters as they are, and tabs too.
    """
    return "".join(
        each if each == "\t" or each.isprintable() else ascii(each)[1:-1] for each in line
    )


def moment(milliseconds: int | None) -> str:
    """Format a time as ISO 8601 in UTC, to the second; ``None`` as ``-``.

    :param milliseconds: since the epoch.
    """
    if milliseconds is None:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")


def run_in_reactor(work: Callable[[Any], Coroutine[Deferred[Any], Any, T]]) -> T:
    """Start the reactor, run a coroutine to its end, and stop the reactor.

    A signal that stops the reactor cancels the coroutine, so its ``finally`` clauses run.

    :param work: called with the reactor; returns the coroutine.
    :return: the coroutine's result.
    :raise Exception: the coroutine's exception.
    :raise KeyboardInterrupt: when a signal stopped the reactor.
    """
    results: list[T] = []
    problems: list[Exception] = []
    stopped = False

    async def watched(reactor: Any) -> None:
        nonlocal stopped
        try:
            results.append(await work(reactor))
        except KeyboardInterrupt:  # before the reactor runs and handles signals
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
