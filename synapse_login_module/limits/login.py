"""Which attempts count against whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import InvalidCredentials, RateLimited, StoreUnavailable
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.limits.token_bucket import (
    HOMES,
    Buckets,
    LocalBuckets,
    LocalRateLimits,
    RateLimiter,
)
from synapse_login_module.model import Bucket, Client, Rate

_LOOSER = 10


class Attempt:
    """One login attempt under way; it counts as failed unless somebody says otherwise.

    :param begun: what it has taken from for having been made.
    :param failed: what it has taken from lest it fail.
    """

    def __init__(
        self,
        limits: LoginLimits,
        client: Client,
        subject: str | None,
        begun: Sequence[Bucket],
        failed: Sequence[Bucket],
    ) -> None:
        self._limits = limits
        self._client = client
        self._subject = subject
        self._begun = [*begun]
        self._failed = [*failed]

    async def tried_on(self, user_id: str | None) -> None:
        """The password was tried on this account, by whatever name: a failure counts there too.

        :param user_id: ``None`` if nobody knows the account, or says which it is. What was done is
            the same then, so that the time it takes does not tell.
        :raise synapse_login_module.errors.InvalidCredentials: when too many failed there of late.
            Even the right password is refused then, and just as a wrong one is: any other answer
            would tell which names are one account's.
        """
        whose = user_id.lower() if user_id is not None else self._subject or ""
        tried = self._limits.tried(whose, self._client)
        try:
            await self._limits.counts.take(tried)
        except RateLimited:
            raise InvalidCredentials("too_many_failures") from None
        self._failed += tried

    async def passed(self) -> None:
        """The password was right: this was no failure."""
        failed, self._failed = self._failed, []
        await self._limits.counts.give_back(failed)

    async def logged_in(self, user_id: str) -> None:
        """A session is about to begin: it counts against the account.

        Nobody hears of this limit who has not given the right password.

        :raise synapse_login_module.errors.RateLimited: when the account had too many of late.
        """
        whose = user_id.lower()
        account = self._limits.logins(whose)
        await self._limits.counts.take(account)
        self._begun += account
        self._limits.at_home(whose, self._subject, self._client)

    def excused(self, entirely: bool) -> None:
        """It was no failure, or ``entirely`` not the client's fault: then nothing of it counts.

        Nobody waits for that: it may have gone wrong because the counts cannot be reached.
        """
        excused, self._failed = self._failed, []
        if entirely:
            excused += self._begun
            self._begun = []
        self._limits.counts.give_back(excused).addErrback(_not_given_back)


class LoginLimits:
    """The rate limits of section "Config", each keyed by what it protects.

    Failures are counted by account and network, so that a stranger elsewhere cannot lock a user
    out; and ten times more loosely by account alone, so that guessing from many networks ends too.
    Both are counted twice: by the name that the client gave, before anything is asked, and by the
    account that a provider says it tried, so that an account with many names has no more of them.

    The looser one does not hold in a network where the user logged in before, or else whoever has
    many networks, as there are in an IPv6 /48, would lock the user out by it.

    Refreshes that fail are counted on each machine by itself, wherever logins are counted: nobody
    guesses a token, so that all they cost is work.

    :param seconds: a clock.
    :param buckets: for the name of each limit, where its buckets are on this machine.
    :param shared: who counts logins, if that is not for each machine to do.
    :ivar counts: who counts logins.
    """

    def __init__(
        self,
        address: Rate | None,
        account: Rate | None,
        failed_attempts: Rate | None,
        seconds: Callable[[], float],
        buckets: Callable[[str], Buckets] = lambda _: LocalBuckets(),
        shared: IRateLimits | None = None,
    ) -> None:
        self._address = address
        self._account = account
        self._failures = failed_attempts
        self._anywhere = failed_attempts and failed_attempts.looser(_LOOSER)
        self._seconds = seconds
        self._homes = buckets(HOMES)
        self._refreshes = RateLimiter(address, seconds, buckets("refreshes"))
        self.counts: IRateLimits = shared or LocalRateLimits(seconds, buckets)

    async def attempt(self, client: Client, subject: str | None) -> Attempt:
        """Begin a login attempt.

        :param subject: who the client says to be, in lower case; ``None`` for nobody.
        :raise synapse_login_module.errors.RateLimited: when it may not be made now.
        """
        begun = _bucket("address", self._address, client.network)
        failed = self.failures(subject, client)
        await self.counts.take([*begun, *failed])
        return Attempt(self, client, subject, begun, failed)

    def failures(self, subject: str | None, client: Client) -> list[Bucket]:
        """What a failure counts by under the name that the client gave, in lower case."""
        buckets = _bucket("failures", self._failures, subject or "", client.network)
        if subject is not None and not self._is_home(subject, client):
            buckets += _bucket("failures_anywhere", self._anywhere, subject)
        return buckets

    def tried(self, whose: str, client: Client) -> list[Bucket]:
        """What a failure counts by that was tried on an account."""
        buckets = _bucket("tried", self._failures, whose, client.network)
        if not self._is_home(whose, client):
            buckets += _bucket("tried_anywhere", self._anywhere, whose)
        return buckets

    def logins(self, whose: str) -> list[Bucket]:
        """What a login to an account counts by."""
        return _bucket("account", self._account, whose)

    def at_home(self, whose: str, subject: str | None, client: Client) -> None:
        """A user logged in from here, by this name."""
        for name in (whose, subject):
            if name:
                with self._homes.held((name, client.network)):
                    self._homes.put((name, client.network), (0.0, self._seconds()))

    def refresh_failed(self, client: Client) -> None:
        """Count a refresh that failed.

        :raise synapse_login_module.errors.RateLimited: when there were too many.
        """
        self._refreshes.take(client.network)

    def _is_home(self, name: str, client: Client) -> bool:
        return self._homes.get((name, client.network)) is not None


def _bucket(limit: str, rate: Rate | None, *key: str) -> list[Bucket]:
    """A bucket, or none where there is no limit."""
    return [] if rate is None else [Bucket(limit, key, rate)]


def _not_given_back(failure: Failure) -> None:
    failure.trap(StoreUnavailable)
    _log.debug("an attempt counts that need not: {problem}", problem=failure.getErrorMessage())


_log = Logger()
