"""The handlers of the account page's own requests: JSON, for pages of the same origin alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from twisted.web.http import Request

from synapse_login_module.account_page import AccountPage
from synapse_login_module.model import (
    EmailIdentifier,
    Identifier,
    PasswordLogin,
    SessionInfo,
    UserId,
    UserIdentifier,
    canonical_email,
)
from synapse_login_module.web import requests
from synapse_login_module.web.client import Clients, header_token
from synapse_login_module.web.responses import MISSING_TOKEN, ErrorResponse, Response, success

_DeviceId = Annotated[requests.Stored, Field(min_length=1, max_length=requests.MAX_DEVICE_ID)]


class SignInBody(requests.Body):
    """The body of a sign-in. The user is a name, an e-mail address or a full user ID."""

    user: requests.Text
    password: requests.Text


class SignOutBody(requests.Body):
    """The body of a sign-out of one device."""

    device_id: _DeviceId


class SignOutAllBody(requests.Body):
    """The body of a sign-out of all devices but ``keep``."""

    keep: _DeviceId | None = None


@dataclass(frozen=True, slots=True)
class AccountHandlers:
    """The handlers of the account page.

    Nothing but a header says whose page it is, and no cookie. So no other site can make a browser
    send a request in a user's name.

    :param page: the use cases.
    :param clients: finds the client of each request.
    :param server_name: the homeserver's name.
    """

    page: AccountPage
    clients: Clients
    server_name: str

    async def sign_in(self, request: Request) -> Response:
        """Handle ``POST sign_in``: check the password; respond with a page token."""
        body = requests.parse(SignInBody, requests.read(request))
        password = PasswordLogin(_identifier(body.user, self.server_name), body.password)
        made = await self.page.sign_in(password, self.clients.of(request))
        return success(
            {"token": made.token, "user_id": made.user_id, "expires_in_ms": made.expires_in_ms}
        )

    async def sessions(self, request: Request) -> Response:
        """Handle ``GET sessions``: list the sessions, the one that was refreshed last first."""
        found = await self.page.sessions(_token(request))
        listed = [_session(each) for each in found.sessions]
        return success({"user_id": found.user_id, "sessions": listed})

    async def sign_out(self, request: Request) -> Response:
        """Handle ``POST sign_out``: end the session of a device."""
        token = _token(request)
        body = requests.parse(SignOutBody, requests.read(request))
        await self.page.sign_out(token, body.device_id, self.clients.of(request))
        return success({})

    async def sign_out_all(self, request: Request) -> Response:
        """Handle ``POST sign_out_all``: end all sessions, but for one that is to be kept."""
        token = _token(request)
        body = requests.parse(SignOutAllBody, requests.read(request, empty_is_object=True))
        number = await self.page.sign_out_all(token, body.keep, self.clients.of(request))
        return success({"ended": number})

    async def reset_cross_signing(self, request: Request) -> Response:
        """Handle ``POST reset_cross_signing``: allow the user to replace those keys."""
        await self.page.reset_cross_signing(_token(request), self.clients.of(request))
        return success({})


def _token(request: Request) -> str:
    token = header_token(request)
    if token is None:
        raise ErrorResponse(MISSING_TOKEN)
    return token


def _identifier(typed: str, server_name: str) -> Identifier:
    """Return what a person typed to name an account. A user name holds no "@"."""
    typed = typed.strip()
    if "@" in typed[1:] and not typed.startswith("@"):
        return EmailIdentifier(canonical_email(typed) or typed)
    return UserIdentifier(UserId.parse(typed, server_name), typed)


def _session(session: SessionInfo) -> Mapping[str, Any]:
    """Describe a session. Times are in milliseconds since the epoch, or ``None``."""
    return {
        "device_id": session.device_id,
        "display_name": session.display_name,
        "signed_in_ts": session.created_at,
        "refreshed_ts": session.issued_at,
    }
