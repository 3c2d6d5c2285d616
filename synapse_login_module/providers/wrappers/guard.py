"""A guard around a provider: a timeout, a circuit breaker, a cache, and counts of outcomes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.common.coalescing import Coalescing
from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.outbound.circuit import NO_ROOM, Circuit, CircuitBreaking, State
from synapse_login_module.providers.wrappers.cache import PasswordCache

T = TypeVar("T")

AUTHENTICATE, ACCOUNT_STATUS = "authenticate", "account_status"

FAILURES = "refused", "unavailable", "overloaded", "cancelled", "failed"
"""The outcomes besides those of an answer about an account."""


@dataclass(frozen=True)
class Meter:
    """Counts outcomes and state changes of circuits, and measures how long answers take.

    The first three are called with the provider's name, the operation (``authenticate`` or
    ``account_status``), and a third argument.

    :param outcome: its third argument is ``ok``, ``unknown``, ``refused``, ``unavailable``,
        ``overloaded``, ``cancelled`` or ``failed``. For ``account_status``, it is the status in the
        place of ``ok``.
    :param circuit: its third argument is the new state: ``closed``, ``open`` or ``half-open``.
    :param duration: its third argument is how many seconds the provider took. What is answered at
        once is not measured, such as by a file of accounts, the cache or an open circuit.
    :param begin: called once with the provider's name, and with whether it has circuits.
    """

    outcome: Callable[[str, str, str], None]
    circuit: Callable[[str, str, str], None]
    duration: Callable[[str, str, float], None] = lambda provider, operation, seconds: None
    begin: Callable[[str, bool], None] = lambda provider, has_circuits: None


@implementer(IPasswordProvider)
class GuardedProvider:
    """A provider with a timeout and counts, and, where configured, a circuit breaker and a cache.

    A password is looked up in the cache. If it is not there, the provider checks it, through the
    circuit and within the timeout. The final outcome is counted.

    A status is never cached. Concurrent requests for the status of one account are coalesced:
    valid refreshes have no rate limit, so one account could otherwise take up the whole capacity of
    the provider. This holds for every caller: refreshes, logins from the cache or with a login
    token, and the sweep.

    Passwords and statuses have separate circuits, because a backend may serve one and not the
    other.

    :param provider: checks passwords. It may raise in the place of failing a Deferred.
    :param name: its name in the configuration.
    :param timeout: seconds until a request is cancelled and fails as an outage.
    :param clock: schedules the timeouts.
    :param meter: counts outcomes and state changes of circuits.
    :param breaking: when the circuits open; ``None`` for no circuit breaker.
    :param cache: caches the passwords that the provider accepted; ``None`` for no cache.
    """

    log = Logger()

    def __init__(
        self,
        provider: IPasswordProvider,
        name: str,
        timeout: float,
        clock: IReactorTime,
        meter: Meter,
        breaking: CircuitBreaking | None = None,
        cache: PasswordCache | None = None,
    ) -> None:
        self.name = name
        self._provider = provider
        self._timeout = timeout
        self._clock = clock
        self._meter = meter
        self._cache = cache
        self._statuses = Coalescing(self._account_status)
        self._circuits: dict[str, Circuit] = {}
        if breaking is not None:
            for operation in (AUTHENTICATE, ACCOUNT_STATUS):
                self._circuits[operation] = Circuit(
                    f"{name}.{operation}", breaking, partial(self._report, operation)
                )
        meter.begin(name, breaking is not None)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account, or join the look that is under way.

        Cancelling does not end the look.
        """
        return self._statuses.ask(subject)

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        cache = self._cache
        try:
            account = None if cache is None else cache.find(identifier, password)
            if account is None:
                method = self._provider.authenticate
                account = await self._call(AUTHENTICATE, method, identifier, password)
                if cache is not None:
                    cache.update(identifier, password, account)
        except Exception as error:
            if cache is not None and isinstance(error, InvalidCredentials):
                cache.evict(identifier)
            self._meter.outcome(self.name, AUTHENTICATE, _outcome_of(error))
            raise
        self._meter.outcome(self.name, AUTHENTICATE, "unknown" if account is None else "ok")
        return account

    async def _account_status(self, subject: str) -> AccountStatus | None:
        try:
            status = await self._call(ACCOUNT_STATUS, self._provider.account_status, subject)
        except Exception as error:
            self._meter.outcome(self.name, ACCOUNT_STATUS, _outcome_of(error))
            raise
        self._meter.outcome(self.name, ACCOUNT_STATUS, status.value if status else "unknown")
        return status

    async def _call(
        self, operation: str, method: Callable[..., Deferred[T]], *arguments: object
    ) -> T:
        """Call the provider through the circuit of the operation, and cancel after the timeout."""
        circuit = self._circuits.get(operation)
        with nullcontext() if circuit is None else circuit.attempt():
            result = maybeDeferred(method, *arguments)
            if result.called and not result.paused:  # no timer is needed
                return await result
            began = self._clock.seconds()
            result.addTimeout(self._timeout, self._clock, self._timed_out)
            try:
                return await result
            finally:
                self._meter.duration(self.name, operation, self._clock.seconds() - began)

    def _timed_out(self, _: object, seconds: float) -> Failure:
        return Failure(ProviderUnavailable(f"{self.name} did not answer within {seconds} seconds"))

    def _report(self, operation: str, state: State) -> None:
        """Count and log the new state of a circuit."""
        self._meter.circuit(self.name, operation, state.value)
        self.log.warn(
            "{name}.{operation}: the circuit is {state}",
            name=self.name,
            operation=operation,
            state=state.value,
        )


def _outcome_of(error: Exception) -> str:
    """Return the outcome that an error counts as."""
    if isinstance(error, NO_ROOM):
        return "overloaded"
    if isinstance(error, (InvalidCredentials, ProviderUnavailable)):
        return error.outcome
    return "cancelled" if isinstance(error, CancelledError) else "failed"
