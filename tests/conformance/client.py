"""A client of the login service, which checks every response against the OpenAPI description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.conformance import paths
from tests.conformance.description import service_description
from tests.conformance.target import Feature, Target, TestAccount
from tests.support import client
from tests.support.client import password_login
from tests.support.response import Response

# Shorter passwords may be in a log by chance.
_TELLING = 8


class CheckedClient(client.Client):
    """A client with its own connections to one target.

    :param target: the homeserver.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target.base_url, connections=2, timeout=30.0)
        self.target = target

    async def post(
        self,
        path: str,
        body: object,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a POST with JSON."""
        content = json.dumps(body).encode("utf-8")
        more = {"Content-Type": "application/json", **(headers or {})}
        return await self.send("POST", path, content, more, token=token)

    async def get(self, path: str, token: str | None = None) -> Response:
        """Send a GET."""
        return await self.send("GET", path, token=token)

    async def login(
        self, account: TestAccount | None = None, prefix: str = "v3", **extra: Any
    ) -> Response:
        """Log in with a password, by default with the first account.

        :param extra: further keys of the request, such as ``device_id``.
        """
        account = account or self.target.account
        if len(account.password) >= _TELLING:
            self.secrets.add(account.password)
        body = password_login(account.user, account.password, **extra)
        return await self.post(paths.at(paths.LOGIN, prefix), body)

    async def refresh(self, refresh_token: str, prefix: str = "v3") -> Response:
        """Refresh by ``/refresh``."""
        return await self.post(paths.at(paths.REFRESH, prefix), {"refresh_token": refresh_token})

    async def tokenrefresh(
        self, refresh_token: str, access_token: str | None, prefix: str = "v3"
    ) -> Response:
        """Refresh by ``/tokenrefresh``."""
        path = paths.at(paths.TOKENREFRESH, prefix)
        return await self.post(path, {"refresh_token": refresh_token}, access_token)

    async def whoami(self, access_token: str | None, prefix: str = "v3") -> Response:
        """Ask for the user and device of an access token."""
        return await self.get(paths.at(paths.WHOAMI, prefix), access_token)

    async def logout(self, access_token: str | None, everywhere: bool = False) -> Response:
        """End a session, or all of the user's."""
        path = paths.LOGOUT_ALL if everywhere else paths.LOGOUT
        return await self.send("POST", paths.at(path), token=access_token)

    def note(self, answer: Response) -> None:
        """Remember the tokens of a response, and check it."""
        self.check(answer)

    def check(self, answer: Response) -> None:
        """Check a response against the description, as far as the target follows it."""
        if answer.status < 400 or Feature.STRICT_ERRORS in self.target.features:
            service_description().check(answer)
        super().note(answer)
