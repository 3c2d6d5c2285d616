"""The history of what clients sent and received, and its checker.

The recorder keeps each use of a token pair: when it was sent, when the response came, and the
response. Times are the clients' own: of two requests, one that was sent after the other's response
certainly reached the server later. All other requests count as concurrent.

The checker knows nothing of the store. :class:`Invariant` states what must hold for a server that
may be killed at any moment, and the checker judges a history by that. A request without a response
may have been carried out or not; either is correct.
"""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import count


class Use(enum.Enum):
    """The request that a token pair is used for."""

    STRICT = "/tokenrefresh"
    LENIENT = "/refresh"
    LOOK_UP = "/account/whoami"
    LOG_OUT = "/logout"

    @property
    def refreshes(self) -> bool:
        """Whether the use returns a new pair."""
        return self in (Use.STRICT, Use.LENIENT)


class Outcome(enum.Enum):
    """The response as the client saw it; ``UNKNOWN`` is no response."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Invariant(enum.Enum):
    """The rules that a server has to keep."""

    WORKS = "an acknowledged pair works until something sent may have ended it"
    ONE_PAIR = "for one generation of a session only one pair is handed out"
    STAYS_DEAD = "a pair that was surely ended, or refused, is refused ever after"
    KEPT = "an acknowledged session stays until something sent may have ended it"


@dataclass(frozen=True, slots=True)
class Pair:
    """An access token and the refresh token that came with it."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)


@dataclass(slots=True, eq=False)
class Request:
    """One use of a pair.

    :param sent: when it was sent, in ticks of the history.
    :param answered: the tick from which on the server can no longer act on it.
    :param answer: the new pair, if a refresh was accepted.
    """

    session: str
    pair: Pair
    use: Use
    sent: int
    answered: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    answer: Pair | None = None

    @property
    def may_have_run(self) -> bool:
        """Whether the server may have carried out the request."""
        return self.outcome is not Outcome.REFUSED

    def __str__(self) -> str:
        return f"{self.use.value} {self.outcome.value} [{self.sent}, {self.answered}]"


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated invariant."""

    invariant: Invariant
    session: str
    what: str

    def __str__(self) -> str:
        return f"{self.session}: {self.what}: against “{self.invariant.value}”"


class History:
    """Records requests and responses.

    :ivar logins: the pair that each session began with.
    :ivar requests: the requests, in the order in which they were sent.
    :ivar kept: the sessions found in the store, and the tick at which it was read; ``None`` before.
    """

    def __init__(self) -> None:
        self.logins: dict[str, Pair] = {}
        self.requests: list[Request] = []
        self.kept: tuple[int, frozenset[str]] | None = None
        self._ticks = count(1)

    def logged_in(self, session: str, pair: Pair) -> None:
        """Record a login that was acknowledged."""
        self.logins[session] = pair

    def ask(self, session: str, pair: Pair, use: Use) -> Request:
        """Record that a pair is presented. One of the methods below records the outcome."""
        request = Request(session, pair, use, next(self._ticks))
        self.requests.append(request)
        return request

    def accepted(self, request: Request, answer: Pair | None = None) -> None:
        """Record that the server accepted the request.

        :param answer: the new pair, if this was a refresh.
        """
        request.outcome, request.answer = Outcome.ACCEPTED, answer
        request.answered = next(self._ticks)

    def refused(self, request: Request) -> None:
        """Record that the server rejected the pair."""
        request.outcome = Outcome.REFUSED
        request.answered = next(self._ticks)

    def lost(self, request: Request) -> None:
        """Record that no response came, and that the server can no longer act on the request."""
        request.answered = next(self._ticks)

    def unsent(self, request: Request) -> None:
        """Record that the request was never sent, because there was no connection."""
        self.requests.remove(request)

    def found(self, sessions: Collection[str]) -> None:
        """Record the sessions found in the store."""
        self.kept = next(self._ticks), frozenset(sessions)


def check(history: History) -> list[Violation]:
    """Check a history; return the violations, none if it is correct."""
    by_session: dict[str, list[Request]] = {session: [] for session in history.logins}
    for request in history.requests:
        by_session[request.session].append(request)
    violations = list(_shared_tokens(history))
    for session, requests in by_session.items():
        violations.extend(_SessionChecker(history, session, requests).violations())
    return violations


def _shared_tokens(history: History) -> Iterator[Violation]:
    """Yield violations for tokens that are in two different pairs or sessions."""
    owners: dict[str, tuple[str, Pair]] = {}
    handed_out = [
        *history.logins.items(),
        *((each.session, each.answer) for each in history.requests if each.answer),
    ]
    for session, pair in handed_out:
        for token in (pair.access, pair.refresh):
            if owners.setdefault(token, (session, pair)) != (session, pair):
                yield Violation(Invariant.ONE_PAIR, session, "a token is in two pairs")


class _SessionChecker:
    """Checks the requests of one session."""

    def __init__(self, history: History, session: str, requests: list[Request]) -> None:
        self._session = session
        self._requests = requests
        self._kept = history.kept
        self._uses: dict[Pair, list[Request]] = defaultdict(list)
        self._answers: dict[Pair, list[Pair]] = defaultdict(list)
        for request in requests:
            self._uses[request.pair].append(request)
            if request.answer is not None and request.answer not in self._answers[request.pair]:
                self._answers[request.pair].append(request.answer)
        self._generations = self._number(history.logins[session])
        self._endings = self._find_endings()

    def violations(self) -> Iterator[Violation]:
        """Yield the violations of the session."""
        for pair, answers in self._answers.items():
            if len(answers) > 1:
                yield self._violation(
                    Invariant.ONE_PAIR,
                    f"generation {self._generations[pair] + 1} was handed out"
                    f" as {len(answers)} different pairs",
                )
        for request in self._requests:
            if request.outcome is Outcome.REFUSED and not self._may_be_dead(request):
                yield self._violation(Invariant.WORKS, self._describe(request))
            if request.outcome is Outcome.ACCEPTED and self._is_dead(request):
                yield self._violation(Invariant.STAYS_DEAD, self._describe(request))
        if self._kept is not None:
            looked, sessions = self._kept
            if self._session not in sessions and not any(
                ending.sent < looked for ending in self._endings
            ):
                yield self._violation(Invariant.KEPT, "it is not in the store")

    def _number(self, first: Pair) -> dict[Pair, int]:
        """Map each acknowledged pair to its generation."""
        generations = {first: 0}
        waiting = [first]
        while waiting:
            pair = waiting.pop()
            for answer in self._answers.get(pair, ()):
                if answer not in generations:
                    generations[answer] = generations[pair] + 1
                    waiting.append(answer)
        return generations

    def _may_be_dead(self, refused: Request) -> bool:
        """Return whether a request sent before the rejection may have ended the pair."""
        enders = [*self._enders(refused.pair), *self._endings]
        return any(each is not refused and each.sent < refused.answered for each in enders)

    def _is_dead(self, accepted: Request) -> bool:
        """Return whether the pair was ended or rejected before the request was sent."""
        enders = [each for each in self._enders(accepted.pair) if each.outcome is Outcome.ACCEPTED]
        enders += [each for each in self._endings if each.use is Use.LOG_OUT]
        enders += [each for each in self._uses[accepted.pair] if each.outcome is Outcome.REFUSED]
        return any(
            each.outcome is not Outcome.UNKNOWN and each.answered < accepted.sent for each in enders
        )

    def _enders(self, pair: Pair) -> Iterator[Request]:
        """Yield what ends a pair if it ran: its strict refresh, a use of its successor."""
        for request in self._uses[pair]:
            if request.use is Use.STRICT and request.may_have_run:
                yield request
        for successor in self._answers.get(pair, ()):
            for request in self._uses[successor]:
                if request.may_have_run:
                    yield request

    def _find_endings(self) -> list[Request]:
        """Find requests that may have ended the session: logouts, and late reuse of a token."""
        first_use_from = [math.inf] * (max(self._generations.values(), default=0) + 2)
        for request in self._requests:
            if request.use.refreshes and request.may_have_run:
                generation = self._generations[request.pair]
                first_use_from[generation] = min(first_use_from[generation], request.sent)
        for generation in reversed(range(len(first_use_from) - 1)):
            following = first_use_from[generation + 1]
            first_use_from[generation] = min(first_use_from[generation], following)
        return [
            each
            for each in self._requests
            if (each.use is Use.LOG_OUT and each.may_have_run)
            or (
                each.use.refreshes
                and each.outcome is not Outcome.ACCEPTED
                and first_use_from[self._generations[each.pair] + 1] < each.answered
            )
        ]

    def _describe(self, request: Request) -> str:
        lines = [f"generation {self._generations[request.pair]}: {request}; around it:"]
        around = self._requests.index(request)
        for each in self._requests[max(0, around - 6) : around + 3]:
            lines.append(f"    generation {self._generations[each.pair]}: {each}")
        return "\n".join(lines)

    def _violation(self, invariant: Invariant, what: str) -> Violation:
        return Violation(invariant, self._session, what)
