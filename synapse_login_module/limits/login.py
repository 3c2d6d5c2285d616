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
    local_buckets,
)
from synapse_login_module.model import Bucket, Client, Rate

_FROM_ANYWHERE_FACTOR = 10
"""How much looser ``failed_attempts`` is for an account from all networks together."""

_SHARED_BY_EVERYBODY = 3


class Attempt:
    """One login attempt under way; it counts as failed until it is said to have succeeded.

    It costs the counts, which may be at the other end of a network, one round trip when it begins
    and one when it is known what came of it.

    :param name: the name that the client gives, in lower case; ``None`` for none.
    :param made: the buckets that it was counted in for having been made.
    :param failed: the buckets that it was counted in as a failure.
    """

    def __init__(
        self,
        limits: LoginLimits,
        client: Client,
        name: str | None,
        made: Sequence[Bucket],
        failed: Sequence[Bucket],
    ) -> None:
        self._limits = limits
        self._client = client
        self._name = name
        self._made = [*made]
        self._failed = [*failed]

    @property
    def known_as(self) -> str | None:
        """The name that the client gave, where a user of it logged in from its network before."""
        known = self._name is not None and self._limits.is_known(self._name, self._client)
        return self._name if known else None

    async def charge_account(self, user_id: str | None) -> None:
        """Count a wrong password on this account too, whatever name the client gave.

        :param user_id: ``None`` if no provider knows the account, or says which it is. What is done
            is the same then, so that the time it takes does not tell.
        :raise synapse_login_module.errors.InvalidCredentials: when too many have failed there.
        """
        account = user_id if user_id is not None else self._name or ""
        charged = self._limits.failures_of_account(account, self._client)
        try:
            await self._limits.counts.consume(charged)
        except RateLimited as limited:
            raise InvalidCredentials("too_many_failures", limited=limited) from None
        self._failed += charged

    async def succeeded(self, charged: str | None, user_id: str | None = None) -> None:
        """Count the attempt as no failure: the password was right.

        :param charged: the account that the password is of, as :meth:`charge_account` names it;
            ``None`` where no password was tried.
        :param user_id: whose session is about to begin; it counts against that account. Nobody
            who has not given the right password is told of this limit.
        :raise synapse_login_module.errors.InvalidCredentials: when too many have failed on the
            account. Even the right password is refused then, and just as a wrong one is: any other
            answer would tell which names are one account's.
        :raise synapse_login_module.errors.RateLimited: when the account had too many logins.
        """
        required = (
            [] if charged is None else self._limits.failures_of_account(charged, self._client)
        )
        logins = [] if user_id is None else self._limits.logins_of_account(user_id)
        try:
            await self._limits.counts.consume(logins, required, self._failed)
        except RateLimited as limited:
            if limited.limit in {bucket.limit for bucket in required}:
                raise InvalidCredentials("too_many_failures", limited=limited) from None
            self.forgive(entirely=False)
            raise
        self._failed = []
        self._made += logins
        if user_id is not None:
            self._limits.remember_network(user_id, self._name, self._client)

    def forgive(self, entirely: bool) -> None:
        """Refund what it counts as a failure, or ``entirely`` as an attempt too.

        The second is for what was not the client's fault. Nothing waits for the refund: the counts
        may be what cannot be reached.
        """
        refunded, self._failed = self._failed, []
        if entirely:
            refunded += self._made
            self._made = []
        self._limits.counts.refund(refunded).addErrback(_not_refunded)


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
        self._anywhere = failed_attempts and failed_attempts.looser(_FROM_ANYWHERE_FACTOR)
        self._clock = clock
        self._known = buckets(KNOWN_NETWORKS)
        self._local = LocalRateLimits(clock, buckets)
        self.counts: IRateLimits = self._local if shared is None else shared

    async def attempt(self, client: Client, name: str | None) -> Attempt:
        """Begin a login attempt.

        :param name: the name that the client gives, in lower case; ``None`` for none.
        :raise synapse_login_module.errors.RateLimited: when it may not be made now.
        """
        made = _bucket("address", self._address, client.network)
        failed = self.failures_of_name(name, client)
        await self.counts.consume([*made, *failed])
        return Attempt(self, client, name, made, failed)

    def failures_of_name(self, name: str | None, client: Client) -> list[Bucket]:
        """The buckets of failures, whatever account they are tried on.

        :param name: the name that the client gives, in lower case; ``None`` for none.
        """
        if name is None:
            buckets = _bucket("failures", self._failures, "", client.network)
        else:
            buckets = self._failures_by("failures", name, client)
            if self.is_known(name, client):
                return buckets
        return [*buckets, *self._by_larger_networks(client)]

    def failures_of_account(self, user_id: str, client: Client) -> list[Bucket]:
        """The buckets of failures that were tried on an account."""
        return self._failures_by("tried", user_id.lower(), client)

    def logins_of_account(self, user_id: str) -> list[Bucket]:
        """The buckets of logins to an account."""
        return _bucket("account", self._account, user_id.lower())

    def remember_network(self, user_id: str, name: str | None, client: Client) -> None:
        """Know a network from now on: a user logged in from it, by this name."""
        for known in (user_id.lower(), name):
            if known:
                with self._known.locked((known, client.network)):
                    self._known.set((known, client.network), self._clock())

    def is_known(self, name: str, client: Client) -> bool:
        """Whether a user logged in from a client's network by a name, in lower case."""
        return self._known.get((name, client.network)) is not None

    def refresh_failed(self, client: Client) -> None:
        """Count a refresh that failed.

        :raise synapse_login_module.errors.RateLimited: when there were too many.
        """
        self._local.consume_now(_bucket("refreshes", self._address, client.network))

    def _failures_by(self, limit: str, whose: str, client: Client) -> list[Bucket]:
        """The buckets of a name or account from the client's network, and the looser ones.

        :param limit: what the first of them is called; the others' names begin with it.
        """
        buckets = _bucket(limit, self._failures, whose, client.network)
        if self._failures is None or self._anywhere is None or self.is_known(whose, client):
            return buckets
        for network, prefix in larger_networks(client.network):
            rate = self._failures.looser(prefix.failures_factor)
            buckets.append(Bucket(f"{limit}_{prefix.bits}", (whose, network), rate, prefix.shared))
        anywhere = Bucket(f"{limit}_anywhere", (whose,), self._anywhere, _SHARED_BY_EVERYBODY)
        return [*buckets, anywhere]

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
