"""Which attempts count against whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import InvalidCredentials, RateLimited, StoreUnavailable
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.limits.networks import larger_networks
from synapse_login_module.limits.token_bucket import (
    KNOWN_NETWORKS,
    Buckets,
    LocalRateLimits,
    RateLimiter,
    local_buckets,
)
from synapse_login_module.model import Bucket, Client, Rate

_LOOSER = 10
_BY_EVERYBODY = 3


class Attempt:
    """One login attempt under way; it counts as failed until it is said to have succeeded.

    It costs the counts, which may be at the other end of a network, one round trip when it begins
    and one when it is known what came of it.

    :param begun: what it has consumed for having been made.
    :param failed: what it has consumed in case it fails.
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

    @property
    def known_as(self) -> str | None:
        """The name that the client gave, where a user of it logged in from its network before."""
        known = self._subject is not None and self._limits.is_known(self._subject, self._client)
        return self._subject if known else None

    async def charge_account(self, user_id: str | None) -> None:
        """The password was wrong on this account, whatever name it was given: count it there too.

        :param user_id: ``None`` if no provider knows the account, or says which it is. What is done
            is the same then, so that the time it takes does not tell.
        :raise synapse_login_module.errors.InvalidCredentials: when too many have failed there.
        """
        whose = user_id.lower() if user_id is not None else self._subject or ""
        charged = self._limits.tried(whose, self._client)
        try:
            await self._limits.counts.consume(charged)
        except RateLimited as limited:
            raise InvalidCredentials("too_many_failures", limited=limited) from None
        self._failed += charged

    async def succeeded(self, tried_on: str | None, user_id: str | None = None) -> None:
        """The password was right: this was no failure, unless too many have failed.

        :param tried_on: the account that the password is of, as :meth:`charge_account` names it;
            ``None`` where no password was tried.
        :param user_id: whose session is about to begin; it counts against that account. Nobody
            who has not given the right password is told of this limit.
        :raise synapse_login_module.errors.InvalidCredentials: when too many have failed on the
            account. Even the right password is refused then, and just as a wrong one is: any other
            answer would tell which names are one account's.
        :raise synapse_login_module.errors.RateLimited: when the account had too many logins.
        """
        required = [] if tried_on is None else self._limits.tried(tried_on.lower(), self._client)
        account = [] if user_id is None else self._limits.logins(user_id.lower())
        try:
            await self._limits.counts.consume(account, required, self._failed)
        except RateLimited as limited:
            if limited.limit in {bucket.limit for bucket in required}:
                raise InvalidCredentials("too_many_failures", limited=limited) from None
            self.forgive(entirely=False)
            raise
        self._failed = []
        self._begun += account
        if user_id is not None:
            self._limits.remember_network(user_id.lower(), self._subject, self._client)

    def forgive(self, entirely: bool) -> None:
        """It was no failure, or ``entirely`` not the client's fault: then nothing of it counts.

        Nothing waits for that: it may have gone wrong because the counts cannot be reached.
        """
        forgiven, self._failed = self._failed, []
        if entirely:
            forgiven += self._begun
            self._begun = []
        self._limits.counts.refund(forgiven).addErrback(_not_refunded)


class LoginLimits:
    """The rate limits of section "Config", each keyed by what it protects.

    Failures are counted by account and network, so that a stranger elsewhere cannot lock a user
    out; more loosely by account and each larger network, and by account alone, so that guessing
    from many networks ends too. All are counted twice: by the name that the client gave, before
    anything is asked, and by the account that a provider says it tried, so that an account with
    many names has no more of them.

    Attempts are counted by network; those that fail also by each larger network, whatever names
    they give, so that one that has many small ones does not get all passwords checked.

    The looser ones do not hold in a known network of the user, one that the user logged in from
    before. A stranger with many networks would lock the user out by them otherwise.

    Refreshes that fail are counted on each machine by itself, wherever logins are counted, and by
    network alone: nobody guesses a token, so that all they cost is work.

    :param clock: a clock.
    :param buckets: for the name of each limit, where its buckets are on this machine.
    :param shared: what counts logins, if that is not for each machine to do.
    :ivar counts: what counts logins.
    """

    def __init__(
        self,
        address: Rate | None,
        account: Rate | None,
        failed_attempts: Rate | None,
        clock: Callable[[], float],
        buckets: Callable[[str], Buckets] = local_buckets,
        shared: IRateLimits | None = None,
    ) -> None:
        self._address = address
        self._account = account
        self._failures = failed_attempts
        self._anywhere = failed_attempts and failed_attempts.looser(_LOOSER)
        self._clock = clock
        self._known = buckets(KNOWN_NETWORKS)
        self._refreshes = RateLimiter(address, clock, buckets("refreshes"))
        self.counts: IRateLimits = shared or LocalRateLimits(clock, buckets)

    async def attempt(self, client: Client, subject: str | None) -> Attempt:
        """Begin a login attempt.

        :param subject: the name that the client gives, in lower case; ``None`` for none.
        :raise synapse_login_module.errors.RateLimited: when it may not be made now.
        """
        begun = _bucket("address", self._address, client.network)
        failed = self.failures(subject, client)
        await self.counts.consume([*begun, *failed])
        return Attempt(self, client, subject, begun, failed)

    def failures(self, subject: str | None, client: Client) -> list[Bucket]:
        """What a failure counts by, whatever account it is tried on.

        :param subject: the name that the client gives, in lower case.
        """
        if subject is None:
            own = _bucket("failures", self._failures, "", client.network)
            return [*own, *self._by_larger_networks(client)]
        buckets = self._by_account("failures", subject, client)
        if self.is_known(subject, client):
            return buckets
        return [*buckets, *self._by_larger_networks(client)]

    def tried(self, whose: str, client: Client) -> list[Bucket]:
        """What a failure counts by that was tried on an account."""
        return self._by_account("tried", whose, client)

    def logins(self, whose: str) -> list[Bucket]:
        """What a login to an account counts by."""
        return _bucket("account", self._account, whose)

    def remember_network(self, whose: str, subject: str | None, client: Client) -> None:
        """A user logged in from here, by this name: the network is known from now on."""
        for name in (whose, subject):
            if name:
                with self._known.locked((name, client.network)):
                    self._known.set((name, client.network), self._clock())

    def is_known(self, name: str, client: Client) -> bool:
        """Whether a user logged in from a client's network by a name, in lower case."""
        return self._known.get((name, client.network)) is not None

    def refresh_failed(self, client: Client) -> None:
        """Count a refresh that failed.

        :raise synapse_login_module.errors.RateLimited: when there were too many.
        """
        try:
            self._refreshes.consume(client.network)
        except RateLimited as error:
            raise RateLimited(error.retry_after, "refreshes", (client.network,)) from None

    def _by_account(self, limit: str, whose: str, client: Client) -> list[Bucket]:
        """The buckets of an account and the client's network, and the looser ones."""
        buckets = _bucket(limit, self._failures, whose, client.network)
        if self._failures is None or self._anywhere is None or self.is_known(whose, client):
            return buckets
        for network, prefix in larger_networks(client.network):
            rate = self._failures.looser(prefix.failures_factor)
            name = f"{limit}_{prefix.bits}"
            buckets.append(Bucket(name, (whose, network), rate, prefix.shared))
        return [*buckets, Bucket(f"{limit}_anywhere", (whose,), self._anywhere, _BY_EVERYBODY)]

    def _by_larger_networks(self, client: Client) -> list[Bucket]:
        if self._address is None:
            return []
        return [
            Bucket(
                f"address_{prefix.bits}",
                (network,),
                self._address.looser(prefix.address_factor),
                prefix.shared,
            )
            for network, prefix in larger_networks(client.network)
        ]


def _bucket(limit: str, rate: Rate | None, *key: str) -> list[Bucket]:
    """A bucket, or none where there is no limit."""
    return [] if rate is None else [Bucket(limit, key, rate)]


def _not_refunded(failure: Failure) -> None:
    failure.trap(StoreUnavailable)
    _log.debug("an attempt counts that need not: {problem}", problem=failure.getErrorMessage())


_log = Logger()
