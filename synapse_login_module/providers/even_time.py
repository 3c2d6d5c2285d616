"""Rejecting each login after the same time, whatever the backend found out."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger


class EvenTime:
    """Delays refusals to a fixed time, without a thread, so that the time tells nothing.

    :param reactor: measures the time and waits.
    :param name: the name of the provider, for the log.
    :param seconds: how long each refusal takes.
    """

    log = Logger()

    def __init__(self, reactor: Any, name: str, seconds: float) -> None:
        self._reactor = reactor
        self._name = name
        self._seconds = seconds
        self._was_late = False

    def now(self) -> float:
        """Return the reactor's time in seconds. It may be called on a thread."""
        seconds: float = self._reactor.seconds()
        return seconds

    async def wait(self, began: float) -> None:
        """Wait until a refusal is due.

        If that is over, a warning says so, once: a person could tell by the time whether a user
        exists.

        :param began: when the backend was asked, by :meth:`now`.
        """
        took = self.now() - began
        if took < self._seconds:
            await deferLater(self._reactor, self._seconds - took)
        elif not self._was_late:
            self._was_late = True
            self.log.warn(
                "{name}: a refusal took {took:.2f} seconds, so the time may tell which users exist:"
                " raise failure_time above that",
                name=self._name,
                took=took,
            )
