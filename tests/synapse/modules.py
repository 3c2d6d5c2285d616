"""Further modules for the Synapse under test, which loads them; the tests never do."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from synapse.module_api import NOT_SPAM, ModuleApi
from synapse.module_api.errors import Codes
from twisted.logger import Logger

from tests.support.synapse.profile import LATER_PASSWORD


class LaterModule:
    """Checks passwords too, and is asked after the module under test."""

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> None:
        return None

    def __init__(self, config: None, api: ModuleApi) -> None:
        self._api = api
        api.register_password_auth_provider_callbacks(
            auth_checkers={("m.login.password", ("password",)): self._check}
        )

    async def _check(
        self, username: str, login_type: str, login_dict: Mapping[str, Any]
    ) -> tuple[str, None] | None:
        if login_dict["password"] != LATER_PASSWORD:
            return None
        return self._api.get_qualified_user_id(username), None


class LogoutWatcher:
    """Writes down which session has ended, with a hash of its access token."""

    log = Logger()

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> None:
        return None

    def __init__(self, config: None, api: ModuleApi) -> None:
        if api.worker_app is None:
            api.register_password_auth_provider_callbacks(on_logged_out=self._tell)

    async def _tell(self, user_id: str, device_id: str | None, access_token: str) -> None:
        self.log.info(
            "logged out: {user_id} {device_id} {token}",
            user_id=user_id,
            device_id=device_id,
            token=hashlib.sha256(access_token.encode("ascii")).hexdigest(),
        )


class LoginGuard:
    """Writes down what it is told of each login, and refuses devices whose ID begins with BAD."""

    log = Logger()

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> None:
        return None

    def __init__(self, config: None, api: ModuleApi) -> None:
        api.register_spam_checker_callbacks(check_login_for_spam=self._check)

    async def _check(
        self,
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        request_info: Collection[tuple[str | None, str]],
        auth_provider_id: str | None = None,
    ) -> Any:
        told = (user_id, device_id, display_name, list(request_info), auth_provider_id)
        self.log.info("guard: {told}", told=told)
        if device_id is not None and device_id.startswith("BAD"):
            return Codes.LIMIT_EXCEEDED, {"org.example.reason": "guarded"}
        return NOT_SPAM


class SlowGuard:
    """Has logins wait whose devices are to be called SLOW…, until there is a file of that name."""

    log = Logger()

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> None:
        return None

    def __init__(self, config: None, api: ModuleApi) -> None:
        self._api = api
        api.register_spam_checker_callbacks(check_login_for_spam=self._check)

    async def _check(
        self,
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        request_info: Collection[tuple[str | None, str]],
        auth_provider_id: str | None = None,
    ) -> Any:
        if display_name is not None and display_name.startswith("SLOW"):
            self.log.info("guard has {name} wait", name=display_name)
            while not Path(display_name).exists():
                await self._api.sleep(0.05)
        return NOT_SPAM
