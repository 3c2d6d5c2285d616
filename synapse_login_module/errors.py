"""What can go wrong, in the terms of the domain. Nothing here knows HTTP."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar


def described(error: BaseException) -> str:
    """What to say, on one line, of an error that nobody expected, as of a third party's plugin: its
    kind, its message and where it was raised.
    """
    where = ""
    frames = error.__traceback__
    while frames is not None:
        where = f" ({frames.tb_frame.f_code.co_filename}, line {frames.tb_lineno})"
        frames = frames.tb_next
    return " ".join(f"{type(error).__name__}: {error}{where}".split())


class Charge(enum.Enum):
    """What counts against a client whose attempt to log in ends with an error."""

    FAILURE = "failure"
    """It counts as an attempt, and as a failed one."""
    ATTEMPT = "attempt"
    """It counts as an attempt alone: the password was right."""
    NOTHING = "nothing"
    """It does not count: the client is not at fault."""


class LoginServiceError(Exception):
    """The root of every error that this package raises on purpose.

    :cvar outcome: what the audit log calls it: ``refused``, ``limited``, ``unavailable`` or
        ``failed``.
    :ivar reason: why, one word for the audit log.
    :cvar charge: what counts against a client whose login ends with it.
    :ivar provider: the name of the password provider that it came from, for the log; the chain of
        providers sets it. Empty where it came from none.
    """

    outcome: ClassVar[str] = "failed"
    reason = "error"
    charge: ClassVar[Charge] = Charge.FAILURE
    provider = ""


class ConfigError(LoginServiceError):
    """The configuration cannot be used.

    :param path: where in the configuration, as ``password_providers.0.config.path``; may be empty.
    :param problem: what is wrong there, on one line.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path if path.isprintable() else ascii(path)[1:-1]
        self.problem = " ".join(problem.split())

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem

    def within(self, prefix: str) -> ConfigError:
        """The same error, as seen from one level further out."""
        return ConfigError(f"{prefix}.{self.path}" if self.path else prefix, self.problem)

    def in_file(self, key: str, file: object) -> ConfigError:
        """The same error, as that of a key that names the file where it is."""
        return ConfigError(key, f"{file}: {self}")

    def all(self) -> Sequence[ConfigError]:
        """Every mistake that was found, this one first."""
        return (self,)

    def lines(self, start: str) -> str:
        """Every mistake that was found, a line each, with this at its start."""
        return "\n".join(f"{start}{each}" for each in self.all())


class ConfigErrors(ConfigError):
    """Several mistakes; to whoever shows one line, the first of them and how many more there are.

    :param errors: two at least.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__(errors[0].path, errors[0].problem)
        self._errors = tuple(errors)

    def __str__(self) -> str:
        return f"{super().__str__()} (and {len(self._errors) - 1} more)"

    def within(self, prefix: str) -> ConfigError:
        """All of them, as seen from one level further out."""
        return ConfigErrors([each.within(prefix) for each in self._errors])

    def in_file(self, key: str, file: object) -> ConfigError:
        """All of them, as those of a key that names the file where they are."""
        return ConfigErrors([each.in_file(key, file) for each in self._errors])

    def all(self) -> Sequence[ConfigError]:
        """Every mistake that was found."""
        return self._errors


class Mistakes:
    """Gathers mistakes, so that one does not hide the next."""

    def __init__(self) -> None:
        self._found: list[ConfigError] = []

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Go on after a mistake within."""
        try:
            yield
        except ConfigError as error:
            self._found.extend(error.all())

    def add(self, path: str, problem: str) -> None:
        """Take down one."""
        self._found.append(ConfigError(path, problem))

    def raise_any(self) -> None:
        """Raise what was found.

        :raise ConfigError: when anything was; each mistake of a path counts once.
        """
        found = list({(each.path, each.problem): each for each in self._found}.values())
        if found:
            raise found[0] if len(found) == 1 else ConfigErrors(found)


class InvalidCredentials(LoginServiceError):
    """Not this password, or nobody of that name. Final: no other provider is asked.

    :param reason: one word for the log; no client is told.
    :param user_id: on whose account the password was tried, where that is known: the full user ID,
        as a login by the same name would give it. The failure counts there, whatever the name.
    :param limited: for the log, the limit that refuses even the right password.
    """

    outcome = "refused"

    def __init__(
        self,
        reason: str = "wrong_password",
        user_id: str | None = None,
        limited: RateLimited | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.user_id = user_id
        self.limited = limited


class AccountDeactivated(LoginServiceError):
    """The password is right, but the account is closed."""

    outcome = "refused"
    reason = "deactivated"
    charge = Charge.ATTEMPT


class AccountLocked(LoginServiceError):
    """The password is right, but the account is locked for now."""

    outcome = "refused"
    reason = "locked"
    charge = Charge.ATTEMPT


class AccountRefused(LoginServiceError):
    """The password is right, but the homeserver will not have the login, for reasons of its own.

    :param status: the HTTP status it gives.
    :param errcode: the Matrix error code it gives.
    :param problem: its reason, for people.
    :param more: what else it says of it.
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
    """The password is right, but it is not for the homeserver's account of that name.

    :param user_id: the account of the homeserver.
    :param problem: why the two are not linked, for the log.
    :param setting: what would link them, for the log.
    """

    outcome = "refused"
    reason = "not_linked"
    charge = Charge.ATTEMPT

    def __init__(self, user_id: str, problem: str, setting: str) -> None:
        super().__init__(user_id, problem, setting)
        self.user_id = user_id
        self.problem = problem
        self.setting = setting


class LinkTaken(LoginServiceError):
    """The user, or the provider's account, has another link already."""


class ProviderUnavailable(LoginServiceError):
    """A password provider could not say: it cannot be reached, or was too slow."""

    outcome = "unavailable"
    reason = "provider"
    charge = Charge.NOTHING


class ProviderBusy(ProviderUnavailable):
    """As many questions to a provider are under way as may be.

    It is no different to whoever asks; but it does not say that the backend is away.
    """


class StoreUnavailable(LoginServiceError):
    """The token store cannot be reached or cannot write."""

    outcome = "unavailable"
    reason = "store"
    charge = Charge.NOTHING


class KeyUnavailable(StoreUnavailable):
    """The store's sessions need a token key that this server does not have, or has another of."""

    reason = "key"


class ServerBusy(LoginServiceError):
    """As many requests are being answered as may be."""


class UnknownToken(LoginServiceError):
    """No such token was issued, or nothing is left of its session, as after a logout."""

    outcome = "refused"
    reason = "unknown_token"


class ExpiredToken(LoginServiceError):
    """The token is dead, while the device that has it lives on: it has to log in again, and need
    not forget its encryption keys.
    """

    outcome = "refused"
    reason = "expired_token"


class SupersededToken(ExpiredToken):
    """The refresh token has been used: by the winner of a race; or reuse has ended its session."""

    reason = "superseded_token"


class ReusedToken(SupersededToken):
    """A refresh token that was replaced long ago: its session has been ended for it.

    :param user_id: whose session it was.
    :param device_id: on which device.
    """

    reason = "reused_token"

    def __init__(self, user_id: str, device_id: str) -> None:
        super().__init__(user_id, device_id)
        self.user_id = user_id
        self.device_id = device_id


class SessionMismatch(LoginServiceError):
    """The access token presented with a refresh token is not of the same session."""

    outcome = "refused"
    reason = "other_session"


class RefreshRefused(LoginServiceError):
    """What ``/tokenrefresh`` says of any refresh token that it does not take."""


class RateLimited(LoginServiceError):
    """Too many attempts.

    :param retry_after: seconds until the next attempt can succeed.
    :param limit: the kind of the bucket that is empty, as in
        :class:`~synapse_login_module.model.Bucket`; empty where it is none that refuses.
    :param key: whom that bucket is of.
    """

    outcome = "limited"
    reason = "rate"

    def __init__(self, retry_after: float, limit: str = "", key: tuple[str, ...] = ()) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after
        self.limit = limit
        self.key = key


class Overloaded(RateLimited):
    """Too much waits to be hashed: nobody's fault, so nobody's attempt is counted."""

    reason = "overloaded"
    charge = Charge.NOTHING
