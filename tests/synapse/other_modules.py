"""Modules as others write them: the Synapse under test loads them, the tests never do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from synapse.module_api import ModuleApi
from twisted.logger import Logger

from tests.synapse.handover import OTHER_ADDRESS, OTHER_PASSWORD, OTHER_USER, SHARED_SECRET

Answer = tuple[str, Callable[[Any], Awaitable[None]] | None] | None


class OtherModule:
    """Knows one user: by a password, by a secret, and with a login token as single sign-on's.

    It writes down what it is asked and told.
    """

    log = Logger()

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> None:
        return None

    def __init__(self, config: None, api: ModuleApi) -> None:
        self._api = api
        api.register_password_auth_provider_callbacks(
            auth_checkers={
                ("m.login.password", ("password",)): self._check_password,
                ("com.example.secret", ("secret",)): self._check_secret,
                ("com.example.sso", ("provider", "session")): self._make_login_token,
                ("com.example.sso_logout", ("provider", "session")): self._end_sso_session,
            },
            check_3pid_auth=self._check_address,
        )
        api.register_account_validity_callbacks(on_user_login=self._on_user_login)

    async def _check_password(self, username: str, login_type: str, given: Any) -> Answer:
        self.log.info("other asked for {name}", name=username)
        user_id = self._api.get_qualified_user_id(username)
        if user_id != self._api.get_qualified_user_id(OTHER_USER):
            return None
        return await self._known() if given["password"] == OTHER_PASSWORD else None

    async def _check_address(self, medium: str, address: str, password: str) -> Answer:
        self.log.info("other asked for {name}", name=address)
        if (medium, address, password) != ("email", OTHER_ADDRESS, OTHER_PASSWORD):
            return None
        return await self._known()

    async def _check_secret(self, username: str, login_type: str, given: Any) -> Answer:
        await self._api.sleep(0.02)
        return await self._known() if given["secret"] == "open sesame" else None

    async def _make_login_token(self, username: str, login_type: str, given: Any) -> Answer:
        user_id, _ = await self._known()

        async def add(answer: dict[str, Any]) -> None:
            answer["login_token"] = await self._api.create_login_token(
                user_id,
                auth_provider_id=given["provider"],
                auth_provider_session_id=given["session"],
            )

        return user_id, add

    async def _end_sso_session(self, username: str, login_type: str, given: Any) -> Answer:
        handler = self._api._hs.get_sso_handler()
        await handler.revoke_sessions_for_provider_session_id(given["provider"], given["session"])
        return None

    async def _known(self) -> tuple[str, Callable[[Any], Awaitable[None]]]:
        user_id = self._api.get_qualified_user_id(OTHER_USER)
        if not await self._api.check_user_exists(user_id):
            await self._api.register_user(OTHER_USER)

        async def add(answer: dict[str, Any]) -> None:
            answer["com.example.more"] = answer["device_id"]

        return user_id, add

    async def _on_user_login(self, user_id: str, kind: str | None, provider: str | None) -> None:
        self.log.info("other told: {user} {kind} {sso}", user=user_id, kind=kind, sso=provider)


class SharedSecret:
    """Lets who knows one secret log in as any user, as bridges do for double puppeting."""

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> None:
        return None

    def __init__(self, config: None, api: ModuleApi) -> None:
        self._api = api
        api.register_password_auth_provider_callbacks(
            auth_checkers={
                ("com.devture.shared_secret_auth", ("token",)): self._check,
                ("m.login.password", ("password",)): self._check,
            }
        )

    async def _check(self, username: str, login_type: str, given: Any) -> Answer:
        user_id = self._api.get_qualified_user_id(username)
        wanted = hmac.new(SHARED_SECRET, user_id.encode(), hashlib.sha512).hexdigest()
        (token,) = given.values()
        return (user_id, None) if hmac.compare_digest(token, wanted) else None
