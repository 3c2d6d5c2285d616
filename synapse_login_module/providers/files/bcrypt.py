"""Accounts in a file, or in the configuration itself, with bcrypt hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer, provider

from synapse_login_module.config import yaml_loader
from synapse_login_module.config.files import ReadFile, read_accounts, stamp_of
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IFindsAccounts, IPasswordProvider, IWatchedAccounts
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.files.accounts import Accounts, watch
from synapse_login_module.providers.files.users import UserIndex


class _Keys(Strict):
    path: FilePath | None = None
    users: dict[str, Any] | None = None
    pepper: str = ""


@dataclass(frozen=True)
class BcryptConfig:
    """The checked configuration of :class:`BcryptProvider`.

    :param file: the users file, or ``None`` when the accounts stand in the configuration.
    """

    directory: UserIndex = field(repr=False)
    pepper: str = field(repr=False)
    file: ReadFile[UserIndex] | None


def _read(path: Path) -> UserIndex:
    return UserIndex.read(yaml_loader.parse(read_accounts(path)))


@implementer(IPasswordProvider, IWatchedAccounts, IFindsAccounts)
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
            return BcryptConfig(UserIndex.read({"users": keys.users}), keys.pepper, None)
        file = ReadFile.load("path", folder / keys.path, _read)
        return BcryptConfig(file.value, keys.pepper, file)

    def __init__(self, config: BcryptConfig, environment: Environment) -> None:
        self._file = config.file
        hashing = environment.hashing

        def check(password: str, password_hash: str) -> Deferred[bool]:
            return hashing.check(password, password_hash, config.pepper)

        def inline() -> Deferred[UserIndex]:
            return succeed(config.directory)

        current = inline if config.file is None else watch(config.file, environment)
        self._accounts = Accounts(config.directory, current, check, self.name, environment)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._accounts.authenticate(identifier, password)

    def find(self, identifier: Identifier) -> Deferred[Account | None]:
        """Find an account; see :class:`~synapse_login_module.interfaces.IFindsAccounts`."""
        return self._accounts.find(identifier)

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._accounts.account_status(subject)

    def version(self) -> object:
        """Say what changes with the file; see
        :class:`~synapse_login_module.interfaces.IWatchedAccounts`.
        """
        return None if self._file is None else stamp_of(self._file.path)
