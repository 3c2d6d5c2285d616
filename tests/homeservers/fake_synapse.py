"""A service on a socket that answers like a delegating Synapse, or misbehaves when told to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from synapse_login_module.errors import AccountRefused, HomeserverUnavailable
from synapse_login_module.model import NameStatus
from synapse_login_module.testing import SERVER_NAME, FakeHomeserver
from tests.providers.backends import QuietSite
from tests.providers.case import reactor

SECRET = "secret-of-the-tests"

_MAS = "/_synapse/mas/"
_FORGET = "/_synapse/client/synapse_login/forget_tokens"
_ERRCODES = {
    NameStatus.IN_USE: "M_USER_IN_USE",
    NameStatus.RESERVED: "M_EXCLUSIVE",
    NameStatus.INVALID: "M_INVALID_USERNAME",
}


@dataclass(frozen=True)
class Seen:
    """A request that it had.

    :param query: the values of the query, each once.
    """

    method: str
    path: str
    query: Mapping[str, str]
    token: str | None
    body: Any
    connection: int


@dataclass
class FakeSynapse:
    """The answers of Synapse 1.163, from the accounts and devices of a homeserver in memory.

    :ivar delegates: whether it has the paths below ``/_synapse/mas``.
    :ivar forgets: whether it has the module's path.
    :ivar server_name: the name in its signing keys; ``None`` when it does not serve them.
    :ivar users_of: the server name of its users.
    :ivar user_tokens: the user IDs whose access tokens these are.
    :ivar answer: in the place of its own answers: a status and a body.
    :ivar headers: sent with every answer.
    :ivar held: while it is a list, requests go there and stay unanswered.
    """

    homeserver: FakeHomeserver = field(default_factory=FakeHomeserver)
    secret: str = SECRET
    delegates: bool = True
    forgets: bool = True
    server_name: str | None = SERVER_NAME
    users_of: str = SERVER_NAME
    user_tokens: dict[str, str] = field(default_factory=dict)
    answer: tuple[int, bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    held: list[Request] | None = None
    seen: list[Seen] = field(default_factory=list)

    async def respond(self, seen: Seen) -> tuple[int, object]:
        """Return the status and the JSON of an answer; ``None`` for an empty body."""
        if seen.path.startswith(_MAS) and self.delegates:
            if seen.token != self.secret:
                return 403, _error("M_UNKNOWN")
            return await self._call(seen.path.removeprefix(_MAS), seen)
        if seen.path == _FORGET and self.forgets:
            if seen.token != self.secret:
                return 403, _error("M_FORBIDDEN")
            await self.homeserver.forget_tokens(self._user_id(seen.body), seen.body["device_id"])
            return 200, {}
        if seen.path == "/_matrix/client/v3/account/whoami":
            return await self._whoami(seen)
        if seen.path == "/_matrix/key/v2/server" and self.server_name is not None:
            return 200, {"server_name": self.server_name, "verify_keys": {}}
        return 404, _error("M_UNRECOGNIZED")

    async def _call(self, call: str, seen: Seen) -> tuple[int, object]:
        homeserver, body = self.homeserver, seen.body
        if not all(map(_is_storable, (body or {}).values())):
            return 500, _error("M_UNKNOWN")
        user_id = self._user_id(seen.query if body is None else body)
        if call == "is_localpart_available":
            status = await homeserver.name_status(user_id)
            if status is NameStatus.FREE:
                return 200, {}
            return 400, _error(_ERRCODES[status])
        if call == "provision_user":
            return await self._provision(user_id, body)
        account = await homeserver.find_account(user_id)
        if account is None:
            return 404, _error("M_NOT_FOUND")
        if call == "query_user":
            return 200, {
                "user_id": user_id.replace(f":{SERVER_NAME}", f":{self.users_of}"),
                "display_name": account.display_name,
                "avatar_url": None,
                "is_suspended": False,
                "is_deactivated": account.is_deactivated,
            }
        if call == "set_displayname":
            if len(body["displayname"]) > 256:
                return 400, _error("M_UNKNOWN")
            await homeserver.set_display_name(user_id, body["displayname"])
            return 200, {}
        if call == "upsert_device":
            if len(body.get("display_name") or "") > 100:
                return 400, _error("M_TOO_LARGE")
            named = body.get("display_name")
            is_new = await homeserver.make_device(user_id, body["device_id"], named)
            return (201 if is_new else 200), {}
        if call == "delete_device":
            await homeserver.delete_device(user_id, body["device_id"])
            return 204, None
        assert call == "allow_cross_signing_reset"
        await homeserver.allow_cross_signing_reset(user_id)
        return 200, {}

    async def _provision(self, user_id: str, body: Mapping[str, Any]) -> tuple[int, object]:
        localpart = user_id[1:].partition(":")[0]
        try:
            name = body.get("set_displayname")
            is_new = await self.homeserver.make_account(user_id, name or localpart)
        except AccountRefused:
            return 400, _error(_ERRCODES[await self.homeserver.name_status(user_id)])
        if not is_new and name is not None:
            await self.homeserver.set_display_name(user_id, name)
        return (201 if is_new else 200), {}

    async def _whoami(self, seen: Seen) -> tuple[int, object]:
        token, user_id = seen.token or "", seen.query.get("user_id", "")
        if token in self.user_tokens:
            owner = self.user_tokens[token]
            return 200, {"user_id": owner, "is_guest": False, "device_id": "PHONE"}
        if token not in self.homeserver.application_services:
            return 401, _error("M_UNKNOWN_TOKEN")
        if not await self.homeserver.owns_user(token, user_id):
            return 403, _error("M_FORBIDDEN")
        return 200, {"user_id": user_id, "is_guest": False}

    def _user_id(self, given: Mapping[str, Any]) -> str:
        return f"@{given['localpart']}:{SERVER_NAME}"


class SynapseSite:
    """A :class:`FakeSynapse` on a socket of this process.

    :ivar url: its URL.
    """

    def __init__(self, synapse: FakeSynapse, tls: Any = None) -> None:
        self.synapse = synapse
        self._site = QuietSite(_Everything(synapse))
        if tls is None:
            self._port = reactor.listenTCP(0, self._site, interface="127.0.0.1")
        else:
            self._port = reactor.listenSSL(0, self._site, tls, interface="127.0.0.1")
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._port.getHost().port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._site.channels)

    def cut(self) -> None:
        """Cut every connection."""
        for channel in list(self._site.channels):
            channel._channel.transport.abortConnection()

    async def stop(self) -> None:
        """Listen no more, and cut every connection."""
        await maybeDeferred(self._port.stopListening)
        self.cut()


class _Everything(Resource):
    isLeaf = True

    def __init__(self, synapse: FakeSynapse) -> None:
        super().__init__()
        self._synapse = synapse

    def render(self, request: Request) -> Any:
        synapse = self._synapse
        seen = _seen(request)
        synapse.seen.append(seen)
        for name, value in synapse.headers.items():
            request.setHeader(name, value)
        if synapse.held is not None:
            synapse.held.append(request)
            return NOT_DONE_YET
        if synapse.answer is not None:
            status, body = synapse.answer
            request.setResponseCode(status)
            return body

        def answered(answer: tuple[int, object]) -> None:
            request.setResponseCode(answer[0])
            request.write(b"" if answer[1] is None else json.dumps(answer[1]).encode())
            request.finish()

        def failed(failure: Any) -> None:
            known = failure.check(HomeserverUnavailable)
            answered((502 if known else 500, _error(type(failure.value).__name__)))

        Deferred.fromCoroutine(synapse.respond(seen)).addCallbacks(answered, failed)
        return NOT_DONE_YET


def _seen(request: Request) -> Seen:
    assert request.content is not None
    text = request.content.read()
    parts = urlsplit(request.uri.decode("ascii"))
    query = {key: values[-1] for key, values in parse_qs(parts.query, True, True).items()}
    header = request.getHeader("authorization")
    return Seen(
        request.method.decode("ascii"),
        parts.path,
        query,
        None if header is None else header.removeprefix("Bearer "),
        json.loads(text) if text else None,
        id(request.channel),
    )


def _is_storable(text: str) -> bool:
    """Return whether PostgreSQL takes a text."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _error(errcode: str) -> dict[str, str]:
    return {"errcode": errcode, "error": "text of the homeserver"}
