"""The module in a Synapse that delegates authentication: it makes Synapse forget tokens.

Such a Synapse caches for two minutes what the login service says of an access token. So it accepts
a token for that long after the service has replaced it. The module adds one path to each process,
by which the service has the process drop what it cached.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from pydantic import Field
from synapse.module_api import ModuleApi
from synapse.module_api.errors import ConfigError as SynapseConfigError
from twisted.logger import Logger
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import Request

from synapse_login_module.synapse.delegation import Delegation
from synapse_login_module.synapse.log import say_delegated_start
from synapse_login_module.web import requests
from synapse_login_module.web.resource import JSONResource, Shared
from synapse_login_module.web.responses import (
    MISSING_TOKEN,
    ErrorResponse,
    Response,
    error,
    send_by_headers,
    success,
)

PATH = "/_synapse/client/synapse_login/forget_tokens"

_WRONG_SECRET = error(403, "M_FORBIDDEN", "This is not the secret of the login service")


class ForgetBody(requests.Body):
    """The body of the request: the user's local part, and a device or ``null`` for all devices."""

    localpart: Annotated[requests.Text, Field(min_length=1)]
    device_id: requests.Text | None


def serve_forgetting(api: ModuleApi) -> None:
    """Register the path in this process.

    :raise synapse.module_api.errors.ConfigError: when this Synapse does not delegate, or has no
        secret.
    """
    delegation = Delegation(api)
    if not delegation.is_on:
        raise SynapseConfigError(
            "synapse_login_module has config: {delegated: true}, but this Synapse does not delegate"
            " authentication: enable matrix_authentication_service in homeserver.yaml, or replace"
            " delegated: true by the module's other settings"
        )
    secret = delegation.secret()
    if not secret:
        raise SynapseConfigError(
            "synapse_login_module needs the secret of matrix_authentication_service, and it is"
            " empty"
        )
    api.register_web_resource(PATH, ForgetTokensResource(delegation, secret))
    worker = None if api.worker_app is None else api.worker_name
    say_delegated_start(PATH, worker, delegation.listeners)


class ForgetTokensResource(Resource):
    """Serves ``POST`` at :data:`PATH` on Synapse's site.

    The request has ``Authorization: Bearer`` with the secret of ``matrix_authentication_service``,
    and the body ``{"localpart": "alice", "device_id": "ABC"}``; ``null`` stands for all devices.
    The response is 200 and ``{}``, whether anything was cached or not. Without a secret it is 401,
    with a wrong one 403, with a wrong body 400.

    :param delegation: forgets the tokens.
    :param secret: not empty.
    """

    isLeaf = True
    log = Logger()

    def __init__(self, delegation: Delegation, secret: bytes) -> None:
        super().__init__()
        self._delegation = delegation
        self._secret = secret
        # Synapse's site has requests of its own, which log and count a response by its headers.
        shared = Shared(send_by_headers)
        self._at_path = JSONResource(shared, {"POST": self._post})
        self._below = JSONResource(shared)

    def render(self, request: Request) -> int | bytes:
        """Serve the request. It is done when this returns, so it stays in Synapse's logging
        context.
        """
        resource = self._below if request.postpath else self._at_path
        return resource.render(request)

    async def _post(self, request: HTTPRequest) -> Response:
        self._require_secret(request)
        body = requests.parse(ForgetBody, requests.read(request))
        count = self._delegation.forget(body.localpart, body.device_id)
        self.log.debug(
            "{count} cached tokens forgotten: {localpart} {device_id}",
            count=count,
            localpart=body.localpart,
            device_id=body.device_id,
        )
        return success({})

    def _require_secret(self, request: HTTPRequest) -> None:
        """Reject a request that does not carry the secret in its header. Queries are logged, so
        they do not count.
        """
        scheme, _, given = (request.getHeader(b"Authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not given.strip():
            raise ErrorResponse(MISSING_TOKEN)
        if not hmac.compare_digest(given.strip(), self._secret):
            raise ErrorResponse(_WRONG_SECRET)
