"""Tests of the configurations in ``contrib/`` for a Synapse that delegates authentication."""

from __future__ import annotations

from tests.clients import delegated_proxying
from tests.clients.proxy import DelegatedCaddy, DelegatedHAProxy, DelegatedNginx


class NginxTests(delegated_proxying.DelegatedProxyTests):
    """nginx with ``homeserver.conf`` and ``delegated.conf``."""

    proxy_class = DelegatedNginx


class HAProxyTests(delegated_proxying.DelegatedProxyTests):
    """HAProxy with ``delegated.cfg``."""

    proxy_class = DelegatedHAProxy


class CaddyTests(delegated_proxying.DelegatedProxyTests):
    """Caddy with ``delegated.Caddyfile``."""

    proxy_class = DelegatedCaddy
    refuses_large_bodies = False
    outage_in_json = False
    logs_requests = False
