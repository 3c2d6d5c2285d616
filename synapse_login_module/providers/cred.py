"""A checker of ``twisted.cred`` as a password provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from twisted.application.service import Service
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.reflect import namedAny
from zope.interface import implementer, provider

from synapse_login_module.config.validation import Strict, validate
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    LoginServiceError,
    ProviderUnavailable,
    UnusableAccount,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier, fold
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.identifiers import (
    Kind,
    Named,
    kind_of,
    named,
    named_as_typed,
    names_of,
    unchecked_status,
)
from synapse_login_module.providers.thread_pool import BoundedPool

_QUEUE = 64


class _Keys(Strict):
    checker: Annotated[str, Field(pattern=r"^\w+(\.\w+)+$")]
    arguments: dict[str, Any] = Field(default_factory=dict, repr=False)
    unknown: Literal["reject", "next"] = "reject"
    identifiers: Annotated[tuple[Kind, ...], Field(min_length=1, strict=False)] = ("user",)
    username: Literal["localpart", "user_id"] = "localpart"
    threads: Annotated[int, Field(ge=1, le=256)] | None = None


@dataclass(frozen=True)
class CredConfig:
    """The checked configuration of :class:`CredProvider`.

    :param make: the class of the checker.
    :param keys: the keys of the configuration.
    """

    make: Any
    keys: _Keys


@implementer(IPasswordProvider)
@provider(IPluginClass)
class CredProvider(Service):
    """Checks passwords with a checker for ``IUsernamePassword`` credentials.

    A checker only says whether a name and a password belong together. So no account can be looked
    at without a password. Most checkers return the name that they were asked for as the avatar ID,
    so the case of its letters does not tell how the account is spelled.
    """

    log = Logger()
    name = "cred"
    verifiable = False

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> CredConfig:
        """Check the ``config:`` block, and import the checker's class; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        keys = validate(_Keys, config)
        try:
            make = namedAny(keys.checker)
        except Exception as error:  # an import runs the module, which may raise anything
            raise ConfigError("checker", f"cannot import it: {error}") from None
        if not (isinstance(make, type) and ICredentialsChecker.implementedBy(make)):
            raise ConfigError("checker", "it is no class that implements ICredentialsChecker")
        return CredConfig(make, keys)

    def __init__(self, config: CredConfig, environment: Environment) -> None:
        self._keys = config.keys
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        try:
            self._checker = config.make(**config.keys.arguments)
        except Exception as error:  # the constructor may raise anything
            raise ConfigError("arguments", f"{type(error).__name__}: {error}") from None
        if IUsernamePassword not in self._checker.credentialInterfaces:
            raise ConfigError("checker", "it does not check a name and a password")
        self._pool: BoundedPool | None = None
        if config.keys.threads is not None:
            self._pool = BoundedPool(environment.reactor, config.keys.threads, _QUEUE)

    def startService(self) -> None:
        """Start the threads, if the checker runs on threads."""
        super().startService()
        if self._pool is not None:
            self._pool.startService()

    def stopService(self) -> None:
        """End the threads."""
        super().stopService()
        if self._pool is not None:
            self._pool.stopService()

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Fire with ``UNVERIFIABLE``, or with ``None`` if no account of this server is meant."""
        return succeed(unchecked_status(subject, self._server_name))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        kind = kind_of(identifier)
        names = names_of(identifier, self._server_name)
        if kind not in self._keys.identifiers or names is None:
            return None
        username = names[self._keys.username if kind == "user" else kind]
        try:
            avatar_id = await self._ask(
                UsernamePassword(
                    username.encode("utf-8"), password.encode("utf-8", "surrogatepass")
                )
            )
        except UnauthorizedLogin:
            if self._keys.unknown == "next":
                return None
            raise InvalidCredentials from None
        except (LoginServiceError, CancelledError):
            raise
        except Exception as error:  # a checker of a third party may raise anything
            raise ProviderUnavailable(f"{type(error).__name__} in the checker") from error
        who = self._who(named(_text(avatar_id), self._server_name), names)
        return Account(who.require_user_id(self.log, self.name), subject=who.name)

    def _who(self, given: Named | None, asked: Mapping[str, str]) -> Named:
        """Tell whose account it is.

        :param given: the name in the checker's avatar ID; ``None`` if it is not a name.
        :param asked: the names of the client's identifier.
        :raise ProviderUnavailable: when the avatar ID is not a user of this server.
        """
        if given is None:
            raise UnusableAccount("the checker's avatar ID is no user ID of this server")
        if not given.name.startswith("@"):
            return named_as_typed(given.name, self._server_name)
        if fold(given.name) == fold(asked.get("user_id", "")):
            return named_as_typed(asked["localpart"], self._server_name)
        return given

    def _ask(self, credentials: UsernamePassword) -> Deferred[Any]:
        if self._pool is None:
            return maybeDeferred(self._checker.requestAvatarId, credentials)

        # The checker may return a Deferred, which must not be the result of another Deferred. So
        # the thread returns it in a list. The result of one that has fired is taken out here: if
        # the login has been cancelled meanwhile, nothing else would handle its failure.
        def work() -> list[Any]:
            answer = self._checker.requestAvatarId(credentials)
            if isinstance(answer, Deferred) and answer.called and not answer.paused:
                given: list[Any] = []
                answer.addBoth(given.append)
                return given
            return [answer]

        def unpack(result: list[Any]) -> Any:
            return result[0]

        return self._pool.run(work).addCallback(unpack)


def _text(avatar_id: object) -> object:
    if isinstance(avatar_id, bytes):
        return avatar_id.decode("utf-8", "replace")
    return avatar_id
