"""The handlers: from a request to its response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.web.http import Request

from synapse_login_module.errors import KeyUnavailable, LoginServiceError
from synapse_login_module.login import LoginService
from synapse_login_module.model import MAX_HOMESERVER_DEVICE_ID, Client, SessionInfo, TokenPair
from synapse_login_module.web import requests
from synapse_login_module.web.client import Clients, optional_token, required_token
from synapse_login_module.web.interactive import asking_again, read_password
from synapse_login_module.web.responses import Response, bad_field, success, success_in_utf8, text

_VERSIONS = ("r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1")
_V1_MINORS = range(1, 13)
_FLOWS = ({"type": requests.PASSWORD}, {"type": requests.TOKEN, "get_login_token": True})
_SERVICE_FLOW = {"type": requests.SERVICE}


class HomeserverLogin(Protocol):
    """The homeserver around this service, which has a ``/login`` of its own.

    A Deferred fails with an error that :func:`~.responses.response_to` has a response to.
    """

    def flows(self, request: Request) -> Deferred[Mapping[str, Any]]:
        """Fire with the body of ``GET /login``: all login types, this service's included."""

    def takes(self, login_type: str) -> bool:
        """Tell whether the homeserver decides logins of a type that is not this service's."""

    def log_in(
        self, request: Request, payload: Mapping[str, Any], client: Client
    ) -> Deferred[Response]:
        """Fire with the homeserver's own response to a login of a type that it takes.

        :param payload: the body, which has been read from the request.
        """

    def complete(self, login_type: str, content: Mapping[str, Any]) -> Deferred[Mapping[str, Any]]:
        """Fire with the body of a login that this service accepted, and what the homeserver adds.

        :param content: the body without that.
        """


@dataclass(frozen=True, slots=True)
class Handlers:
    """The handlers of one service.

    :param service: the use cases.
    :param clients: finds the client of each request.
    :param server_name: the homeserver's name.
    :param require_access_token: whether ``/tokenrefresh`` needs one.
    :param homeserver: the homeserver around the service; ``None`` standalone.
    :param is_delegated: whether a homeserver accepts this server's tokens, and has it log in the
        users of application services.
    :param public_baseurl: the homeserver's URL for clients; ``None`` if it is not known.
    """

    service: LoginService
    clients: Clients
    server_name: str
    require_access_token: bool
    homeserver: HomeserverLogin | None = None
    is_delegated: bool = False
    public_baseurl: str | None = None

    async def get_login(self, request: Request) -> Response:
        """Handle ``GET /login``: list the login types."""
        if self.is_delegated:
            return success({"flows": [*_FLOWS, _SERVICE_FLOW]})
        if self.homeserver is None:
            return success({"flows": _FLOWS})
        return success(await self.homeserver.flows(request))

    async def post_login(self, request: Request) -> Response:
        """Handle ``POST /login``: log a user in, or have the homeserver do it."""
        payload = requests.read(request)
        client = self.clients.of(request)
        login_type = requests.login_type(payload)
        is_own = login_type in (requests.PASSWORD, requests.TOKEN)
        if self.homeserver is not None and not is_own and self.homeserver.takes(login_type):
            requests.parse(requests.LoginBody, payload)
            return await self.homeserver.log_in(request, payload, client)
        is_service = self.is_delegated and login_type == requests.SERVICE
        as_token = required_token(request) if is_service else None
        asked = requests.login(payload, self.server_name, as_token)
        if self.is_delegated and len(asked.device_id or "") > MAX_HOMESERVER_DEVICE_ID:
            problem = f"String should have at most {MAX_HOMESERVER_DEVICE_ID} characters"
            raise bad_field("device_id", problem)
        # 64 KiB of JSON may be megabytes of objects, which need not stay while the password is
        # checked.
        del payload
        login = await self.service.login(asked, client)
        content: Mapping[str, Any] = {
            "user_id": login.user_id,
            "home_server": self.server_name,
            "device_id": login.device_id,
            **_pair(login.tokens),
        }
        if self.public_baseurl is not None:
            content = {**content, **_well_known(self.public_baseurl)}
        if self.homeserver is not None:
            content = await self.homeserver.complete(login_type, content)
        return success(content)

    async def tokenrefresh(self, request: Request) -> Response:
        """Handle ``POST /tokenrefresh``: refresh a session, strict."""
        refresh_token = requests.refresh_token(request)
        take = required_token if self.require_access_token else optional_token
        return await self._refresh(request, refresh_token, take(request), strict=True)

    async def refresh(self, request: Request) -> Response:
        """Handle ``POST /refresh``: refresh a session, lenient."""
        return await self._refresh(request, requests.refresh_token(request), None, strict=False)

    async def logout(self, request: Request) -> Response:
        """Handle ``POST /logout``: end one session."""
        await self.service.logout(required_token(request), False, self.clients.of(request))
        return success({})

    async def logout_all(self, request: Request) -> Response:
        """Handle ``POST /logout/all``: end all sessions of the user."""
        await self.service.logout(required_token(request), True, self.clients.of(request))
        return success({})

    async def whoami(self, request: Request) -> Response:
        """Handle ``GET /account/whoami``: name the user and the device of a token."""
        session = await self.service.whoami(required_token(request))
        return success({"user_id": session.user_id, "device_id": session.device_id})

    async def get_token(self, request: Request) -> Response:
        """Handle ``POST /login/get_token``: make a login token, which takes the password."""
        session = await self.service.whoami(required_token(request))
        body = requests.parse(requests.AuthBody, requests.read(request, empty_is_object=True))
        password = read_password(body.auth, self.server_name)
        again = asking_again(body.auth)
        del body
        with again:
            made = await self.service.get_token(session, password, self.clients.of(request))
        return success({"login_token": made.token, "expires_in_ms": made.expires_in_ms})

    async def delete_device(self, request: Request) -> Response:
        """Handle ``DELETE /devices/{id}``: delete one device, which takes the password."""
        session = await self.service.whoami(required_token(request))
        device_id = requests.last_segment(request)
        body = requests.parse(requests.AuthBody, requests.read(request, empty_is_object=True))
        return await self._delete_devices(request, session, [device_id], body.auth)

    async def delete_devices(self, request: Request) -> Response:
        """Handle ``POST /delete_devices``: delete several devices, which takes the password."""
        session = await self.service.whoami(required_token(request))
        body = requests.parse(requests.DevicesBody, requests.read(request))
        return await self._delete_devices(request, session, body.devices, body.auth)

    async def _delete_devices(
        self,
        request: Request,
        session: SessionInfo,
        devices: Sequence[str],
        auth: Mapping[str, Any] | None,
    ) -> Response:
        password = read_password(auth, self.server_name)
        with asking_again(auth):
            client = self.clients.of(request)
            # No device is named otherwise, and no index of PostgreSQL takes much longer names.
            named = [each for each in devices if 0 < len(each) <= requests.MAX_DEVICE_ID]
            await self.service.delete_devices(session, named, password, client)
        return success({})

    async def versions(self, request: Request) -> Response:
        """Handle ``GET /_matrix/client/versions``: list what is supported of the specification."""
        versions = [*_VERSIONS, *(f"v1.{minor}" for minor in _V1_MINORS)]
        return success({"versions": versions, "unstable_features": {"org.matrix.msc2918": True}})

    async def health(self, request: Request) -> Response:
        """Handle ``GET /health``: tell whether requests can be served."""
        try:
            await self.service.reachable()
        except KeyUnavailable:
            said = b"the token key cannot sign at the moment: the log and show-keys say why\n"
            return text(503, said)
        except LoginServiceError:
            return text(503, b"sessions cannot be kept at the moment\n")
        return text(200, b"OK")

    async def _refresh(
        self, request: Request, refresh_token: str, access_token: str | None, *, strict: bool
    ) -> Response:
        client = self.clients.of(request)
        pair = await self.service.refresh(refresh_token, access_token, strict, client)
        return success_in_utf8(_pair(pair))


def _well_known(public_baseurl: str) -> dict[str, Any]:
    return {"well_known": {"m.homeserver": {"base_url": public_baseurl}}}


def _pair(pair: TokenPair) -> dict[str, Any]:
    optional = {"refresh_token": pair.refresh_token, "expires_in_ms": pair.expires_in_ms}
    given = {key: value for key, value in optional.items() if value is not None}
    return {"access_token": pair.access_token, **given}
