"""Whether the server itself runs, and what answers at its endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from synapse_login_module.config.listen import local_url
from synapse_login_module.config.settings import Config
from synapse_login_module.doctor.fetching import LOGIN, VERSIONS, Fetcher, json_object
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed, good, warning

AREA = "server"
_CONFIGURATION = "/.well-known/openid-configuration"


class Running(NamedTuple):
    """The server that runs.

    :param findings: what was found.
    :param login: what it serves as ``GET /login``; ``None`` when it does not run, or it is not
        known whether it runs.
    :param versions: what it serves as ``GET /versions``; ``None`` also with a homeserver, which
        serves that path to clients itself.
    """

    findings: Sequence[Finding]
    login: bytes | None = None
    versions: bytes | None = None


async def examine_server(config: Config, fetcher: Fetcher) -> Running:
    """See whether the server runs: ask at the first endpoint that can be asked from here."""
    url = next((each for each in map(local_url, config.listen) if each is not None), None)
    if url is None:
        found = "whether the server runs cannot be asked: listen names no TCP port without TLS"
        return Running([good("listen", found, AREA)])
    health = await fetcher.fetch(f"{url}/health")
    if health.problem:
        if "refused" not in health.problem.lower():
            advice = "see whether the server hangs, and its log"
            found = f"it does not answer: {health.problem}"
            return Running([failed(url, found, advice, AREA)])
        found = "the server does not run"
        advice = (
            "start it, and run this command again: it then examines the endpoints and the proxy"
        )
        return Running([warning(url, found, advice, AREA)])
    login = await fetcher.fetch(f"{url}{LOGIN}")
    if not _is_login(login.body):
        advice = "end it, or change listen"
        found = f"another program answers there ({login.status} for {LOGIN})"
        return Running([failed(url, found, advice, AREA)])
    findings = [await _of_internal(config, fetcher)] if config.internal_listen else []
    versions = None
    if config.homeserver is None:
        versions = (await fetcher.fetch(f"{url}{VERSIONS}")).body
    if health.status != 200:
        found = "the server runs, and its store is unavailable to it"
        first = failed(url, found, "see its log, and the lines on the store", AREA)
    else:
        first = good(url, f"the server runs, answered in {health.took}", AREA)
    return Running([first, *findings], login.body, versions)


async def _of_internal(config: Config, fetcher: Fetcher) -> Finding:
    """See that the internal endpoint answers as the configuration has it."""
    url = next((each for each in map(local_url, config.internal_listen) if each is not None), None)
    if url is None:
        return good("internal_listen", "it has no TCP endpoint, so it was not asked", AREA)
    if config.homeserver is None:
        answer = await fetcher.fetch(f"{url}/health")
    else:
        answer = await fetcher.fetch(f"{url}{_CONFIGURATION}")
    if answer.problem:
        found, advice = f"it does not answer: {answer.problem}", "restart the server; see its log"
        return failed(f"internal {url}", found, advice, AREA)
    if (
        config.homeserver is not None
        and json_object(answer.body).get("issuer") != f"{config.public_baseurl}/"
    ):
        found = (
            f"it does not name public_baseurl ({answer.status}): another program, or an old start"
        )
        return failed(f"internal {url}", found, "restart the server with this file", AREA)
    return good(f"internal {url}", f"answered in {answer.took}", AREA)


def _is_login(body: bytes) -> bool:
    return isinstance(json_object(body).get("flows"), list)
