"""The class that ``modules:`` in homeserver.yaml names."""

from __future__ import annotations

import ipaddress
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synapse.module_api import ModuleApi
from synapse.module_api.errors import ConfigError as SynapseConfigError
from synapse.rest.client.login import LoginRestServlet
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from synapse_login_module import __version__, compose
from synapse_login_module.accounts.rules import LinkRules
from synapse_login_module.config import modes
from synapse_login_module.config.delegated import DelegatedConfig, is_delegated, parse_delegated
from synapse_login_module.config.settings import ModuleConfig
from synapse_login_module.errors import ConfigError
from synapse_login_module.login import LoginService
from synapse_login_module.metrics.prometheus import metrics_of_synapse
from synapse_login_module.model import Client, TokenPolicy, UserId
from synapse_login_module.passwords import OwnDecoysHashing
from synapse_login_module.plugin import Environment
from synapse_login_module.synapse import compat, watching
from synapse_login_module.synapse.accounts import HomeserverAccounts
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.callbacks import PasswordCallbacks
from synapse_login_module.synapse.ending import SessionEnding
from synapse_login_module.synapse.forget_tokens import serve_forgetting
from synapse_login_module.synapse.linking import Linker
from synapse_login_module.synapse.log import line_writer, say_start
from synapse_login_module.synapse.login_servlet import SynapseLogin
from synapse_login_module.synapse.other_modules import AccountsOfAllModules
from synapse_login_module.synapse.provider import SynapsePasswordProvider
from synapse_login_module.synapse.rate_limits import FailedAttempts, TriedAccounts, inherit_rates
from synapse_login_module.synapse.request_context import RequestContext
from synapse_login_module.synapse.set_up import make_tables
from synapse_login_module.synapse.store import SynapseTokenStore
from synapse_login_module.web.client import Clients
from synapse_login_module.web.handlers import Handlers
from synapse_login_module.web.resource import JSONResource, Shared
from synapse_login_module.web.responses import send_by_headers
from synapse_login_module.web.routes import login_paths


@dataclass(frozen=True)
class ParsedConfig:
    """The module's checked configuration, and the classes of its providers with their settings."""

    config: ModuleConfig
    providers: Sequence[compose.LoadedPlugin]


class SynapseLoginModule:
    """A Synapse module that checks passwords with password providers and serves ``/tokenrefresh``.

    On the main process it does both. On a worker it registers only the password callbacks, since
    the main process makes the ids of tokens.

    In a Synapse that delegates authentication it does neither: see
    :mod:`synapse_login_module.synapse.forget_tokens`.

    :param config: the return value of :meth:`parse_config`.
    :param api: Synapse's ModuleApi.
    """

    log = Logger()

    @staticmethod
    def parse_config(given: Mapping[str, Any]) -> ParsedConfig | DelegatedConfig:
        """Check the ``config:`` block.

        :raise synapse.module_api.errors.ConfigError: with the path of the first problem, and each
            further problem on a line of its own.
        """
        if compat.is_too_old():
            raise SynapseConfigError(
                "synapse_login_module needs Synapse {}.{} or newer: older ones go on accepting the"
                " access tokens of sessions that were logged out".format(*compat.OLDEST)
            )
        given = {} if given is None else given
        try:
            if is_delegated(given):
                return parse_delegated(given)
            return ParsedConfig(*compose.load_module(given, Path.cwd()))
        except ConfigError as error:
            first, *others = error.all()
            path = first.path.split(".") if first.path else ()
            also = "".join(f"\n  also, at {each}" for each in others)
            raise SynapseConfigError(f"{first.problem}{also}", path) from None

    def __init__(self, config: ParsedConfig | DelegatedConfig, api: ModuleApi) -> None:
        self._api = api
        if isinstance(config, DelegatedConfig):
            _refuse_unknown_release(compat.find_incompatible_delegation(api))
            serve_forgetting(api)
            return
        parsed = config
        self._refuse_unfit_synapse()
        self._homeserver = Homeserver(api)
        self._config = inherit_rates(parsed.config, self._homeserver)
        self._refuse_unfit_config()
        metrics = metrics_of_synapse()
        metrics.tell_build(__version__)
        self._hashing = compose.hashing_pool(parsed.config, reactor, metrics)
        environment = Environment(
            server_name=self._homeserver.server_name,
            reactor=reactor,
            hashing=self._hashing,
            clock=time.time,
            random=os.urandom,
            policy=TokenPolicy(),
            homeserver=self._homeserver,
            metrics=metrics,
        )
        try:
            providers = compose.build_providers(parsed.providers, environment)
        except ConfigError as error:
            raise SynapseConfigError(str(error)) from None
        self._start([self._hashing, *providers])
        writer = line_writer(self._homeserver)
        self._audit = compose.audit_log(metrics, reactor, writer)
        IReactorCore(reactor).addSystemEventTrigger("before", "shutdown", self._audit.flush)
        self._ending = ending = SessionEnding(
            self._homeserver, lambda reason: metrics.sessions_ended.of(reason).inc()
        )
        self._store = SynapseTokenStore(
            self._homeserver,
            parsed.config.tokens.reuse_interval,
            parsed.config.tokens.login_token_lifetime,
            os.urandom,
            ending,
        )
        chain = compose.chain(
            parsed.config.password_providers,
            providers,
            None,
            reactor,
            compose.meter(Counter(), metrics),
        )
        self._watch = watching.account_watch(
            self._homeserver, parsed.config, providers, chain, ending, reactor, metrics
        )
        local = SynapsePasswordProvider(
            None, replace(environment, hashing=OwnDecoysHashing(self._hashing))
        )
        self._accounts = HomeserverAccounts(
            chain,
            local if parsed.config.fall_back_to_local else None,
            self._homeserver,
            self._hashing,
            self._linker(),
            parsed.config.sync_profile,
            self._store.revoke_all,
            self._watch.judge.judge,
        )
        # On a worker, too, since it links accounts at first logins.
        tables = api.run_as_background_process(
            "synapse_login_set_up", make_tables, self._homeserver
        )
        tried = None
        if self._homeserver.is_main:
            tables.addCallback(lambda _: self._watch.start())
            tried = self._serve()
        self._register_callbacks(tried)
        say_start(self._homeserver, parsed.config.password_providers, parsed.providers)

    def _refuse_unfit_synapse(self) -> None:
        """Stop the start with a one-line error when this Synapse cannot run the module."""
        try:
            self._api.register_password_auth_provider_callbacks()
        except SynapseConfigError:
            raise SynapseConfigError(
                "matrix_authentication_service is enabled, so Synapse leaves logins, refreshes and"
                " their tokens to it: give synapse_login_module config: {delegated: true} and"
                " nothing else"
            ) from None
        _refuse_unknown_release(compat.find_incompatibility(self._api))

    def _refuse_unfit_config(self) -> None:
        """Stop the start with a one-line error when homeserver.yaml does not fit the module; log
        warnings about risky or odd settings.
        """
        server = self._homeserver
        configs = [each.config for each in self._config.password_providers]
        for warning in modes.of_providers(configs if server.is_main else (), Path.cwd()):
            self.log.warn("{warning}", warning=warning.line)
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

    def _linker(self) -> Linker:
        """Build the linker from the configuration; log a warning about a risky setting."""
        config, server = self._config, self._homeserver
        for index, (_, user_id) in enumerate(config.link_accounts):
            if UserId.parse(user_id, "").server_name != server.server_name:
                raise SynapseConfigError(
                    f"link_accounts.{index}: {user_id} is no user of {server.server_name}"
                )
        if config.existing_accounts == "all" and server.registration_is_open and server.is_main:
            self.log.warn(
                "existing_accounts is all, and enable_registration is on in homeserver.yaml:"
                " a person who registers a name of the directory first keeps a session of that"
                " account"
            )
        return Linker(
            LinkRules(config.existing_accounts, config.link_accounts),
            server.is_reserved,
            server.default_user_type,
            config.register_users,
        )

    def _start(self, parts: Sequence[object]) -> None:
        """Start the services among some parts, and stop them with Synapse."""
        core: Any = IReactorCore(reactor)
        for part in parts:
            if IService.providedBy(part):
                service: Any = part
                service.startService()
                core.addSystemEventTrigger("before", "shutdown", service.stopService)

    def _serve(self) -> TriedAccounts:
        """Register the resources; return what counts failures as they do."""
        service: LoginService = compose.login_service(
            self._config,
            AccountsOfAllModules(self._accounts, self._homeserver),
            self._store,
            self._hashing,
            self._audit,
            reactor,
        )
        servlet = LoginRestServlet(self._homeserver.hs)
        _refuse_unknown_release(compat.find_incompatible_servlet(servlet, self._api))
        login = SynapseLogin(servlet, self._homeserver, service.limits, self._audit)
        FailedAttempts.install(self._homeserver, service.limits, self._audit)
        clients = Clients(self._config.trusted_proxies)
        handlers = Handlers(
            service,
            clients,
            self._homeserver.server_name,
            self._config.tokenrefresh.require_access_token,
            login,
        )
        # Synapse's site has requests of its own, which log and count a response by its headers.
        shared = Shared(send_by_headers)
        not_found = JSONResource(shared)
        for path, resource in login_paths(handlers, shared):
            served = ContextResource(path, resource, not_found, self._homeserver, clients)
            self._api.register_web_resource(path, served)
        return TriedAccounts(self._homeserver, service.limits)

    def _register_callbacks(self, tried: TriedAccounts | None) -> None:
        """Have Synapse's own ``/login`` and user-interactive authentication ask the providers."""
        callbacks = PasswordCallbacks(
            self._homeserver, self._accounts, self._audit, self._ending, tried
        )
        self._api.register_password_auth_provider_callbacks(
            auth_checkers={("m.login.password", ("password",)): callbacks.check_password},
            check_3pid_auth=callbacks.check_threepid,
            on_logged_out=self.on_logged_out if self._homeserver.is_main else None,
        )
        self._api.register_password_auth_provider_callbacks(
            auth_checkers={("m.login.password", ("password",)): callbacks.guard}
        )

    async def on_logged_out(self, user_id: str, device_id: str | None, access_token: str) -> None:
        """Delete the session rows of a device that Synapse logged out. A token without a device
        has none.
        """
        if device_id is not None:
            await self._store.forget(user_id, device_id)


class ContextResource(Resource):
    """Serves a resource of ours on Synapse's site, outside its logging contexts.

    :param path: where it is registered; what clients ask for may spell it otherwise.
    :param inner: the resource.
    :param not_found: renders what is below it.
    :param clients: finds out where requests come from.
    """

    isLeaf = True

    def __init__(
        self,
        path: str,
        inner: JSONResource,
        not_found: JSONResource,
        server: Homeserver,
        clients: Clients,
    ) -> None:
        super().__init__()
        self._path = path
        self._inner = inner
        self._not_found = not_found
        self._homeserver = server
        self._clients = clients

    def render(self, request: Request) -> int:
        """Have the inner resource render the request; there is nothing below it."""
        resource = self._not_found if request.postpath else self._inner
        synapse_request: Any = request
        agent = request.getHeader(b"User-Agent")
        client = self._clients.of(request)
        _tell_address(synapse_request, client)
        context = RequestContext(
            synapse_request.logcontext,
            client.address,
            agent.decode("ascii", "replace") if agent else None,
            self._path,
        )
        self._homeserver.call_module_in(context, lambda: resource.render(request))
        return NOT_DONE_YET


def _refuse_unknown_release(missing: str | None) -> None:
    """Stop the start with a one-line error when Synapse lacks something."""
    if missing is not None:
        raise SynapseConfigError(
            f"synapse_login_module does not know this release of Synapse: it lacks {missing}"
        )


def _tell_address(request: Any, client: Client) -> None:
    """Set the client's address on Synapse's request. Its listener may see only the proxy."""
    try:
        address = ipaddress.ip_address(client.address)
    except ValueError:  # a Unix socket
        return
    kind = IPv4Address if address.version == 4 else IPv6Address
    peer = kind("TCP", client.address, 0)
    request.getClientAddress = lambda: peer
    request.logcontext.request.ip_address = client.address
