"""Which buckets a login attempt is counted in."""

from __future__ import annotations

import unicodedata
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
"""The factor of ``failed_attempts`` for one account from all networks together."""

_SHARED_BY_EVERYBODY = 3


class Attempt:
    """One login attempt under way. It counts as failed until :meth:`succeeded` or :meth:`forgive`.

    The counts may be in a database. An attempt costs one round trip there when it begins, and one
    when its outcome is known.

    :param name: the name that the client sent, in lower case; ``None`` for none.
    :param made: the buckets that it was counted in as an attempt.
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
        """The name that the client sent, if a user logged in by it from this network before; else
        ``None``.
        """
        known = self._name is not None and self._limits.is_known(self._name, self._client)
        return self._name if known else None

    async def charge_account(self, user_id: str | None) -> None:
        """Count a wrong password on this account too, whatever name the client sent.

        :param user_id: the account; ``None`` if no provider knows it or names it. The name is
            counted in its place, so that both cases take the same time.
        :raise synapse_login_module.errors.InvalidCredentials: when too many attempts have failed on
            the account.
        """
        account = user_id if user_id is not None else self._name or ""
        charged = self._limits.failures_of_account(account, self._client)
        try:
            await self._limits.counts.consume(charged)
        except RateLimited as limited:
            raise InvalidCredentials("too_many_failures", limited=limited) from None
        self._failed += charged

    async def succeeded(self, charged: str | None, user_id: str | None = None) -> None:
        """Refund what was counted as a failure, since the password was right.

        :param charged: the account of the password, as :meth:`charge_account` names it; ``None`` if
            no password was tried.
        :param user_id: the account whose session is about to begin; the login counts against it.
            Only a client that sent the right password is told of this limit.
        :raise synapse_login_module.errors.InvalidCredentials: when too many attempts have failed on
            the account. Then the right password gets the same response as a wrong one. Any other
            response would tell which names belong to one account.
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
        """Refund what was counted as a failure. Nothing waits for the refund: the counts may be
        out of reach themselves.

        :param entirely: whether to refund what was counted as an attempt too, because the error was
            not the client's.
        """
        refunded, self._failed = self._failed, []
        if entirely:
            refunded += self._made
            self._made = []
        self._limits.counts.refund(refunded).addErrback(_not_refunded)


class LoginLimits:
    """The rate limits of logins and refreshes, each keyed by what it protects.

    Failures are counted by account and network, so that a stranger elsewhere cannot lock a user
    out. With looser limits they are counted by account and each larger network, and by account
    alone, so that guessing from many networks ends too. Each failure is counted twice: by the name
    that the client sent, before a provider is asked, and by the account that a provider says it
    tried. So an account with many names allows no more failures than one with a single name. Some
    backends do not say which account it was, and ignore accents in names as many databases do, so
    names that differ in these alone are counted as one.

    Attempts are counted by network. Those that fail are also counted by each larger network,
    whatever name the client sent. So the owner of many small networks cannot have passwords checked
    without a limit.

    The looser limits do not apply in a known network of the user, one that the user logged in from
    before. Otherwise a stranger with many networks could lock the user out by them.

    Refreshes that fail are counted on each machine by itself, even if logins are counted in a
    database, and by network alone. Tokens cannot be guessed, so a failed refresh costs only work.
    So are logins of application services that fail.

    :param address: the limit of attempts from one network; ``None`` for no limit. So for the other
        two.
    :param account: the limit of logins to one account.
    :param failed_attempts: the limit of failures of one account from one network.
    :param clock: returns the time in seconds.
    :param buckets: returns the buckets of a limit on this machine, by the limit's name.
    :param shared: counts the logins of several machines together; ``None`` if each machine counts
        its own.
    :ivar counts: counts logins.
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

        :param name: the name that the client sent, in lower case; ``None`` for none.
        :raise synapse_login_module.errors.RateLimited: when a limit is reached.
        """
        made = _bucket("address", self._address, client.network)
        failed = self.failures_of_name(name, client)
        await self.counts.consume([*made, *failed])
        return Attempt(self, client, name, made, failed)

    def failures_of_name(self, name: str | None, client: Client) -> list[Bucket]:
        """List the buckets that count failures by the name that the client sent.

        :param name: the name, in lower case; ``None`` for none.
        """
        if name is None:
            buckets = _bucket("failures", self._failures, "", client.network)
        else:
            buckets = self._failures_by("failures", name, client)
            if self.is_known(name, client):
                return buckets
        return [*buckets, *self._by_larger_networks(client)]

    def failures_of_account(self, user_id: str, client: Client) -> list[Bucket]:
        """List the buckets that count failures by the account that the password was tried on."""
        return self._failures_by("tried", user_id.lower(), client)

    def logins_of_account(self, user_id: str) -> list[Bucket]:
        """List the buckets that count logins to an account."""
        return _bucket("account", self._account, user_id.lower())

    def remember_network(self, user_id: str, name: str | None, client: Client) -> None:
        """Remember that a user logged in from the client's network, and by which name."""
        for known in (user_id.lower(), name):
            if known:
                with self._known.locked((known, client.network)):
                    self._known.set((known, client.network), self._clock())

    def is_known(self, name: str, client: Client) -> bool:
        """Say whether a user logged in by this name, in lower case, from the client's network."""
        return self._known.get((name, client.network)) is not None

    def refresh_failed(self, client: Client) -> None:
        """Count a refresh that failed.

        :raise synapse_login_module.errors.RateLimited: when too many failed.
        """
        self._local.consume_now(_bucket("refreshes", self._address, client.network))

    def require_service(self, client: Client) -> None:
        """Check that not too many logins of application services have failed.

        :raise synapse_login_module.errors.RateLimited: when too many failed.
        """
        self._local.consume_now((), required=_bucket("services", self._address, client.network))

    def service_failed(self, client: Client) -> None:
        """Count a login of an application service that failed.

        :raise synapse_login_module.errors.RateLimited: when too many failed.
        """
        self._local.consume_now(_bucket("services", self._address, client.network))

    def _failures_by(self, limit: str, whose: str, client: Client) -> list[Bucket]:
        """List the bucket of a name or account in the client's network, and the looser ones.

        :param limit: the name of the first bucket; the names of the others begin with it.
        :param whose: the name or account, in lower case.
        """
        counted = _loosely(whose)
        buckets = _bucket(limit, self._failures, counted, client.network)
        if self._failures is None or self._anywhere is None or self.is_known(whose, client):
            return buckets
        for network, prefix in larger_networks(client.network):
            rate = self._failures.looser(prefix.failures_factor)
            buckets.append(
                Bucket(f"{limit}_{prefix.bits}", (counted, network), rate, prefix.shared)
            )
        anywhere = Bucket(f"{limit}_anywhere", (counted,), self._anywhere, _SHARED_BY_EVERYBODY)
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


def _loosely(name: str) -> str:
    """Remove from a name what backends may ignore: case, accents, and wide or other forms."""
    if name.isascii():
        return name.lower()
    plain = unicodedata.normalize("NFKD", name)
    return "".join(each for each in plain if unicodedata.category(each)[0] != "M").casefold()


def _bucket(limit: str, rate: Rate | None, *key: str) -> list[Bucket]:
    """Return a list of one bucket, or of none if there is no limit."""
    return [] if rate is None else [Bucket(limit, key, rate)]


def _not_refunded(failure: Failure) -> None:
    failure.trap(StoreUnavailable)
    _log.debug("an attempt counts that need not: {problem}", problem=failure.getErrorMessage())


_log = Logger()
