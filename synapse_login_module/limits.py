"""Which attempts count against whom."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack

from synapse_login_module.errors import InvalidCredentials, RateLimited
from synapse_login_module.model import Client
from synapse_login_module.ratelimit import Buckets, LocalBuckets, Rate, RateLimiter
from synapse_login_module.recent import Recent

_LOOSER = 10
_HOMES = 100_000

Taken = list[tuple[RateLimiter, Hashable]]
"""The buckets that an attempt has taken from."""


class Attempt:
    """One login attempt under way; it counts as failed unless somebody says otherwise."""

    def __init__(self, limits: LoginLimits, client: Client, subject: str | None) -> None:
        self._limits = limits
        self._subject = subject
        self._network = client.network
        address: Taken = [(limits.address, client.network)]
        failure: Taken = [(limits.failures, (subject, client.network))]
        if subject is not None and (subject, client.network) not in limits.homes:
            failure.append((limits.failures_anywhere, subject))
        _take([*address, *failure])
        self._taken = address
        self._failure = failure

    def tried_on(self, user_id: str) -> None:
        """The password was tried on this account, by whatever name: a failure counts there too.

        :raise synapse_login_module.errors.InvalidCredentials: when too many failed there of late.
            Even the right password is refused then, and just as a wrong one is: any other answer
            would tell which names are one account's.
        """
        whose = user_id.lower()
        place = (whose, self._network)
        tried: Taken = [(self._limits.tried, place)]
        if place not in self._limits.homes:
            tried.append((self._limits.tried_anywhere, whose))
        try:
            _take(tried)
        except RateLimited:
            raise InvalidCredentials("too_many_failures") from None
        self._failure += tried

    def passed(self) -> None:
        """The password was right: this was no failure."""
        _give_back(self._failure)

    def logged_in(self, user_id: str) -> None:
        """A session is about to begin: it counts against the account.

        Nobody hears of this limit who has not given the right password.

        :raise synapse_login_module.errors.RateLimited: when the account had too many of late.
        """
        whose = user_id.lower()
        for name in (whose, self._subject):
            if name:
                self._limits.homes.remember((name, self._network), None)
        begun: Taken = [(self._limits.account, whose)]
        _take(begun)
        self._taken += begun

    def forgiven(self) -> None:
        """Whatever went wrong was not the client's fault: nothing of it counts."""
        _give_back(self._failure)
        _give_back(self._taken)


def _take(wanted: Taken) -> None:
    """Take from every bucket, or from none."""
    with ExitStack() as undo:
        for limiter, key in wanted:
            limiter.take(key)
            undo.callback(limiter.refund, key)
        undo.pop_all()


def _give_back(taken: Taken) -> None:
    while taken:
        limiter, key = taken.pop()
        limiter.refund(key)


class LoginLimits:
    """The rate limits of section "Config", each keyed by what it protects.

    Failures are counted by account and network, so that a stranger elsewhere cannot lock a user
    out; and ten times more loosely by account alone, so that guessing from many networks ends too.
    Both are counted twice: by the name that the client gave, before anything is asked, and by the
    account that a provider says it tried, so that an account with many names has no more of them.

    The looser one does not hold in a network where the user logged in before, or else whoever has
    many networks, as there are in an IPv6 /48, would lock the user out by it.

    :param seconds: a clock.
    :param buckets: for the name of each limit, where its buckets are.
    :ivar homes: names, and the networks that they logged in from; each process has its own.
    """

    def __init__(
        self,
        address: Rate | None,
        account: Rate | None,
        failed_attempts: Rate | None,
        seconds: Callable[[], float],
        buckets: Callable[[str], Buckets] = lambda _: LocalBuckets(),
    ) -> None:
        def limiter(rate: Rate | None, name: str) -> RateLimiter:
            return RateLimiter(rate, seconds, buckets(name))

        anywhere = failed_attempts and failed_attempts.looser(_LOOSER)
        self.address = limiter(address, "address")
        self.account = limiter(account, "account")
        self.failures = limiter(failed_attempts, "failures")
        self.failures_anywhere = limiter(anywhere, "failures_anywhere")
        self.tried = limiter(failed_attempts, "tried")
        self.tried_anywhere = limiter(anywhere, "tried_anywhere")
        self.refreshes = limiter(address, "refreshes")
        self.homes: Recent[tuple[str, str], None] = Recent(_HOMES)

    def attempt(self, client: Client, subject: str | None) -> Attempt:
        """Begin a login attempt.

        :param subject: who the client says to be, in lower case; ``None`` for nobody.
        :raise synapse_login_module.errors.RateLimited: when it may not be made now.
        """
        return Attempt(self, client, subject)

    def refresh_failed(self, client: Client) -> None:
        """Count a refresh that failed.

        :raise synapse_login_module.errors.RateLimited: when there were too many.
        """
        self.refreshes.take(client.network)
