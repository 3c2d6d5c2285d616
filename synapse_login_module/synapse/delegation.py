"""Synapse's side of delegated authentication: its secret, its listeners, and its cache of tokens.

The ModuleApi knows nothing of delegated authentication. So everything here is private to Synapse,
and :func:`~synapse_login_module.synapse.compat.find_incompatible_delegation` checks at the start
that it exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from synapse.module_api import ModuleApi


class Delegation:
    """A Synapse that delegates authentication to a service, or does not.

    :param api: the module's ModuleApi.
    """

    def __init__(self, api: ModuleApi) -> None:
        self._api = api
        self._hs = api._hs

    @property
    def is_on(self) -> bool:
        """``matrix_authentication_service.enabled``."""
        return bool(self._hs.config.mas.enabled)

    def secret(self) -> bytes:
        """Return the secret that Synapse and the service share. Synapse reads its file once.

        :raise synapse.module_api.errors.ConfigError: when the file cannot be read.
        """
        return self._hs.config.mas.secret().encode("utf-8")

    @property
    def listeners(self) -> Iterable[Any]:
        """The listeners of this process."""
        config = self._hs.config
        if self._api.worker_app is None:
            return config.server.listeners
        return config.worker.worker_listeners

    def forget(self, localpart: str, device_id: str | None) -> int:
        """Drop what this process has cached of the access tokens of a device.

        Synapse introspects such a token again when it is used next. An introspection that is under
        way is dropped whoever's it is: whose it is shows only when it is done, and its answer may
        be from before the tokens changed. The requests that wait for it still get its answer. Those
        that come after this call do not.

        :param device_id: ``None`` for every device of the user.
        :return: how many entries were dropped.
        """
        auth: Any = self._hs.get_auth()
        cache = auth._introspection_cache
        tokens = [
            token
            for token, entry in cache._result_cache.items()
            if not entry.result.has_called()
            or _is_of(entry.result.get_result(), localpart, device_id)
        ]
        for token in tokens:
            cache.unset(token)
        return len(tokens)


def _is_of(answer: object, localpart: str, device_id: str | None) -> bool:
    """Say whether an answer may be of a token of this device. One that names no user is of none: it
    says that the token is inactive.
    """
    if getattr(answer, "username", None) != localpart:
        return False
    named = getattr(answer, "device_id", None)
    # A service may name the device in the scope instead; an entry too many costs one introspection.
    return device_id is None or named is None or named == device_id
