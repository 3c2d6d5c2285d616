"""Replacing Synapse's limiters of logins with this package's, so that both listeners share them.

ModuleApi: has no way to replace Synapse's limiters.
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
"""Seconds by which Synapse delays the response to a request that is limited, as its own limiters
do.
"""


def inherit_rates(config: ModuleConfig, homeserver: Homeserver) -> ModuleConfig:
    """Take the limits that the module's configuration does not set from Synapse's ``rc_login``."""
    limits = homeserver.hs.config.ratelimiting
    inherited = {
        # Not validated: homeserver.yaml may have values that this package's configuration rejects.
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
    """Replaces the limiter by which Synapse counts wrong passwords.

    Guessing at both listeners then allows no more attempts than guessing at one, and a stranger in
    another network cannot lock a user out.

    Each refusal is written to the audit log, which Synapse's own limiter does not do.

    :param homeserver: calls the module from Synapse's side.
    :param limits: counts the wrong passwords.
    :param audit: records refusals.
    """

    def __init__(self, homeserver: Homeserver, limits: LoginLimits, audit: AuditLog) -> None:
        self._homeserver = homeserver
        self._limits = limits
        self._audit = audit

    @classmethod
    def install(cls, homeserver: Homeserver, limits: LoginLimits, audit: AuditLog) -> None:
        """Replace Synapse's limiter, and register a callback for the logins there."""
        handler: Any = homeserver.hs.get_auth_handler()
        counting = handler._failed_login_attempts_ratelimiter = cls(homeserver, limits, audit)
        homeserver.api.register_account_validity_callbacks(on_user_login=counting.logged_in)

    async def logged_in(self, user_id: str, login_type: str | None, provider: str | None) -> None:
        """Remember the network of a login, where the looser limits do not apply to the user."""
        self._limits.remember_network(user_id, None, _client(self._homeserver))

    async def ratelimit(self, requester: None, key: str | tuple[str, str], update: bool) -> None:
        """Check that a password may be tried, before it is.

        :param key: a user ID in lower case, or a medium and an address.
        :param update: whether to count an attempt now.
        :raise synapse.api.errors.LimitExceededError: when too many passwords were wrong.
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
        """Count a wrong password, by the name and by the account.

        :return: whether the limits allowed it, and -1 in the place of the time of the next attempt.
            Synapse ignores both.
        """
        allowed = True
        name, client = _name(key), _client(self._homeserver)
        for buckets in (
            self._limits.failures_of_name(name, client),
            self._limits.failures_of_account(name, client),
        ):
            try:
                await self._homeserver.call_module(self._limits.counts.consume, buckets)
            except RateLimited:
                allowed = False
        return allowed, -1.0


class TriedAccounts:
    """Counts failures by the account that a password was tried on, whatever name the client sent.

    Synapse itself counts by the name, so each e-mail address of an account would have its own
    count.

    :param homeserver: knows which client's request Synapse serves.
    :param limits: counts the failures.
    """

    def __init__(self, homeserver: Homeserver, limits: LoginLimits) -> None:
        self._homeserver = homeserver
        self._limits = limits

    async def failed(self, name: str, user_id: str | None) -> None:
        """Count a wrong password; called on Synapse's side.

        :param name: the name that the client sent. :class:`FailedAttempts` counts by it.
        :param user_id: the account; ``None`` if it is not known, and then nothing is counted here.
        """
        if user_id is None or user_id.lower() == name.lower():
            return
        with suppress(RateLimited):  # the limit refuses the next right password
            await self._consume(self._failures(user_id))

    def known_as(self, name: str) -> str | None:
        """Return a name in lower case if the user logged in by it from the client's network before;
        else ``None``.
        """
        name = name.lower()
        return name if self._limits.is_known(name, _client(self._homeserver)) else None

    async def require_room(self, user_id: str) -> None:
        """Check that an account's limit allows a login, after its password was right.

        :raise synapse_login_module.errors.InvalidCredentials: when too many attempts have failed on
            the account. Any other response would tell which names belong to one account.
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
    """Return the name in a key of Synapse's: a user ID, or the address behind a medium."""
    return key if isinstance(key, str) else key[1]


def _client(homeserver: Homeserver) -> Client:
    """Return the client whose request Synapse serves."""
    return client_at(homeserver.request_context().address)


class Limiter:
    """A function in the place of one of Synapse's limiters.

    :param consume: called with the key of the attempt.
    """

    def __init__(self, consume: Callable[[str], Awaitable[None]]) -> None:
        self._consume = consume

    async def ratelimit(self, requester: None, key: str) -> None:
        """Count an attempt."""
        await self._consume(key)


class HandedOverAttempt:
    """A login that Synapse handles, counted by this package's limits.

    Its limiters replace Synapse's own, so that it is counted where Synapse would count it.

    :param homeserver: calls the module from Synapse's side.
    :param limits: counts the login.
    :param client: the client that logs in.
    :param subject: the name that the client sent, in lower case; ``None`` for none.
    :ivar begin: the limiter for addresses.
    :ivar log_in: the limiter for accounts.
    :ivar is_rejected: whether Synapse's AuthHandler rejected the password, or other credential.
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
        """Wrap Synapse's AuthHandler, so that it counts nothing and its rejections are noted."""
        return WatchedAuthHandler(handler, self)

    def failed(self, problem: Exception) -> None:
        """Refund what this error does not count for.

        :param problem: the error of the login. A wrong credential counts as a failure, another
            error of the client as an attempt, and an error of the server not at all.
        """
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
    """A wrapper of Synapse's AuthHandler, for one login that Synapse handles.

    :param inner: Synapse's handler.
    :param attempt: the login.
    """

    def __init__(self, inner: Any, attempt: HandedOverAttempt) -> None:
        self._inner = inner
        self._attempt = attempt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def validate_login(self, submission: dict[str, Any], ratelimit: bool) -> Any:
        """Have Synapse and its other modules check the credential, without counting it there."""
        try:
            return await self._inner.validate_login(submission, ratelimit=False)
        except LoginError:
            self._attempt.is_rejected = True
            raise
