"""Which attempts count against whom."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack

from synapse_login_module.model import Client
from synapse_login_module.ratelimit import Buckets, LocalBuckets, Rate, RateLimiter

_LOOSER = 10


class Attempt:
    """One login attempt under way; it counts as failed unless somebody says otherwise."""

    def __init__(self, limits: LoginLimits, client: Client, subject: str | None) -> None:
        self._limits = limits
        self._taken: list[tuple[RateLimiter, Hashable]] = [(limits.address, client.network)]
        self._failure: list[tuple[RateLimiter, Hashable]] = [
            (limits.failures, (subject, client.network))
        ]
        if subject is not None:
            limits.account.check(subject)
            self._failure.append((limits.failures_anywhere, subject))
        with ExitStack() as undo:
            for limiter, key in [*self._taken, *self._failure]:
                limiter.take(key)
                undo.callback(limiter.refund, key)
            undo.pop_all()

    def passed(self) -> None:
        """The password was right: this was no failure."""
        self._give_back(self._failure)

    def logged_in(self, user_id: str) -> None:
        """A session is about to begin: it counts against the account.

        :raise synapse_login_module.errors.RateLimited: when the account had too many of late.
        """
        self._limits.account.take(user_id.lower())
        self._taken.append((self._limits.account, user_id.lower()))

    def forgiven(self) -> None:
        """Whatever went wrong was not the client's fault: nothing of it counts."""
        self._give_back(self._failure)
        self._give_back(self._taken)

    def _give_back(self, taken: list[tuple[RateLimiter, Hashable]]) -> None:
        while taken:
            limiter, key = taken.pop()
            limiter.refund(key)


class LoginLimits:
    """The rate limits of section "Config", each keyed by what it protects.

    Failures are counted by account and network, so that a stranger elsewhere cannot lock a user
    out; and ten times more loosely by account alone, so that guessing from many networks ends too.

    :param seconds: a clock.
    :param buckets: for the name of each limit, where its buckets are.
    """

    def __init__(
        self,
        address: Rate | None,
        account: Rate | None,
        failed_attempts: Rate | None,
        seconds: Callable[[], float],
        buckets: Callable[[str], Buckets] = lambda _: LocalBuckets(),
    ) -> None:
        self.address = RateLimiter(address, seconds, buckets("address"))
        self.account = RateLimiter(account, seconds, buckets("account"))
        self.failures = RateLimiter(failed_attempts, seconds, buckets("failures"))
        self.failures_anywhere = RateLimiter(
            failed_attempts and failed_attempts.looser(_LOOSER),
            seconds,
            buckets("failures_anywhere"),
        )
        self.refreshes = RateLimiter(address, seconds, buckets("refreshes"))

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
