"""A Synapse that delegates authentication to this server (``matrix_authentication_service``)."""

from __future__ import annotations

import hmac
from collections.abc import Coroutine, Mapping
from math import ceil
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from synapse_login_module.errors import AccountRefused, HomeserverUnavailable
from synapse_login_module.homeservers.calls import Answer, SynapseProcess, advised
from synapse_login_module.homeservers.config import SynapseConfig, parse
from synapse_login_module.homeservers.diagnosis import HomeserverDiagnosis
from synapse_login_module.interfaces import IDiagnosable, IHomeserver
from synapse_login_module.model import (
    MAX_HOMESERVER_DEVICE_ID,
    Finding,
    HomeserverAccount,
    NameStatus,
    UserId,
)
from synapse_login_module.outbound.http import BackendClient, RequestLimits
from synapse_login_module.outbound.url import is_in_the_clear
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.tokens.format import TokenKind
from synapse_login_module.tokens.format import parse as parse_token

T = TypeVar("T")

_MAX_DEVICE_NAME, _MAX_DISPLAY_NAME = 100, 256
"""The longest names, in characters. Synapse refuses the whole call for a longer one."""

_FORGET_TOKENS = "/_synapse/client/synapse_login/forget_tokens"
_SERVER_KEYS = "/_matrix/key/v2/server"
_NO_SUCH_NAME = "synapse-login-module-check"

_STATUSES: Mapping[str, NameStatus] = {
    "M_USER_IN_USE": NameStatus.IN_USE,
    "M_EXCLUSIVE": NameStatus.RESERVED,
    "M_INVALID_USERNAME": NameStatus.INVALID,
}


@implementer(IHomeserver, IDiagnosable)
@provider(IPluginClass)
class SynapseHomeserver(Service):
    """Calls Synapse at ``/_synapse/mas``, as the authentication service that it delegates to.

    Emails are never sent: that call would take addresses from other accounts.
    """

    log = Logger()

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> SynapseConfig:
        """Check ``url``, ``secret_file`` and the rest; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return parse(config, folder)

    def __init__(self, config: SynapseConfig, environment: Environment) -> None:
        self.policy = config.keys.policy()
        self._server_name = environment.server_name
        self._secret = config.secret
        timeout = config.keys.timeout / 1000
        limits = RequestLimits(ceil(timeout), timeout, config.keys.connections)

        def process(url: str) -> SynapseProcess:
            client = BackendClient(environment.reactor, config.tls, limits)
            return SynapseProcess(url, client, environment.reactor, environment.metrics)

        # One purpose must not take the connections of another, nor open its circuit. Anybody may
        # send this server a token that makes Synapse fail in its whoami. Deletions are repeated
        # until they succeed, and devices that Synapse cannot delete must not keep logins out.
        self._main = process(config.url)
        self._tokens = process(config.url)
        self._deletions = process(config.url)
        self._forgetting = [process(url) for url in config.forget_tokens]
        self._diagnose = HomeserverDiagnosis(
            config,
            self._main,
            self._check,
            environment.public_baseurl,
            environment.reactor,
            environment.clock,
        )
        for url in dict.fromkeys((config.url, *config.forget_tokens)):
            if is_in_the_clear(url):
                self.log.warn(
                    "the homeserver's secret goes unencrypted to {host}",
                    host=urlsplit(url).hostname,
                )

    def stopService(self) -> Deferred[Any]:
        """Close the persistent connections."""
        super().stopService()
        processes = (self._main, self._tokens, self._deletions, *self._forgetting)
        return gatherResults([each.close() for each in processes])

    def has_secret(self, given: bytes) -> bool:
        """Return whether this is the secret that Synapse calls this server with.

        The time that it takes tells nothing about the secret but its length.
        """
        return hmac.compare_digest(given, self._secret.encode("ascii"))

    def find_account(self, user_id: str) -> Deferred[HomeserverAccount | None]:
        """Find an account by ``query_user``.

        No account is found whose name is not ASCII, as Synapse takes no such query.
        """
        return _fire(self._find_account(user_id))

    def name_status(self, user_id: str) -> Deferred[NameStatus]:
        """Ask by ``is_localpart_available``."""
        return _fire(self._name_status(user_id))

    def make_account(self, user_id: str, display_name: str | None) -> Deferred[bool]:
        """Make an account by ``provision_user``.

        Without a display name Synapse gives it that of its local part.
        """
        return _fire(self._make_account(user_id, display_name))

    def set_display_name(self, user_id: str, display_name: str) -> Deferred[None]:
        """Set the display name, or as much of it as Synapse takes, by ``set_displayname``."""
        name = _storable(display_name, _MAX_DISPLAY_NAME)
        return _fire(self._carry_out("set_displayname", user_id, displayname=name))

    def make_device(self, user_id: str, device_id: str, display_name: str | None) -> Deferred[bool]:
        """Make a device by ``upsert_device``."""
        return _fire(self._make_device(user_id, device_id, display_name))

    def delete_device(self, user_id: str, device_id: str) -> Deferred[None]:
        """Delete a device by ``delete_device``. That of an account that is unknown is deleted."""
        return _fire(self._delete_device(user_id, device_id))

    def allow_cross_signing_reset(self, user_id: str) -> Deferred[None]:
        """Allow it for ten minutes by ``allow_cross_signing_reset``."""
        return _fire(self._carry_out("allow_cross_signing_reset", user_id))

    def owns_user(self, as_token: str, user_id: str) -> Deferred[bool]:
        """Ask Synapse's ``whoami``, with the token, as which user it acts."""
        return _fire(self._owns_user(as_token, user_id))

    def forget_tokens(self, user_id: str, device_id: str | None) -> Deferred[None]:
        """Have each process of ``forget_tokens`` forget them. ``SynapseLoginModule`` does there."""
        return _fire(self._forget_tokens(user_id, device_id))

    def check(self) -> Deferred[str | None]:
        """Call Synapse in a way that changes nothing there."""
        return _fire(self._check())

    def diagnose(self) -> Deferred[list[Finding]]:
        """Examine it; see :class:`~synapse_login_module.interfaces.IDiagnosable`."""
        return _fire(self._diagnose())

    async def _find_account(self, user_id: str) -> HomeserverAccount | None:
        if not user_id.isascii():
            return None
        answer = await self._query("query_user", user_id)
        if answer.status == 404 and answer.errcode == "M_NOT_FOUND":
            return None
        found = answer.require(200)
        named, display_name = found.get("user_id"), found.get("display_name")
        if named != user_id:
            problem = f"{answer.call}: its users are not of {self._server_name}"
            raise HomeserverUnavailable(problem)
        if not isinstance(display_name, str | None):
            raise answer.malformed("display_name")
        if not isinstance(found.get("is_deactivated"), bool):
            raise answer.malformed("is_deactivated")
        return HomeserverAccount(user_id, display_name or None, found["is_deactivated"])

    async def _name_status(self, user_id: str) -> NameStatus:
        if not user_id.isascii():
            return NameStatus.INVALID
        answer = await self._query("is_localpart_available", user_id)
        if answer.status == 400 and answer.errcode in _STATUSES:
            return _STATUSES[answer.errcode]
        answer.require(200)
        return NameStatus.FREE

    async def _make_account(self, user_id: str, display_name: str | None) -> bool:
        more = {}
        if display_name:
            # The call renames an account that exists.
            if await self._find_account(user_id) is not None:
                return False
            more["set_displayname"] = _storable(display_name, _MAX_DISPLAY_NAME)
        answer = await self._post("provision_user", user_id, **more)
        if answer.errcode == "M_USER_IN_USE":  # made by another request at the same time
            return False
        if answer.status == 400 and answer.errcode in _STATUSES:
            problem = f"The homeserver makes no account of this name ({answer.errcode})"
            raise AccountRefused(403, "M_FORBIDDEN", problem)
        answer.require(200, 201)
        return answer.status == 201

    async def _make_device(self, user_id: str, device_id: str, display_name: str | None) -> bool:
        if len(device_id) > MAX_HOMESERVER_DEVICE_ID:
            problem = f"device_id: longer than {MAX_HOMESERVER_DEVICE_ID} characters"
            raise AccountRefused(400, "M_INVALID_PARAM", problem)
        more = {}
        if display_name is not None:
            more["display_name"] = _storable(display_name, _MAX_DEVICE_NAME)
        answer = await self._post("upsert_device", user_id, device_id=device_id, **more)
        answer.require(200, 201)
        return answer.status == 201

    async def _delete_device(self, user_id: str, device_id: str) -> None:
        if UserId.parse(user_id, "").server_name != self._server_name:
            return  # of before this server's name was changed; it has no device there
        answer = await self._post("delete_device", user_id, self._deletions, device_id=device_id)
        is_unknown_user = answer.status == 404 and answer.errcode == "M_NOT_FOUND"
        if answer.status != 204 and not is_unknown_user:
            raise answer.unexpected()

    async def _owns_user(self, as_token: str, user_id: str) -> bool:
        if not as_token or not as_token.isascii() or not as_token.isprintable():
            return False
        path = f"/_matrix/client/v3/account/whoami?user_id={quote(user_id, safe='')}"
        if parse_token(TokenKind.ACCESS, as_token) is not None:
            return False  # Synapse would ask this server about it
        answer = await self._tokens.call("whoami", "GET", path, as_token, fails=False)
        if answer.status in (401, 403) and answer.errcode:
            return False
        found = answer.require(200)
        if not isinstance(found.get("user_id"), str):
            raise answer.malformed("user_id")
        # The access token of a user acts as that user too, and has a device.
        return found["user_id"] == user_id and "device_id" not in found

    async def _forget_tokens(self, user_id: str, device_id: str | None) -> None:
        body = {"localpart": self._localpart(user_id), "device_id": device_id}

        async def forget(process: SynapseProcess) -> None:
            answer = await process.call("forget_tokens", "POST", _FORGET_TOKENS, self._secret, body)
            if answer.status == 404:
                problem = "SynapseLoginModule is not loaded there with delegated: true"
                raise HomeserverUnavailable(f"{answer.call}: it answered 404: {problem}")
            answer.require(200)

        asked = [Deferred.fromCoroutine(forget(process)) for process in self._forgetting]
        for _, result in await DeferredList(asked, consumeErrors=True):
            if isinstance(result, Failure):
                result.raiseException()

    async def _check(self) -> str | None:
        probed = min(self.policy.admins, default=f"@{_NO_SUCH_NAME}:{self._server_name}")
        try:
            await self._find_account(probed)
            # Where that URL does not serve the signing keys, the name is not known.
            keys = await self._main.call("server keys", "GET", _SERVER_KEYS, None)
            named = (keys.content or {}).get("server_name")
            if keys.status == 200 and named not in (None, self._server_name):
                return f"the server_name of {self._main.url} is not {self._server_name}"
            await self._forget_tokens(f"@{_NO_SUCH_NAME}:{self._server_name}", None)
        except HomeserverUnavailable as error:
            is_main = f" at {self._main.url}: " in str(error)
            return advised(error, "url" if is_main else "forget_tokens")
        return None

    async def _carry_out(self, call: str, user_id: str, **more: str) -> None:
        (await self._post(call, user_id, **more)).require(200)

    async def _query(self, call: str, user_id: str) -> Answer:
        path = f"/_synapse/mas/{call}?localpart={quote(self._localpart(user_id), safe='')}"
        return await self._main.call(call, "GET", path, self._secret)

    async def _post(
        self, call: str, user_id: str, process: SynapseProcess | None = None, /, **more: str
    ) -> Answer:
        """Send a call with a body.

        :param process: by default that of logins.
        """
        body = {"localpart": self._localpart(user_id), **more}
        path = f"/_synapse/mas/{call}"
        return await (process or self._main).call(call, "POST", path, self._secret, body)

    def _localpart(self, user_id: str) -> str:
        """Return the local part.

        :raise HomeserverUnavailable: for a user of another server, whose name this one once had,
            or which a provider has.
        """
        localpart, server_name = UserId.parse(user_id, "")
        if server_name != self._server_name:
            problem = f"{user_id!r} is no user of {self._server_name}: is server_name right?"
            raise HomeserverUnavailable(problem)
        return localpart


def _storable(name: str, longest: int) -> str:
    """Return as much of a name as Synapse stores. Any other name makes it answer 400 or 500.

    It stores no NUL characters and no lone surrogates, which some backends have in their names.
    """
    return name.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:longest]


def _fire(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(work)
