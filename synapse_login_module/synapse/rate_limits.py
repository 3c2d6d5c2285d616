"""One set of rate limits for both listeners: this package's, in the place of Synapse's own.

ModuleApi: has no way to Synapse's limiters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from synapse.api.errors import LimitExceededError, LoginError, SynapseError
from twisted.internet.defer import Deferred

from synapse_login_module.audit import AuditLog
from synapse_login_module.config.settings import ModuleConfig, RateConfig
from synapse_login_module.errors import InvalidCredentials, RateLimited
from synapse_login_module.limits.login import Attempt, LoginLimits
from synapse_login_module.model import Bucket, Client
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.web.client import client_at

_SLOWEST = 1e-6
_PAUSE = 0.5
"""How many seconds Synapse's own limiters have a client wait for their answer."""


def inherit_rates(config: ModuleConfig, homeserver: Homeserver) -> ModuleConfig:
    """Take the limits that the module's configuration does not name from ``rc_login``."""
    limits = homeserver.hs.config.ratelimiting
    inherited = {
        # Not validated: homeserver.yaml may hold what this package's configuration may not.
        name: RateConfig.model_construct(
            per_second=max(rate.per_second, _SLOWEST), burst_count=rate.burst_count
        )
        for name, rate in (
            ("address", limits.rc_login_address),
            ("account", limits.rc_login_account),
            ("failed_attempts", limits.rc_login_failed_attempts),
        )
        if name not in config.rate_limits.model_fields_set
    }
    rates = config.rate_limits.model_copy(update=inherited)
    return config.model_copy(update={"rate_limits": rates})


class FailedAttempts:
    """Stands in the place of the limiter that Synapse counts wrong passwords with.

    So who guesses at both listeners has no more attempts than at one, and nobody can lock a user
    out from elsewhere.

    What is refused has its line in the log, which Synapse's own limiter has not.

    :param homeserver: the way out of Synapse.
    :param limits: what counts them.
    :param audit: where refusals are written down.
    """

    def __init__(self, homeserver: Homeserver, limits: LoginLimits, audit: AuditLog) -> None:
        self._homeserver = homeserver
        self._limits = limits
        self._audit = audit

    @classmethod
    def install(cls, homeserver: Homeserver, limits: LoginLimits, audit: AuditLog) -> None:
        """Put one into Synapse, and have it hear of the logins there."""
        handler: Any = homeserver.hs.get_auth_handler()
        counting = handler._failed_login_attempts_ratelimiter = cls(homeserver, limits, audit)
        homeserver.api.register_account_validity_callbacks(on_user_login=counting.logged_in)

    async def logged_in(self, user_id: str, login_type: str | None, provider: str | None) -> None:
        """Remember where a user logs in from: no stranger's failures count there."""
        self._limits.remember_network(user_id, None, _client(self._homeserver))

    async def ratelimit(self, requester: None, key: str | tuple[str, str], update: bool) -> None:
        """Look whether a password may be tried, before it is.

        :param key: a user ID in lower case, or a medium and an address.
        :param update: whether that counts already.
        :raise synapse.api.errors.LimitExceededError: when it may not.
        """
        name, client = _name(key), _client(self._homeserver)
        failures = self._limits.failures_of_name(name, client)
        wanted, required = (failures, ()) if update else ((), failures)
        try:
            await self._homeserver.call_module(self._limits.counts.consume, wanted, required)
        except RateLimited as error:
            event = "login" if self._homeserver.request_context().is_login else "reauth"
            self._audit.failed(event, error, client, user=name)
            milliseconds = int(error.retry_after * 1000)
            raise LimitExceededError(
                "rc_login.failed_attempts", retry_after_ms=milliseconds, pause=_PAUSE
            ) from None

    async def can_do_action(
        self, requester: None, key: str | tuple[str, str]
    ) -> tuple[bool, float]:
        """Count a wrong password, by the name and by the account; Synapse passes over the result.

        :return: whether there was still room, and that nobody knows when there will be.
        """
        room = True
        name, client = _name(key), _client(self._homeserver)
        for buckets in (
            self._limits.failures_of_name(name, client),
            self._limits.failures_of_account(name, client),
        ):
            try:
                await self._homeserver.call_module(self._limits.counts.consume, buckets)
            except RateLimited:
                room = False
        return room, -1.0


class TriedAccounts:
    """Counts failures by the account that a password was tried on, whatever name Synapse was given.

    Synapse itself counts by the name: each e-mail address of an account would have its own count.

    :param homeserver: knows whose request it is.
    :param limits: what counts them.
    """

    def __init__(self, homeserver: Homeserver, limits: LoginLimits) -> None:
        self._homeserver = homeserver
        self._limits = limits

    async def failed(self, name: str, user_id: str | None) -> None:
        """Count a wrong password; on Synapse's side.

        :param name: what the client named the account by, which is counted elsewhere.
        """
        if user_id is None or user_id.lower() == name.lower():
            return
        with suppress(RateLimited):  # the next right password is told so
            await self._consume(self._failures(user_id))

    def known_as(self, name: str) -> str | None:
        """A name, in lower case, where the user has logged in by it from the client's network."""
        name = name.lower()
        return name if self._limits.is_known(name, _client(self._homeserver)) else None

    async def require_room(self, user_id: str) -> None:
        """See whether the account may be logged in to, once its password was right.

        :raise synapse_login_module.errors.InvalidCredentials: when too many failed of late. Any
            other answer would tell which names are one account's.
        """
        try:
            await self._consume((), self._failures(user_id))
        except RateLimited as limited:
            raise InvalidCredentials("too_many_failures", user_id, limited) from None

    def _failures(self, user_id: str) -> Sequence[Bucket]:
        return self._limits.failures_of_account(user_id, _client(self._homeserver))

    async def _consume(self, *buckets: Sequence[Bucket]) -> None:
        await self._homeserver.call_module(self._limits.counts.consume, *buckets)


def _name(key: str | tuple[str, str]) -> str:
    """The name in a key of Synapse's: a user ID, or an address behind its medium."""
    return key if isinstance(key, str) else key[1]


def _client(homeserver: Homeserver) -> Client:
    """Whose request Synapse serves."""
    return client_at(homeserver.request_context().address)


class Limiter:
    """A limiter to Synapse that is a function.

    :param consume: called with the key.
    """

    def __init__(self, consume: Callable[[str], Awaitable[None]]) -> None:
        self._consume = consume

    async def ratelimit(self, requester: None, key: str) -> None:
        """Count an attempt."""
        await self._consume(key)


class HandedOverAttempt:
    """A login that Synapse decides, as it is counted: where Synapse itself would count it.

    :param homeserver: the way out of Synapse.
    :param limits: what counts it.
    :param subject: who the client says to be, in lower case; ``None`` for nobody.
    :ivar begin: the limiter for addresses.
    :ivar log_in: the limiter for accounts.
    :ivar is_rejected: whether a module has said that the password, or what it has in its place, is
        wrong.
    """

    def __init__(
        self, homeserver: Homeserver, limits: LoginLimits, client: Client, subject: str | None
    ) -> None:
        self._homeserver = homeserver
        self._limits = limits
        self._client = client
        self._subject = subject
        self._attempt: Attempt | None = None
        self.begin = Limiter(self._begin)
        self.log_in = Limiter(self._log_in)
        self.is_rejected = False

    def watch(self, handler: Any) -> WatchedAuthHandler:
        """Wrap Synapse's AuthHandler, so that it counts nothing and says what it rejects."""
        return WatchedAuthHandler(handler, self)

    def failed(self, problem: Exception) -> None:
        """Give back what does not count for this reason."""
        if self._attempt is None or isinstance(problem, RateLimited):
            return
        if isinstance(problem, SynapseError) and problem.code < 500:
            if not self.is_rejected:
                self._attempt.forgive(entirely=False)
        else:
            self._attempt.forgive(entirely=True)

    async def _begin(self, address: str) -> None:
        self._attempt = await self._homeserver.call_module(
            lambda: Deferred.fromCoroutine(self._limits.attempt(self._client, self._subject))
        )

    async def _log_in(self, user_id: str) -> None:
        attempt = self._attempt
        # An application service that has no limits begins no attempt.
        if attempt is None:
            return

        await self._homeserver.call_module(
            lambda: Deferred.fromCoroutine(attempt.succeeded(None, user_id))
        )


class WatchedAuthHandler:
    """Synapse's AuthHandler, for one login that is handed over.

    :param inner: the handler.
    :param attempt: the login.
    """

    def __init__(self, inner: Any, attempt: HandedOverAttempt) -> None:
        self._inner = inner
        self._attempt = attempt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def validate_login(self, submission: dict[str, Any], ratelimit: bool) -> Any:
        """Have other modules decide."""
        try:
            return await self._inner.validate_login(submission, ratelimit=False)
        except LoginError:
            self._attempt.is_rejected = True
            raise
