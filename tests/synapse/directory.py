"""A directory that cannot tell when it changes, loaded by the Synapse under test alone.

It is a JSON file: names, and what of each is to be said: ``active``, ``locked``, ``deactivated``.
The password of all is the one of the users file. Without the file the directory is away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer, provider

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier, UserIdentifier
from synapse_login_module.plugin import Environment, IPluginClass
from tests.support.synapse.profile import PASSWORD
from tests.synapse import whole_log  # noqa: F401


@implementer(IPasswordProvider)
@provider(IPluginClass)
class DirectoryProvider:
    """A provider of the accounts in a file, each with an id that is not the name."""

    name = "directory"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        return Path(config["path"])

    def __init__(self, config: Path, environment: Environment) -> None:
        self._path = config
        self._server_name = environment.server_name

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        if not isinstance(identifier, UserIdentifier):
            return succeed(None)
        name = identifier.user_id.localpart
        known = self._read()
        if known is None:
            return fail(ProviderUnavailable("there is no directory"))
        if name not in known:
            return succeed(None)
        if password != PASSWORD:
            return fail(InvalidCredentials())
        user_id = f"@{name}:{self._server_name}"
        status = AccountStatus(known[name])
        return succeed(Account(user_id, status=status, subject=f"id-of-{name}"))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        known = self._read()
        if known is None:
            return fail(ProviderUnavailable("there is no directory"))
        found = known.get(subject.removeprefix("id-of-")) if subject.startswith("id-of-") else None
        return succeed(None if found is None else AccountStatus(found))

    def _read(self) -> dict[str, str] | None:
        try:
            known: dict[str, str] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        return known
