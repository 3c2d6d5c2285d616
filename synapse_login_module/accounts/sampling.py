"""Estimates for the brake how many accounts are gone, by asking about a sample of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from synapse_login_module.accounts.questions import Questions
from synapse_login_module.errors import LoginServiceError
from synapse_login_module.model import AccountStatus, Link

MOST = 1000
"""The size of a sample at most."""

_ROUND = 50
"""How many accounts are asked about before the estimate is looked at."""

_TIMEOUT = 10.0
_DEVIATIONS = 3.0
"""The width of the confidence interval, in standard deviations to each side."""


class Sampler:
    """Asks about as many accounts as it takes to tell whether too many are gone.

    :param questions: asks the providers.
    :param clock: ends questions that take longer than ``_TIMEOUT``.
    """

    log = Logger()

    def __init__(self, questions: Questions, clock: IReactorTime) -> None:
        self._questions = questions
        self._clock = clock

    async def gone(self, drawn: Sequence[Link | str], size: int, most: int) -> float:
        """Estimate how many accounts are gone.

        It stops asking once it is clear whether more than ``most`` are gone. After all of ``size``
        have been asked about, the result is exact.

        :param drawn: a sample of the accounts or all of them, in random order.
        :param size: how many accounts there are.
        :param most: how many of them may be gone.
        :return: how many are gone. When fewer than half of the questions were answered, all count
            as gone.
        """
        asked = answered = gone = 0
        for start in range(0, len(drawn), _ROUND):
            answers = await self._ask_all(drawn[start : start + _ROUND])
            asked += len(answers)
            answered += sum(is_answer for is_answer, _ in answers)
            gone += sum(is_answer and status is None for is_answer, status in answers)
            if 2 * answered < asked:
                return size
            low, high = _bounds(gone, answered)
            if high * size <= most or low * size > most:
                break
        return gone / answered * size if answered else 0.0

    async def _ask_all(
        self, accounts: Sequence[Link | str]
    ) -> list[tuple[bool, AccountStatus | None]]:
        asking = [Deferred.fromCoroutine(self._ask(each)) for each in accounts]
        answers: list[tuple[bool, AccountStatus | None]] = await gatherResults(asking)
        return answers

    async def _ask(self, account: Link | str) -> tuple[bool, AccountStatus | None]:
        """Ask about one account; return whether there was an answer, and the answer."""
        asked = self._questions.ask(account).addTimeout(_TIMEOUT, self._clock)
        try:
            return True, await asked
        except LoginServiceError:
            return False, None
        except Exception as error:  # a third-party provider raised it, or the time is up
            self.log.debug("no answer for the brake: {problem}", problem=repr(error))
            return False, None


def _bounds(gone: int, answered: int) -> tuple[float, float]:
    """Return the lower and the upper bound of the share of gone accounts.

    The true share lies between them in all but a few of a thousand samples.
    """
    margin = _DEVIATIONS * math.sqrt(gone + 1)
    return (gone - margin) / answered, (gone + 2 + margin) / answered
