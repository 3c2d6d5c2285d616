"""What all commands have in common: text for a terminal, and work in a reactor."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from synapse_login_module.errors import LoginServiceError


def printable(text: str) -> str:
    """A text that stays on its line and in its column."""
    return text if text.isprintable() else ascii(text)


def run_in_reactor(work: Callable[[Any], Coroutine[Deferred[Any], Any, None]]) -> None:
    """Run work to its end in a reactor of its own.

    :param work: called with the reactor.
    :raise synapse_login_module.errors.LoginServiceError: what the work fails with, for the command
        to say on one line. Any other failure ends the program with its traceback.
    """
    problems: list[LoginServiceError] = []

    async def watched(reactor: Any) -> None:
        try:
            await work(reactor)
        except LoginServiceError as error:
            problems.append(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(watched(reactor)))
    except SystemExit as ended:
        if ended.code:
            raise
    if problems:
        raise problems[0]
