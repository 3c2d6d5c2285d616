"""The errors that this package raises. None of them knows HTTP."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar


def described(error: BaseException) -> str:
    """Describe an unexpected error on one line: its class, its message and where it was raised.

    It is for errors of any class, such as those of third-party plugins.
    """
    where = ""
    frames = error.__traceback__
    while frames is not None:
        where = f" ({frames.tb_frame.f_code.co_filename}, line {frames.tb_lineno})"
        frames = frames.tb_next
    return " ".join(f"{type(error).__name__}: {error}{where}".split())


class Charge(enum.Enum):
    """How a login attempt that ends with an error counts against the rate limits."""

    FAILURE = "failure"
    """As an attempt and as a failed attempt."""
    ATTEMPT = "attempt"
    """As an attempt only, because the password was right."""
    NOTHING = "nothing"
    """Not at all, because the client is not at fault."""


class LoginServiceError(Exception):
    """The base class of every error that this package raises on purpose.

    :cvar outcome: the outcome in the audit log: ``refused``, ``limited``, ``unavailable`` or
        ``failed``.
    :ivar reason: the reason in the audit log, one word.
    :cvar charge: how a login that ends with this error counts against the rate limits.
    :ivar provider: the name of the password provider that raised it, for the log; the provider
        chain sets it. Empty when no provider raised it.
    """

    outcome: ClassVar[str] = "failed"
    reason = "error"
    charge: ClassVar[Charge] = Charge.FAILURE
    provider = ""


class ConfigError(LoginServiceError):
    """The configuration is invalid.

    :param path: the place in the configuration, such as ``password_providers.0.config.path``; may
        be empty.
    :param problem: what is wrong there. Line breaks become spaces.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path if path.isprintable() else ascii(path)[1:-1]
        self.problem = " ".join(problem.split())

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem

    def within(self, prefix: str) -> ConfigError:
        """Return this error with ``prefix`` put before its path."""
        return ConfigError(f"{prefix}.{self.path}" if self.path else prefix, self.problem)

    def in_file(self, key: str, file: object) -> ConfigError:
        """Return this error as an error of the configuration key that names the file.

        :param key: the path of the key.
        :param file: the file that this error is in.
        """
        return ConfigError(key, f"{file}: {self}")

    def all(self) -> Sequence[ConfigError]:
        """List every mistake that was found, this one first."""
        return (self,)

    def lines(self, start: str) -> str:
        """Format every mistake that was found, one a line, each line beginning with ``start``."""
        return "\n".join(f"{start}{each}" for each in self.all())


class ConfigErrors(ConfigError):
    """Several mistakes in the configuration.

    As text it is one line: the first mistake, and the number of the others.

    :param errors: the mistakes, at least two.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__(errors[0].path, errors[0].problem)
        self._errors = tuple(errors)

    def __str__(self) -> str:
        return f"{super().__str__()} (and {len(self._errors) - 1} more)"

    def within(self, prefix: str) -> ConfigError:
        """Return these errors with ``prefix`` put before their paths."""
        return ConfigErrors([each.within(prefix) for each in self._errors])

    def in_file(self, key: str, file: object) -> ConfigError:
        """Return these errors as errors of the configuration key that names the file."""
        return ConfigErrors([each.in_file(key, file) for each in self._errors])

    def all(self) -> Sequence[ConfigError]:
        """List every mistake that was found."""
        return self._errors


class Mistakes:
    """Collects mistakes in the configuration, so that one does not hide the next."""

    def __init__(self) -> None:
        self._found: list[ConfigError] = []

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Collect a ``ConfigError`` that the body of the ``with`` raises, and go on after it."""
        try:
            yield
        except ConfigError as error:
            self._found.extend(error.all())

    def add(self, path: str, problem: str) -> None:
        """Collect one mistake."""
        self._found.append(ConfigError(path, problem))

    def raise_any(self) -> None:
        """Raise the collected mistakes, if there are any, without duplicates.

        :raise ConfigError: when there are any.
        """
        found = list({(each.path, each.problem): each for each in self._found}.values())
        if found:
            raise found[0] if len(found) == 1 else ConfigErrors(found)


class InvalidCredentials(LoginServiceError):
    """The password is wrong, or there is no such user. Final: no other provider is asked.

    :param reason: one word for the log; clients do not see it.
    :param user_id: the account whose password was checked, if it is known: the full user ID that a
        login by the same name would give. The failure counts against that account, whatever name
        the client used.
    :param limited: for the log, the rate limit because of which even the right password is refused.
    :param detail: what the provider knows about the refusal, for ``check-login``; may be empty.
    """

    outcome = "refused"

    def __init__(
        self,
        reason: str = "wrong_password",
        user_id: str | None = None,
        limited: RateLimited | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.user_id = user_id
        self.limited = limited
        self.detail = detail


class AccountDeactivated(LoginServiceError):
    """The password is right, but the account is deactivated."""

    outcome = "refused"
    reason = "deactivated"
    charge = Charge.ATTEMPT


class AccountLocked(LoginServiceError):
    """The password is right, but the account is locked."""

    outcome = "refused"
    reason = "locked"
    charge = Charge.ATTEMPT


class PasswordExpired(LoginServiceError):
    """The password is right, but has to be changed first, where the account is kept."""

    outcome = "refused"
    reason = "password_expired"
    charge = Charge.ATTEMPT


class LoginNotPermitted(LoginServiceError):
    """The password is right, but the account may not log in at this time, or from here."""

    outcome = "refused"
    reason = "not_permitted"
    charge = Charge.ATTEMPT


class AccountRefused(LoginServiceError):
    """The password is right, but the homeserver rejects the login, for reasons of its own.

    :param status: the homeserver's HTTP status.
    :param errcode: the homeserver's Matrix error code.
    :param problem: the homeserver's error text.
    :param more: other fields of the homeserver's error response.
    """

    outcome = "refused"
    reason = "homeserver"
    charge = Charge.ATTEMPT

    def __init__(
        self, status: int, errcode: str, problem: str, more: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(status, errcode, problem)
        self.status = status
        self.errcode = errcode
        self.problem = problem
        self.more = more or {}


class AccountNotLinked(LoginServiceError):
    """The password is right, but the account may not log in as the Matrix account of its name.

    :param user_id: the Matrix account.
    :param problem: why the two are not linked, for the log.
    :param setting: the setting or command that would link them, for the log.
    """

    outcome = "refused"
    reason = "not_linked"
    charge = Charge.ATTEMPT

    def __init__(self, user_id: str, problem: str, setting: str) -> None:
        super().__init__(user_id, problem, setting)
        self.user_id = user_id
        self.problem = problem
        self.setting = setting


class ServiceRefused(LoginServiceError):
    """The token is of no application service that may act as this user, if there is that user."""

    outcome = "refused"
    reason = "application_service"


class LinkTaken(LoginServiceError):
    """The user ID, or the provider's account, has another link already."""


class ProviderUnavailable(LoginServiceError):
    """A password provider cannot be reached, or was too slow."""

    outcome = "unavailable"
    reason = "provider"
    charge = Charge.NOTHING


class ProviderBusy(ProviderUnavailable):
    """The provider has reached its limit of concurrent requests.

    Clients get the same response as for :class:`ProviderUnavailable`. But it is no sign that the
    backend is down.
    """


class ProviderUnreachable(ProviderUnavailable):
    """No connection was made to the backend, so it has received nothing."""


class UnusableAccount(ProviderUnavailable):
    """The backend returned an account that cannot be used, such as one with an invalid user ID.

    Clients get the same response as for :class:`ProviderUnavailable`. But it is no sign that the
    backend is down.
    """


class HomeserverUnavailable(LoginServiceError):
    """The homeserver cannot be reached, did not answer in time, or failed."""

    outcome = "unavailable"
    reason = "homeserver"
    charge = Charge.NOTHING


class NotReserved(HomeserverUnavailable):
    """The device of a session that was about to begin is not reserved, or no longer."""


class HomeserverUnreachable(HomeserverUnavailable):
    """No connection was made to the homeserver, so it has received nothing."""


class DeviceBusy(HomeserverUnavailable):
    """The device of an earlier session is being deleted at the moment."""

    reason = "device"


class StoreUnavailable(LoginServiceError):
    """The token store cannot be reached, or cannot write."""

    outcome = "unavailable"
    reason = "store"
    charge = Charge.NOTHING


class KeyUnavailable(StoreUnavailable):
    """The sessions in the store need a token key that this server lacks or has another key for."""

    reason = "key"


class ServerBusy(LoginServiceError):
    """The server has reached its limit of concurrent requests."""


class UnknownToken(LoginServiceError):
    """The token was never issued, or its session has no row any more, as after a logout."""

    outcome = "refused"
    reason = "unknown_token"


class ExpiredToken(LoginServiceError):
    """The token is no longer valid, but its device lives on (``soft_logout``).

    The client has to log in again, and keeps its encryption keys.
    """

    outcome = "refused"
    reason = "expired_token"


class SupersededToken(ExpiredToken):
    """The refresh token lost a race against another refresh, or its session was ended.

    A session is ended by reuse of a refresh token, or when an operator ends all sessions.
    """

    reason = "superseded_token"


class ReusedToken(SupersededToken):
    """The refresh token was replaced long ago. Its reuse has ended the session.

    :param user_id: the user of the session.
    :param device_id: the device of the session.
    """

    reason = "reused_token"

    def __init__(self, user_id: str, device_id: str) -> None:
        super().__init__(user_id, device_id)
        self.user_id = user_id
        self.device_id = device_id


class SessionMismatch(LoginServiceError):
    """The access token that came with a refresh token is not of the same session."""

    outcome = "refused"
    reason = "other_session"


class UnknownSession(LoginServiceError):
    """The user has no session on the device that a request names."""

    outcome = "refused"
    reason = "unknown_session"


class RefreshRefused(LoginServiceError):
    """``/tokenrefresh`` rejects a refresh token, for whatever reason."""


class RateLimited(LoginServiceError):
    """There were too many attempts.

    :param retry_after: seconds until the next attempt can succeed.
    :param limit: the ``limit`` of the empty :class:`~synapse_login_module.model.Bucket`. It is
        empty when the error does not come from a bucket.
    :param key: the ``key`` of that bucket.
    """

    outcome = "limited"
    reason = "rate"

    def __init__(self, retry_after: float, limit: str = "", key: tuple[str, ...] = ()) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after
        self.limit = limit
        self.key = key


class Overloaded(RateLimited):
    """Too many passwords wait to be hashed. No client is at fault, so no attempt is counted."""

    reason = "overloaded"
    charge = Charge.NOTHING
