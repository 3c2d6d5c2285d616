"""The listeners of Synapse, and the way from ``public_baseurl`` to the module's one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synapse_login_module.doctor.fetching import Fetched, Fetcher
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed, good, warning

PROXY = "proxy"
_PATH = "/_matrix/client/v3/tokenrefresh"
"""Served by the module. Synapse's own listener has another text for it."""


async def examine_listeners(
    given: Mapping[str, Any], delegated: bool, fetcher: Fetcher, reactor: Any
) -> list[Finding]:
    """See whether Synapse runs, and serves the module's paths where clients are sent.

    :param given: Synapse's configuration.
    """
    if delegated:
        return []
    urls = list(_module_urls(given))
    if not urls:
        return []
    own = await fetcher.fetch(f"{urls[0]}{_PATH}")
    if own.problem:
        advice = "start Synapse, and run this command again: it then examines the proxy too"
        return [warning(urls[0], f"Synapse does not answer: {own.problem}", advice)]
    if own.status != 405:
        found = f"the module's paths are not served there (status {own.status} for {_PATH})"
        return [failed(urls[0], found, "restart Synapse, and see in its log whether it loads it")]
    findings = [good(urls[0], f"the module answers, in {own.took}")]
    public = given.get("public_baseurl")
    if isinstance(public, str):
        url = public.rstrip("/")
        findings.append(_of_proxy(url, await fetcher.fetch(f"{url}{_PATH}"), own))
    return findings


def _of_proxy(url: str, served: Fetched, own: Fetched) -> Finding:
    if served.problem:
        advice = "start the reverse proxy, or correct public_baseurl"
        return failed(url, served.problem, advice, PROXY)
    if (served.status, served.body) != (own.status, own.body):
        found = f"{_PATH} does not reach the module's listener (status {served.status})"
        return failed(url, found, "send the module's paths there, as in contrib/", PROXY)
    return good(url, f"the module answers through it, in {served.took}", PROXY)


def _module_urls(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the URLs of the listeners without Synapse's own client paths."""
    listeners = given.get("listeners")
    for each in listeners if isinstance(listeners, list) else ():
        if not isinstance(each, Mapping) or each.get("type") != "http" or each.get("tls"):
            continue
        resources = each.get("resources") or ()
        names = [
            name
            for resource in resources
            if isinstance(resource, Mapping)
            for name in _listed(resource.get("names"))
        ]
        if "client" in names or not isinstance(each.get("port"), int):
            continue
        addresses = each.get("bind_addresses") or [each.get("bind_address") or "127.0.0.1"]
        address = str(next(iter(addresses)))
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104  read here
        yield f"http://[{host}]:{each['port']}" if ":" in host else f"http://{host}:{each['port']}"


def _listed(names: object) -> list[str]:
    return [names] if isinstance(names, str) else list(names) if isinstance(names, list) else []
