"""A guard around a provider: timeout, circuit breaker, cache, and count."""

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

from synapse_login_module.errors import InvalidCredentials, LoginServiceError, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.providers.circuit import NO_ROOM, Circuit, CircuitBreaking, State
from synapse_login_module.providers.wrappers.cache import PasswordCache
from synapse_login_module.providers.wrappers.coalescing import Coalescing

T = TypeVar("T")

AUTHENTICATE, ACCOUNT_STATUS = "authenticate", "account_status"


@dataclass(frozen=True)
class Meter:
    """Where things are counted; each is called with a provider's name, and with what it was asked:
    ``authenticate`` or ``account_status``.

    :param outcome: also with ``ok``, ``unknown``, ``refused``, ``unavailable``, ``overloaded``,
        ``cancelled`` or ``failed``; for a status, with that in the place of ``ok``.
    :param circuit: also with what a circuit has become: ``closed``, ``open`` or ``half-open``.
    """

    outcome: Callable[[str, str, str], None]
    circuit: Callable[[str, str, str], None]


@implementer(IPasswordProvider)
class GuardedProvider:
    """A provider with a timeout and a count; with a circuit breaker and a cache where configured.

    A password is looked up in the cache, and then checked by the provider: through the circuit,
    within the timeout. What is counted is the outcome of all that.

    A status is never cached. Questions for the status of one account are coalesced: a valid refresh
    is never limited, so one account could take all places at the provider otherwise. This covers
    every caller: refreshes, logins from the cache or with a login token, and the sweep.

    Passwords and statuses have a circuit each: a backend may answer the one and not the other.

    :param provider: checks passwords. When it raises, that is a failure like another.
    :param name: what the configuration calls it.
    :param timeout: after how many seconds a question is cancelled, which is an outage.
    :param clock: ends what takes too long.
    :param meter: counts what the provider says, and what becomes of its circuits.
    :param breaking: when its circuits open; ``None`` for no circuit breaker.
    :param cache: remembers the passwords that it accepted; ``None`` for no cache.
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
                    f"{name}.{operation}", breaking, partial(self._tell, operation)
                )

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account, or share the look that is under way. Cancelling does not end it."""
        return self._statuses.ask(subject)

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        cache = self._cache
        try:
            account = None if cache is None else cache.find(identifier, password)
            if account is None:
                question = self._provider.authenticate
                account = await self._ask(AUTHENTICATE, question, identifier, password)
                if cache is not None:
                    cache.answered(identifier, password, account)
        except Exception as error:
            if cache is not None and isinstance(error, InvalidCredentials):
                cache.evict(identifier)
            self._meter.outcome(self.name, AUTHENTICATE, _outcome_of(error))
            raise
        self._meter.outcome(self.name, AUTHENTICATE, "unknown" if account is None else "ok")
        return account

    async def _account_status(self, subject: str) -> AccountStatus | None:
        try:
            status = await self._ask(ACCOUNT_STATUS, self._provider.account_status, subject)
        except Exception as error:
            self._meter.outcome(self.name, ACCOUNT_STATUS, _outcome_of(error))
            raise
        self._meter.outcome(self.name, ACCOUNT_STATUS, status.value if status else "unknown")
        return status

    async def _ask(
        self, operation: str, question: Callable[..., Deferred[T]], *arguments: object
    ) -> T:
        """Ask the provider, unless its circuit is open, and give up after the timeout."""
        circuit = self._circuits.get(operation)
        with nullcontext() if circuit is None else circuit.question():
            asked = maybeDeferred(question, *arguments)
            if not asked.called or asked.paused:  # else no timer is needed
                asked.addTimeout(self._timeout, self._clock, self._timed_out)
            return await asked

    def _timed_out(self, _: object, seconds: float) -> Failure:
        return Failure(ProviderUnavailable(f"{self.name} did not answer within {seconds} seconds"))

    def _tell(self, operation: str, state: State) -> None:
        """Count and log what has become of a circuit."""
        self._meter.circuit(self.name, operation, state.value)
        self.log.warn(
            "{name}.{operation}: the circuit is {state}",
            name=self.name,
            operation=operation,
            state=state.value,
        )


def _outcome_of(error: Exception) -> str:
    """What a failure counts as."""
    if isinstance(error, NO_ROOM):
        return "overloaded"
    if isinstance(error, LoginServiceError):
        return error.outcome
    return "cancelled" if isinstance(error, CancelledError) else "failed"
