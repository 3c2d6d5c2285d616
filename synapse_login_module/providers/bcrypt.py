"""Accounts in a file, or in the configuration itself, with bcrypt hashes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer, provider

from synapse_login_module import yamlfile
from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier, UserId
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.users import Directory
from synapse_login_module.schema import Strict, validate

Stamp = tuple[int, int, int]


class _Keys(Strict):
    path: str | None = None
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


def _stamp(path: Path) -> Stamp | None:
    """What changes when a file does, or ``None`` when it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@implementer(IPasswordProvider)
@provider(IPluginClass)
class BcryptProvider:
    """Accounts of a users file, read again when it changes; hashes are Synapse's.

    A new version with a mistake in it is logged, and the last good one kept.
    """

    log = Logger()
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
        stamp = _stamp(path)
        try:
            directory = Directory.read(yamlfile.load(path))
        except ConfigError as error:
            raise ConfigError("path", f"{path}: {error}") from None
        return BcryptConfig(directory, keys.pepper, path, stamp)

    def __init__(self, config: BcryptConfig, environment: Environment) -> None:
        self._server_name = environment.server_name
        self._reactor = environment.reactor
        self._hashing = environment.hashing
        self._pepper = config.pepper
        self._path = config.path
        self._stamp = config.stamp
        self._reading = DeferredLock()
        self._use(config.directory)

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
        if self._path is None or _stamp(self._path) == self._stamp:
            return succeed(self._directory)
        return self._reading.run(self._read_again, self._path)

    def _read_again(self, path: Path) -> Deferred[Directory]:
        stamp = _stamp(path)
        if stamp == self._stamp:
            return succeed(self._directory)

        def read() -> Directory:
            return Directory.read(yamlfile.load(path))

        def good(directory: Directory) -> Directory:
            self.log.info("read {path} again: {count} users", path=path, count=len(directory.users))
            self._use(directory)
            return directory

        def bad(failure: Any) -> Directory:
            failure.trap(ConfigError)
            self.log.error(
                "{path} is not used as it stands now, but as it last was: {problem}",
                path=path,
                problem=failure.value,
            )
            return self._directory

        self._stamp = stamp
        reading = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), read)
        return reading.addCallbacks(good, bad)

    def _use(self, directory: Directory) -> None:
        self._directory = directory
        if directory.usual_cost is not None:
            self._hashing.expect_cost(directory.usual_cost)
