"""The module inside Synapse: what ``modules:`` in homeserver.yaml names."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import Counter
from synapse.module_api import ModuleApi
from synapse.module_api.errors import ConfigError as SynapseConfigError
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from synapse_login_module import compose, config, homeserver
from synapse_login_module.audit import AuditLog
from synapse_login_module.config import ModuleConfig
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    LoginServiceError,
)
from synapse_login_module.homeserver import FinalReject, Homeserver, Interruption
from synapse_login_module.login import LoginService
from synapse_login_module.model import (
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    TokenPolicy,
    UserId,
    UserIdentifier,
)
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.synapse import HomeserverAccounts, SynapsePasswordProvider
from synapse_login_module.stores.synapse import SynapseTokenStore
from synapse_login_module.web.answers import answer_to
from synapse_login_module.web.client import Clients
from synapse_login_module.web.endpoints import Endpoints
from synapse_login_module.web.resource import JSONResource
from synapse_login_module.web.tree import login_paths
from synapse_login_module.welcome import require_active

OUTCOMES = Counter(
    "synapse_login_module_outcomes",
    "Outcomes of logins, refreshes and logouts",
    ["event", "outcome", "reason"],
)


@dataclass(frozen=True)
class ParsedConfig:
    """The module's configuration, checked."""

    config: ModuleConfig
    providers: Sequence[compose.Built]


class SynapseLoginModule:
    """Serves Synapse's ``/login`` from password providers, and brings ``/tokenrefresh`` back.

    On the main process it does both; on a worker, the password callbacks alone, since the ids of
    tokens are counted in the main process.
    """

    log = Logger()

    @staticmethod
    def parse_config(given: Mapping[str, Any]) -> ParsedConfig:
        """Check the ``config:`` block.

        :raise synapse.module_api.errors.ConfigError: with the path of the first thing wrong.
        """
        given = {} if given is None else given
        try:
            if not isinstance(given, Mapping):
                raise ConfigError("", "not a mapping")
            parsed = config.parse_module(given)
            return ParsedConfig(parsed, compose.load_providers(parsed, Path.cwd()))
        except ConfigError as error:
            path = error.path.split(".") if error.path else ()
            raise SynapseConfigError(error.problem, path) from None

    def __init__(self, parsed: ParsedConfig, api: ModuleApi) -> None:
        self._api = api
        self._config = parsed.config
        self._refuse_unfit_synapse()
        self._homeserver = Homeserver(api)
        self._refuse_unfit_config()
        self._hashing = compose.hashing_pool(parsed.config, reactor)
        environment = Environment(
            server_name=self._homeserver.server_name,
            reactor=reactor,
            hashing=self._hashing,
            seconds=time.time,
            random=os.urandom,
            policy=TokenPolicy(),
            homeserver=self._homeserver,
        )
        try:
            providers = compose.build_providers(parsed.providers, environment)
        except ConfigError as error:
            raise SynapseConfigError(str(error)) from None
        self._start([self._hashing, *providers])
        local = SynapsePasswordProvider(None, environment)
        self._accounts = HomeserverAccounts(
            compose.chain(parsed.config.password_providers, providers, None, reactor),
            local if parsed.config.fall_back_to_local else None,
            self._homeserver,
            self._hashing,
            parsed.config.register_users,
            parsed.config.sync_profile,
        )
        if self._homeserver.is_main:
            self._serve()
        else:
            self.log.info(
                "on {worker} the module checks passwords; the main process serves /tokenrefresh",
                worker=api.worker_name,
            )
        self._register_callbacks()

    def _refuse_unfit_synapse(self) -> None:
        """End the start with one sentence when this Synapse leaves no room for the module."""
        try:
            self._api.register_password_auth_provider_callbacks()
        except SynapseConfigError:
            raise SynapseConfigError(
                "synapse_login_module cannot be used while matrix_authentication_service is"
                " enabled: Synapse then leaves logins, refreshes and their tokens to it"
            ) from None
        missing = homeserver.missing(self._api)
        if missing is not None:
            raise SynapseConfigError(
                f"synapse_login_module does not know this release of Synapse: it misses {missing}"
            )

    def _refuse_unfit_config(self) -> None:
        """End the start with one sentence when homeserver.yaml and the module do not fit."""
        server = self._homeserver
        if server.is_main and server.lifetimes.refreshable_access_token is None:
            raise SynapseConfigError(
                "synapse_login_module needs refreshable_access_token_lifetime in homeserver.yaml:"
                " give it a duration, as 5m, or leave it out"
            )
        if not server.passwords_enabled:
            self.log.warn(
                "password_config.enabled is off in homeserver.yaml: Synapse's own /login asks no"
                " provider; the /login on the module's listener does"
            )

    def _start(self, parts: Sequence[object]) -> None:
        """Start what has threads or connections, and stop it with Synapse."""
        core: Any = IReactorCore(reactor)
        for part in parts:
            if IService.providedBy(part):
                service: Any = part
                service.startService()
                core.addSystemEventTrigger("before", "shutdown", service.stopService)

    def _serve(self) -> None:
        """Register the resources."""
        self._store = SynapseTokenStore(
            self._homeserver,
            self._config.tokens.reuse_interval,
            self._config.tokens.login_token_lifetime,
            os.urandom,
        )
        self._api.run_as_background_process("synapse_login_set_up", self._store.set_up)
        service: LoginService = compose.login_service(
            self._config, self._accounts, self._store, self._hashing, AuditLog(_count)
        )
        endpoints = Endpoints(
            service,
            Clients(self._config.trusted_proxies),
            self._homeserver.server_name,
            self._config.tokenrefresh.require_access_token,
        )
        for path, resource in login_paths(endpoints):
            self._api.register_web_resource(path, ContextResource(resource, self._homeserver))

    def _register_callbacks(self) -> None:
        """Have Synapse's own ``/login`` and user-interactive authentication ask the providers."""
        self._api.register_password_auth_provider_callbacks(
            auth_checkers={("m.login.password", ("password",)): self.check_password},
            check_3pid_auth=self.check_threepid,
            on_logged_out=self.on_logged_out if self._homeserver.is_main else None,
        )

    async def check_password(
        self, username: str, login_type: str, login_dict: Mapping[str, Any]
    ) -> tuple[str, None] | None:
        """Check a user's password for Synapse.

        Fires with the user, or with ``None`` for "ask the local passwords"; where those are not to
        be asked, and for an outage, it raises what Synapse lets through.
        """
        password = login_dict.get("password")
        if not isinstance(password, str):
            return None
        user_id = UserId.parse(username, self._homeserver.server_name)
        found = await self._ask(UserIdentifier(user_id), password)
        if found is None and not self._config.fall_back_to_local:
            raise FinalReject(403, "Invalid username or password", "M_FORBIDDEN")
        return found

    async def check_threepid(
        self, medium: str, address: str, password: str
    ) -> tuple[str, None] | None:
        """Check an e-mail address's or a telephone number's password for Synapse.

        ``None`` has Synapse look for a user who bound it, whose password it then asks
        :meth:`check_password` for.
        """
        identifier = (
            EmailIdentifier(address.lower()) if medium == "email" else PhoneIdentifier(address)
        )
        return await self._ask(identifier, password)

    async def on_logged_out(self, user_id: str, device_id: str | None, access_token: str) -> None:
        """Forget a session that Synapse ended; an access token of no device had none."""
        if device_id is not None:
            await self._store.forget(user_id, device_id)

    async def _ask(self, identifier: Identifier, password: str) -> tuple[str, None] | None:
        def ask() -> Deferred[str | None]:
            return Deferred.fromCoroutine(self._vouched(identifier, password))

        try:
            user_id = await self._homeserver.leave(ask)
        except InvalidCredentials:
            return None
        except LoginServiceError as error:
            raise _interruption(error) from None
        return None if user_id is None else (user_id, None)

    async def _vouched(self, identifier: Identifier, password: str) -> str | None:
        """The user that the providers vouch for, if they may log in."""
        account = await self._accounts.vouched(identifier, password)
        if account is None:
            await self._hashing.decoy(password)
            return None
        require_active(await self._accounts.account_status(account.user_id))
        return account.user_id


class ContextResource(Resource):
    """Serves a resource of ours on Synapse's site, outside its logging contexts.

    :param inner: the resource.
    """

    isLeaf = True

    def __init__(self, inner: JSONResource, server: Homeserver) -> None:
        super().__init__()
        self._inner = inner
        self._homeserver = server

    def render(self, request: Request) -> int:
        """Answer, as the inner resource does; there is nothing below it."""
        resource = JSONResource() if request.postpath else self._inner
        context = getattr(request, "logcontext", None)
        self._homeserver.leave_with(context, lambda: resource.render(request))
        return NOT_DONE_YET


def _count(event: str, outcome: str, reason: str) -> None:
    OUTCOMES.labels(event, outcome, reason).inc()


def _interruption(error: LoginServiceError) -> Interruption:
    """What Synapse is to answer for an error of ours, uncounted."""
    answer = answer_to(error)
    assert answer is not None
    payload = answer.payload()
    errcode, message = payload.pop("errcode"), payload.pop("error")
    headers = {name.decode(): value.decode() for name, value in answer.headers.items()}
    return Interruption(answer.status, message, errcode, payload, headers)
