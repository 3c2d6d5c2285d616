"""Tests of the configurations of nginx and HAProxy in ``contrib/``."""

from __future__ import annotations

from tests.clients import proxying
from tests.clients.proxy import HAProxy, Nginx


class NginxTests(proxying.SynapseProxyTests):
    """nginx with ``homeserver.conf`` and ``synapse-login.conf``."""

    proxy_class = Nginx


class HAProxyTests(proxying.SynapseProxyTests):
    """HAProxy with ``synapse-login.cfg``."""

    proxy_class = HAProxy


class NginxStandaloneTests(proxying.StandaloneProxyTests):
    """nginx with ``standalone.conf``."""

    proxy_class = Nginx


class HAProxyStandaloneTests(proxying.StandaloneProxyTests):
    """HAProxy with ``standalone.cfg``."""

    proxy_class = HAProxy
