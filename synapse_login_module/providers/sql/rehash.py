"""Writing a new hash after a login whose hash is weaker than the configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import ConfigError, Overloaded
from synapse_login_module.hashes import Kind, takes_prefix
from synapse_login_module.interfaces import IHashing
from synapse_login_module.model import UserId
from synapse_login_module.providers.sql.config import NO_FORMAT, SQLConfig

Update = Callable[[Mapping[str, str]], Deferred[int]]
"""Runs ``queries.update`` with the values of its parameters; fires with the count of rows."""


class Rehashing:
    """Hashes passwords again in the background; the login does not wait.

    :param name: the provider's name, for the log.
    :param config: the checked configuration.
    :param hashing: makes the new hashes.
    :param server_name: the homeserver's name.
    :param update: writes a new hash.
    :raise ConfigError: when the new hashes cannot have ``new_hash_prefix``.
    :ivar under_way: the accounts, by full user ID, whose new hash is being made and written.
    """

    log = Logger()

    def __init__(
        self, name: str, config: SQLConfig, hashing: IHashing, server_name: str, update: Update
    ) -> None:
        keys, scheme = config.keys, hashing.kind.scheme
        if not takes_prefix(keys.new_hash_prefix, scheme):
            raise ConfigError("new_hash_prefix", f"{scheme} (hashing.format): {NO_FORMAT}")
        self._name = name
        self._keys = keys
        self._hashing = hashing
        self._server_name = server_name
        self._update = update
        self.under_way: set[str] = set()

    def begin(self, user_id: str, password: str, old_hash: str, kind: Kind) -> None:
        """Write a new hash if the old one is weaker than new ones, and none is being written.

        :param user_id: the account's name as a full user ID, spelled as it is stored.
        :param kind: the kind of the old hash.
        """
        if user_id in self.under_way or not kind.is_weaker_than(self._hashing.kind):
            return
        self.under_way.add(user_id)

        def failed(failure: Failure) -> None:
            self.log.warn(
                "{name}: the hash of {user_id} was not renewed: {problem}",
                name=self._name,
                user_id=user_id,
                problem=failure.getErrorMessage(),
            )

        def done(_: object) -> None:
            self.under_way.discard(user_id)

        work = Deferred.fromCoroutine(self._rehash(user_id, password, old_hash))
        work.addErrback(failed).addBoth(done)

    async def _rehash(self, user_id: str, password: str, old_hash: str) -> None:
        keys = self._keys
        # After a prefix, a hash is another program's too, and so is its rule.
        normalize = False if keys.normalize is None and keys.new_hash_prefix else keys.normalize
        try:
            new_hash = await self._hashing.hash(password, keys.pepper, normalize)
        except Overloaded:
            return
        values = {
            "user_id": user_id,
            "localpart": UserId.parse(user_id, self._server_name).localpart,
            "old_hash": old_hash,
            "new_hash": keys.new_hash_prefix + new_hash,
        }
        count = await self._update(values)
        self.log.info(
            "{name}: the hash of {user_id} is renewed in {count} rows",
            name=self._name,
            user_id=user_id,
            count=count,
        )
