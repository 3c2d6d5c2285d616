"""Password providers that tell what they are asked and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.config.settings import ProviderPlugin
from synapse_login_module.errors import InvalidCredentials, Overloaded, ProviderUnavailable
from synapse_login_module.hashes import Kind
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.passwords import call_collecting_kinds
from synapse_login_module.rehearsal.steps import Trace

_REJECTED = {
    "no_usable_hash": "rejected the password: the stored hash cannot be used",
    "bad_user_id": "accepted the password, but the account's name makes no valid user ID",
}


@implementer(IPasswordProvider)
class TracedProvider:
    """A provider that adds a step for each question.

    :param inner: the provider with its guard, which has the timeout.
    :param passes_outages: whether the next provider is asked when this one is unavailable.
    :param following: the names of the providers after it.
    :param trace: receives the steps.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        inner: IPasswordProvider,
        passes_outages: bool,
        following: Sequence[str],
        trace: Trace,
        clock: Callable[[], float],
    ) -> None:
        self._inner = inner
        self.name = inner.name
        self._passes_outages = passes_outages
        self._following = following
        self._trace = trace
        self._clock = clock

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._account_status(subject))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        started = self._clock()
        kinds: list[Kind] = []

        def tell(outcome: str, text: str) -> None:
            stored = {"stored_hash": str(kinds[-1])} if kinds else {}
            self._trace.add(
                "provider",
                f"{self.name}, asked for {identifier}, {text}",
                self._clock() - started,
                provider=self.name,
                asked_for=str(identifier),
                outcome=outcome,
                **stored,
            )

        try:
            account = await call_collecting_kinds(
                kinds, self._inner.authenticate, identifier, password
            )
        except InvalidCredentials as error:
            said = _REJECTED.get(error.reason, f"rejected the password{_of(kinds)}")
            tell("rejected", said + self._final())
            raise
        except ProviderUnavailable as error:
            tell("unavailable", f"is unavailable: {error}" + self._after_outage())
            raise
        except Overloaded:
            tell("overloaded", "has no room: too many passwords are being hashed")
            raise
        except Exception as error:
            tell("failed", f"failed with an unexpected error of class {type(error).__name__}")
            raise
        if account is None:
            tell("unknown", f"does not know it{self._next()}")
            return None
        tell("accepted", f"accepted the password{_of(kinds)}")
        subject = account.subject or account.user_id
        status = "" if account.status is None else f": {account.status.value}"
        self._trace.add(
            "account",
            f"{account.user_id}, subject {subject} of {self.name}{status}",
            provider=self.name,
            user_id=account.user_id,
            subject=subject,
            status=account.status and account.status.value,
        )
        return account

    async def _account_status(self, subject: str) -> AccountStatus | None:
        started = self._clock()

        def tell(outcome: str, text: str) -> None:
            self._trace.add(
                "account",
                f"{self.name}, asked for the status of {subject}, {text}",
                self._clock() - started,
                provider=self.name,
                subject=subject,
                status=outcome,
            )

        try:
            status = await self._inner.account_status(subject)
        except Exception as error:
            tell("unavailable", f"is unavailable: {error}")
            raise
        said = "does not know it" if status is None else f"says {status.value}"
        tell(status.value if status else "unknown", said)
        return status

    def _next(self) -> str:
        return f"; {self._following[0]} is asked next" if self._following else ""

    def _final(self) -> str:
        if not self._following:
            return ""
        return f"; this is final, so {' and '.join(self._following)} would not be asked"

    def _after_outage(self) -> str:
        if self._passes_outages:
            return self._next()
        return "; the login fails with it (on_unavailable is not next)" if self._following else ""


def _of(kinds: Sequence[Kind]) -> str:
    """Say what the stored hash is, if one was checked."""
    return f", whose stored hash is {kinds[-1]}" if kinds else ""


def tracing(
    trace: Trace, names: Sequence[str], clock: Callable[[], float]
) -> Callable[[ProviderPlugin, IPasswordProvider], IPasswordProvider]:
    """Return a function that has a provider of the chain traced.

    :param names: the names of all providers in order.
    """

    def traced(plugin: ProviderPlugin, provider: IPasswordProvider) -> IPasswordProvider:
        following = names[names.index(provider.name) + 1 :]
        passes = plugin.on_unavailable == "next"
        return TracedProvider(provider, passes, following, trace, clock)

    return traced
