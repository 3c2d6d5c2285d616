"""Accounts in a file, or in the configuration itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer, provider

from synapse_login_module.config import yaml_loader
from synapse_login_module.config.files import ReadFile, read_accounts
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IFindsAccounts
from synapse_login_module.model import Account, Identifier
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.files.accounts import FileConfig, FileProvider
from synapse_login_module.providers.files.users import UserIndex
from synapse_login_module.providers.identifiers import user_id_from


class _Keys(Strict):
    path: FilePath | None = None
    users: dict[str, Any] | None = None
    pepper: str = ""
    normalize: bool | None = None


@dataclass(frozen=True)
class BcryptConfig(FileConfig):
    """The checked configuration of :class:`BcryptProvider`."""


def _read(path: Path) -> UserIndex:
    return UserIndex.read(yaml_loader.parse(read_accounts(path)))


@implementer(IFindsAccounts)
@provider(IPluginClass)
class BcryptProvider(FileProvider):
    """Checks passwords against a users file. Hashes may be of any format; the name is older."""

    name = "bcrypt"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> BcryptConfig:
        """Check ``path`` or ``users``, ``pepper`` and ``normalize``; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        keys = validate(_Keys, config)
        if (keys.path is None) == (keys.users is None):
            raise ConfigError("", "takes either path or users")
        if keys.path is None:
            users = UserIndex.read({"users": keys.users})
            return BcryptConfig(users, keys.pepper, None, keys.normalize)
        file = ReadFile.load("path", folder / keys.path, _read)
        return BcryptConfig(file.value, keys.pepper, file, keys.normalize)

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

        return self._current().addCallback(account)
