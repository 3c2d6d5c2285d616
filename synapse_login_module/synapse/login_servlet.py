"""Synapse's own ``/login``, for the login types that this package does not decide.

ModuleApi: neither lists login types nor logs a user in.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from synapse.api.errors import SynapseError
from synapse.http.site import SynapseRequest
from synapse.rest.client.login import LoginRestServlet
from synapse.rest.well_known import WellKnownBuilder
from twisted.internet.defer import Deferred
from twisted.web.http import Request

from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.model import Client
from synapse_login_module.synapse.api import Homeserver, refused
from synapse_login_module.synapse.rate_limits import HandedOverAttempt
from synapse_login_module.web import requests
from synapse_login_module.web.responses import Response, json_response, success


class SynapseLogin:
    """Synapse as a :class:`~.web.handlers.HomeserverLogin`.

    Synapse finishes a login that is handed over to it, also when the client is gone.

    :param servlet: an instance of Synapse's own, which is registered at no path.
    :param homeserver: the way into Synapse.
    :param limits: count the logins that are handed over, in the place of Synapse's own limits.
    :param audit: logs the outcomes.
    """

    def __init__(
        self,
        servlet: LoginRestServlet,
        homeserver: Homeserver,
        limits: LoginLimits,
        audit: AuditLog,
    ) -> None:
        self._homeserver = homeserver
        self._limits = limits
        self._audit = audit
        self._hs = homeserver.hs
        self._servlet = servlet
        self._well_known = WellKnownBuilder(self._hs)

    def flows(self, request: Request) -> Deferred[Mapping[str, Any]]:
        """Fire with the login types that Synapse lists, and the password, which it may not list."""

        async def ask() -> Mapping[str, Any]:
            _, content = self._servlet.on_GET(_synapse_request(request))
            flows = content["flows"]
            own = {"type": requests.PASSWORD}
            return content if own in flows else {**content, "flows": [own, *flows]}

        return self._homeserver.call_synapse(ask)

    def takes(self, login_type: str) -> bool:
        """Tell whether Synapse, or another module, knows a login type."""
        if login_type == self._servlet.JWT_TYPE:
            return bool(self._servlet.jwt_enabled)
        return login_type == self._servlet.APPSERVICE_TYPE or self._is_of_a_module(login_type)

    def log_in(
        self, request: Request, payload: Mapping[str, Any], client: Client
    ) -> Deferred[Response]:
        """Fire with Synapse's response."""
        subject = None
        if self._is_of_a_module(str(payload["type"])):
            # Synapse raises unexpected errors when these keys have values of other types.
            subject = _subject(
                requests.parse(requests.NamedBody, payload), self._homeserver.server_name
            )
        if payload.get("device_id") == "":
            payload = {key: value for key, value in payload.items() if key != "device_id"}
        synapse_request = _synapse_request(request)
        synapse_request.content = BytesIO(json.dumps(payload).encode("ascii"))
        synapse_request.request_metrics.name = type(self._servlet).__name__
        return self._homeserver.call_synapse(self._log_in, synapse_request, client, subject)

    def complete(self, login_type: str, content: Mapping[str, Any]) -> Deferred[Mapping[str, Any]]:
        """Do what Synapse does after a login, and fire with the body that it makes of it."""

        async def add() -> Mapping[str, Any]:
            said, notes = {**content}, self._homeserver.notes
            await self._hs.get_account_validity_handler().on_user_login(
                said["user_id"],
                auth_provider_type=login_type,
                auth_provider_id=notes.auth_provider_id,
            )
            if notes.on_login is not None:
                await notes.on_login(said)
            well_known = await self._well_known.get_well_known()
            return {**said, "well_known": well_known} if well_known else said

        return self._homeserver.call_synapse(add)

    def _is_of_a_module(self, login_type: str) -> bool:
        return login_type in self._hs.get_password_auth_provider().get_supported_login_types()

    async def _log_in(
        self, request: SynapseRequest, client: Client, subject: str | None
    ) -> Response:
        attempt = HandedOverAttempt(self._homeserver, self._limits, client, subject)
        servlet: Any = copy.copy(self._servlet)
        servlet._address_ratelimiter = attempt.begin
        servlet._account_ratelimiter = attempt.log_in
        servlet.auth_handler = attempt.watch(servlet.auth_handler)
        problem: Exception | None = None
        content: Mapping[str, Any] = {}
        # In this block Synapse counts the request as in flight. The block lets no exception out.
        with request.processing():
            try:
                _, content = await servlet.on_POST(request)
            except Exception as error:
                problem = error
        if problem is None:
            self._audit.record(
                "login",
                "ok",
                "homeserver",
                client,
                user=content["user_id"],
                device=content.get("device_id") or "",
                provider="synapse",
            )
            return success(content)
        attempt.failed(problem)
        user = subject or ""
        if not isinstance(problem, SynapseError):
            self._audit.failed("login", problem, client, user=user)
            raise problem
        said = InvalidCredentials() if attempt.is_rejected else refused(problem)
        self._audit.failed("login", said, client, user=user)
        headers = {name.encode(): text.encode() for name, text in (problem.headers or {}).items()}
        return json_response(problem.code, problem.error_dict(self._hs.config), headers)


def _synapse_request(request: Request) -> SynapseRequest:
    """Return the request as the class that Synapse's sites make."""
    assert isinstance(request, SynapseRequest)
    return request


def _subject(body: requests.NamedBody, server_name: str) -> str | None:
    """Return the user that a login names, in lower case, as in the limits and the log."""
    named = body.identifier or body
    user, address = named.user, named.address
    if user is None:
        return address and address.lower()
    return (user if user.startswith("@") else f"@{user}:{server_name}").lower()
