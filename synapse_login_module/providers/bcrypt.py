"""Accounts in a file, or in the configuration itself, with bcrypt hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer, provider

from synapse_login_module import yamlfile
from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier, UserId
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.users import Directory
from synapse_login_module.providers.watchedfile import Stamp, WatchedFile, stamp_of
from synapse_login_module.schema import FilePath, Strict, validate


class _Keys(Strict):
    path: FilePath | None = None
    users: dict[str, Any] | None = None
    pepper: str = ""


@dataclass(frozen=True)
class BcryptConfig:
    """The checked configuration of :class:`BcryptProvider`.

    :param path: the users file, or ``None`` when the accounts stand in the configuration.
    :param stamp: what the file looked like when it was read.
    """

    directory: Directory
    pepper: str
    path: Path | None
    stamp: Stamp | None


def _read(path: Path) -> Directory:
    return Directory.read(yamlfile.load(path))


@implementer(IPasswordProvider)
@provider(IPluginClass)
class BcryptProvider:
    """Accounts of a users file, read again when it changes; hashes are Synapse's.

    A new version with a mistake in it is logged, and the last good one kept.
    """

    name = "bcrypt"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> BcryptConfig:
        """Take ``path`` or ``users``, and ``pepper``; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        keys = validate(_Keys, config)
        if (keys.path is None) == (keys.users is None):
            raise ConfigError("", "takes either path or users")
        if keys.path is None:
            return BcryptConfig(Directory.read({"users": keys.users}), keys.pepper, None, None)
        path = folder / keys.path
        stamp = stamp_of(path)
        try:
            directory = _read(path)
        except ConfigError as error:
            raise ConfigError("path", f"{path}: {error}") from None
        return BcryptConfig(directory, keys.pepper, path, stamp)

    def __init__(self, config: BcryptConfig, environment: Environment) -> None:
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        self._pepper = config.pepper
        self._directory = config.directory
        self._file: WatchedFile[Directory] | None = None
        if config.path is not None:
            self._file = WatchedFile(
                config.path, _read, config.directory, config.stamp, environment.reactor
            )
        self._tell_cost(config.directory)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""

        def status(directory: Directory) -> AccountStatus | None:
            parsed = UserId.parse(user_id, self._server_name)
            known = parsed.server_name == self._server_name
            user = directory.users.get(parsed.localpart) if known else None
            return None if user is None else user.status

        return self._current().addCallback(status)

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        directory = await self._current()
        localpart = directory.find(identifier, self._server_name)
        if localpart is None:
            return None
        password_hash = directory.users[localpart].password_hash
        if not await self._hashing.check(password, password_hash, self._pepper):
            raise InvalidCredentials
        return directory.account(localpart, self._server_name)

    def _current(self) -> Deferred[Directory]:
        """The accounts as they stand in the file now."""
        if self._file is None:
            return succeed(self._directory)
        return self._file.current().addCallback(self._tell_cost)

    def _tell_cost(self, directory: Directory) -> Directory:
        if directory.usual_cost is not None:
            self._hashing.expect_cost(directory.usual_cost)
        return directory
