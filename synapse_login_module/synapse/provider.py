"""Synapse's local passwords, as a password provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer, provider

from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.hashes import Kind, check_limits
from synapse_login_module.hashes.bcrypt import parse
from synapse_login_module.hashes.common import MostCommon
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import (
    Account,
    AccountStatus,
    Identifier,
    UserIdentifier,
)
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.user_tables import LocalPassword, local_password


@implementer(IPasswordProvider)
@provider(IPluginClass)
class SynapsePasswordProvider:
    """Checks passwords against the hashes in Synapse's table of users."""

    log = Logger()
    name = "synapse"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> None:
        """Reject every key; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        for key in config:
            raise ConfigError(str(key), "unknown key")

    def __init__(self, config: None, environment: Environment) -> None:
        if environment.homeserver is None:
            raise ConfigError("", "this provider works only in the module inside Synapse")
        self._homeserver: Homeserver = environment.homeserver
        self._hashing = environment.hashing
        self._kinds = MostCommon[Kind]()
        self._server_name = environment.server_name

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._homeserver.call_synapse(self._homeserver.account_status, user_id)

    def decoy(self, password: str) -> Deferred[None]:
        """Take as long as a wrong password would."""
        return self._hashing.decoy(password)

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        found = await self._homeserver.call_synapse(self._find, identifier)
        if found is None:
            return None
        user_id, password_hash = found.user_id, found.password_hash
        try:
            kind = parse(password_hash).kind
            check_limits(kind)
        except ValueError:
            self.log.warn(
                "{user_id} cannot log in: its stored hash is none that bcrypt takes",
                user_id=user_id,
            )
            await self._hashing.decoy(password)
            raise InvalidCredentials("no_usable_hash", user_id) from None
        self._hashing.report_kind(self._kinds.seen(user_id, kind), self)
        if not await self._hashing.check(password, password_hash, self._homeserver.pepper):
            raise InvalidCredentials(user_id=user_id)
        return Account(user_id, is_local=True)

    async def _find(self, identifier: Identifier) -> LocalPassword | None:
        """Find the local password of a user that may use it; on Synapse's side.

        The local password of a linked account does not count. Identifiers other than user IDs are
        unknown here: the caller has replaced a bound address by its user's ID.
        """
        if not (self._homeserver.local_passwords_count and isinstance(identifier, UserIdentifier)):
            return None
        user_id = str(identifier.user_id)
        if identifier.user_id.server_name != self._server_name or not user_id.isprintable():
            return None
        found = await self._homeserver.transaction(
            "synapse_login_local_password", lambda rows: local_password(rows, user_id)
        )
        return None if found is None or found.is_linked else found
