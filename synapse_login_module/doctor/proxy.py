"""The reverse proxy: whether clients reach this server at ``public_baseurl``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from synapse_login_module.doctor.fetching import (
    CONNECT_SECONDS,
    LOGIN,
    VERSIONS,
    Fetched,
    Fetcher,
    json_object,
)
from synapse_login_module.doctor.server import Running
from synapse_login_module.model import Finding, Level
from synapse_login_module.model.findings import failed, good, has_failure, warning
from synapse_login_module.outbound.examining import advice_on_connecting, of_tls
from synapse_login_module.outbound.http import TLSPolicy

AREA = "proxy"
_TRUST = "the system's store of authorities (SSL_CERT_FILE for this command)"


async def examine_proxy(
    url: str, running: Running, fetcher: Fetcher, reactor: Any, now: float
) -> list[Finding]:
    """Fetch through the proxy what clients fetch first.

    :param url: ``public_baseurl``.
    :param running: what the server itself serves, if it runs.
    """
    tls = await of_tls(url, TLSPolicy(), reactor, CONNECT_SECONDS, now, _TRUST)
    versions = await fetcher.fetch(f"{url}{VERSIONS}")
    if versions.problem:
        if has_failure(tls):
            return tls
        advice = advice_on_connecting(versions.problem, "public_baseurl")
        return [*tls, failed(url, versions.problem, advice)]
    served = await fetcher.fetch(f"{url}{LOGIN}")
    login, list_of_versions = _of_login(served, running.login), _of_versions(versions, running)
    if login.level is list_of_versions.level is Level.FAILED:  # of one cause
        return [*tls, replace(login, what=f"{LOGIN} and {VERSIONS}")]
    return [*tls, login, list_of_versions]


def _of_login(served: Fetched, login: bytes | None) -> Finding:
    if served.problem:
        return failed(LOGIN, f"no answer: {served.problem}", "see the log of the proxy")
    if login is not None and served.body == login and served.status == 200:
        return good(LOGIN, f"this server answers, in {served.took}")
    if login is None:
        found = (
            f"status {served.status}; whether this server answered is not known while it is down"
        )
        return warning(LOGIN, found, "start the server, and run this command again")
    return failed(LOGIN, _not_this(served), "send this path to listen, as in contrib/")


def _of_versions(served: Fetched, running: Running) -> Finding:
    if running.versions not in (None, served.body) and _has_versions(served.body):
        advice = "send this path to listen, as in contrib/"
        return failed(VERSIONS, "another server answers, with another list of versions", advice)
    if served.status == 200 and _has_versions(served.body):
        return good(VERSIONS, f"answered in {served.took}")
    found = f"status {served.status}, and no list of versions"
    if running.login is None:
        return warning(VERSIONS, found, "start the server, and run this command again")
    advice = "send this path to this server, or to the homeserver behind it, as in contrib/"
    return failed(VERSIONS, found, advice)


def _not_this(served: Fetched) -> str:
    if 300 <= served.status <= 399:
        return f"the proxy redirects (status {served.status}), and clients do not follow"
    if served.status in (502, 503, 504):
        return f"the proxy does not reach this server (status {served.status})"
    if served.status == 200:
        return "another server answers: its list of login types is not this server's"
    return f"another server answers, or the proxy itself (status {served.status})"


def _has_versions(body: bytes) -> bool:
    return isinstance(json_object(body).get("versions"), list)
