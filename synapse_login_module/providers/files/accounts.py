"""Logging in by accounts that are held in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from synapse_login_module.config.files import ReadFile
from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.model import Account, AccountStatus, Identifier, UserId
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.files.users import UserIndex
from synapse_login_module.providers.identifiers import Named, user_id_from

_log = Logger()


def watch(file: ReadFile[UserIndex], environment: Environment) -> Callable[[], Deferred[UserIndex]]:
    """What fires with the accounts as they stand in a file now.

    A file that has lost its last account is taken for a broken one: all sessions would end.
    """
    if not file.value.users:
        _log.warn("{path} holds no account: nobody can log in by it", path=file.path)

    def read(path: Path) -> UserIndex:
        directory = file.read(path)
        if not directory.users:
            raise ConfigError("", "it holds no account any more")
        return directory

    return replace(file, read=read).watch(environment.reactor).current


class Accounts:
    """Accounts of a directory.

    :param directory: as it stands at first.
    :param current: fires with the directory as it stands now.
    :param check: fires with whether a password is a hash's.
    :param provider: the name of the provider whose they are.
    :param environment: has the server's name, and the pool that is told what a hash costs.
    """

    def __init__(
        self,
        directory: UserIndex,
        current: Callable[[], Deferred[UserIndex]],
        check: Callable[[str, str], Deferred[bool]],
        provider: str,
        environment: Environment,
    ) -> None:
        self._current = current
        self._check = check
        self._provider = provider
        self._hashing = environment.hashing
        self._server_name = environment.server_name
        self._tell_cost(directory)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def find(self, identifier: Identifier) -> Deferred[Account | None]:
        """Find an account; see :class:`~synapse_login_module.interfaces.IFindsAccounts`."""

        def account(directory: UserIndex) -> Account | None:
            name = directory.find(identifier, self._server_name)
            user_id = None if name is None else user_id_from(name, self._server_name)
            if name is None or user_id is None:
                return None
            user = directory.users[name]
            return Account(
                user_id, user.display_name, user.emails, status=user.status, subject=name
            )

        return self._now().addCallback(account)

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""

        def status(directory: UserIndex) -> AccountStatus | None:
            parsed = UserId.parse(subject, self._server_name)
            known = parsed.server_name == self._server_name
            user = directory.users.get(parsed.localpart) if known else None
            return None if user is None else user.status

        return self._now().addCallback(status)

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        directory = await self._now()
        name = directory.find(identifier, self._server_name)
        if name is None:
            return None
        user = directory.users[name]
        who = Named(name, user_id_from(name, self._server_name))
        if not await self._check(password, user.password_hash):
            raise InvalidCredentials(user_id=who.user_id)
        return Account(
            who.require_user_id(_log, self._provider),
            user.display_name,
            user.emails,
            status=user.status,
            subject=name,
        )

    def _now(self) -> Deferred[UserIndex]:
        return self._current().addCallback(self._tell_cost)

    def _tell_cost(self, directory: UserIndex) -> UserIndex:
        if directory.usual_cost is not None:
            self._hashing.report_cost(directory.usual_cost, self)
        return directory
