"""Builds the sites of the standalone server: that for clients, and that for other servers."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from synapse_login_module.account_page import AccountPage
from synapse_login_module.config.settings import Config, Limits
from synapse_login_module.login import LoginService
from synapse_login_module.metrics.recording import Metric, Metrics, Series
from synapse_login_module.standalone import rlimits
from synapse_login_module.standalone.delegation import Delegation
from synapse_login_module.standalone.measuring import Measuring, nothing_measured
from synapse_login_module.tokens.format import KeyRing
from synapse_login_module.tokens.page_token import PageTokens
from synapse_login_module.web.account import AccountHandlers
from synapse_login_module.web.client import Clients
from synapse_login_module.web.handlers import Handlers
from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.internal import InternalHandlers
from synapse_login_module.web.pages import ACCOUNT_PAGE
from synapse_login_module.web.resource import InFlight
from synapse_login_module.web.responses import Send, counting
from synapse_login_module.web.routes import internal_root, standalone_root
from synapse_login_module.web.site import LoginSite, SiteLimits

_PUBLIC, _INTERNAL = "public", "internal"


def build_sites(
    config: Config,
    service: LoginService,
    delegation: Delegation | None,
    store: Any,
    keys: KeyRing,
    reactor: Any,
    measuring: Measuring | None = None,
) -> tuple[LoginSite, LoginSite]:
    """Build the site for clients, and the internal one for other servers.

    :param delegation: the homeserver that delegates to this server, if there is one.
    :param store: the token store; with a homeserver, an ``IDelegatedStore``.
    :param keys: the token keys.
    :param measuring: counts and measures, and shows the page; by default nothing is kept.
    """
    measuring = measuring or nothing_measured()
    metrics = measuring.metrics
    clients = Clients(config.trusted_proxies)
    handlers = Handlers(
        service,
        clients,
        config.server_name,
        config.tokenrefresh.require_access_token,
        is_delegated=delegation is not None,
        public_baseurl=config.public_baseurl,
    )
    account = asked = None
    if delegation is not None:
        page = AccountPage(
            service, store, PageTokens(keys, time.time), delegation.homeserver, store
        )
        account = AccountHandlers(page, clients, config.server_name)
        asked = _internal_handlers(config, delegation, service, reactor)
    refused = metrics.limits_hit.of("requests").inc
    in_flight = InFlight(config.limits.requests, clients.network, refused), InFlight()
    public = standalone_root(handlers, _send(metrics, _PUBLIC), in_flight[0], account)
    internal = internal_root(
        _send(metrics, _INTERNAL),
        handlers.health,
        asked,
        measuring.handler(store, keys, delegation is not None, reactor),
        in_flight[1],
    )
    limits = site_limits(config.limits)
    evicted = metrics.limits_hit.of("connections").inc
    sites = (
        LoginSite(public, reactor, limits, clients.network_of, clients.network, evicted),
        LoginSite(internal, reactor, limits, evicted=evicted),
    )
    for name, site, handled in zip((_PUBLIC, _INTERNAL), sites, in_flight, strict=True):
        metrics.watch(metrics.connections.of(name), partial(_connections, site))
        metrics.watch(metrics.in_flight.of(name), partial(_handled, handled))
    return sites


def _send(metrics: Metrics, site: str) -> Send:
    """Return what sends the responses of a site, and has them counted."""
    responses = _Responses(metrics.responses, site)
    return counting(HTTPRequest.respond, lambda status: responses[status].inc())


class _Responses(dict[int, Series]):
    """The series of a site's responses, by their status."""

    def __init__(self, metric: Metric, site: str) -> None:
        super().__init__()
        self._metric, self._site = metric, site

    def __missing__(self, status: int) -> Series:
        found = self[status] = self._metric.of(self._site, str(status))
        return found


def _connections(site: LoginSite) -> int:
    return len(site.channels)


def _handled(in_flight: InFlight) -> int:
    return in_flight.count


def _internal_handlers(
    config: Config, delegation: Delegation, service: LoginService, reactor: Any
) -> InternalHandlers:
    homeserver = delegation.homeserver
    base = config.public_baseurl
    return InternalHandlers(
        service,
        homeserver.policy,
        config.server_name,
        homeserver.has_secret,
        issuer=f"{base}/",
        account_management_uri=f"{base}{ACCOUNT_PAGE}",
        clock=time.time,
        reactor=reactor,
    )


def site_limits(limits: Limits) -> SiteLimits:
    """Return the limits of the site, with no more connections than the process may have open."""
    return SiteLimits(
        connections=rlimits.room_for(limits.connections),
        connections_per_address=limits.connections_per_address,
        request_timeout=limits.request_timeout / 1000,
        idle_timeout=limits.idle_timeout / 1000,
    )
