"""The diagnosis of the standalone server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from synapse_login_module.compose import hashing_pool
from synapse_login_module.doctor import files, system
from synapse_login_module.doctor.configuration import Parts, load_parts
from synapse_login_module.doctor.fetching import Fetcher
from synapse_login_module.doctor.hashing import check_hashing
from synapse_login_module.doctor.homeserver import check_homeserver
from synapse_login_module.doctor.keys import of_key_file
from synapse_login_module.doctor.providers import check_provider
from synapse_login_module.doctor.proxy import AREA as PROXY
from synapse_login_module.doctor.proxy import examine_proxy
from synapse_login_module.doctor.running import Check, run_checks
from synapse_login_module.doctor.server import AREA as SERVER
from synapse_login_module.doctor.server import examine_server
from synapse_login_module.doctor.store import check_store
from synapse_login_module.model import Finding
from synapse_login_module.passwords import HashingPool
from synapse_login_module.plugin import Environment, read_only_environment


async def diagnose(
    document: bytes, given: Mapping[str, Any], path: Path, reactor: Any, timeout: float
) -> list[Finding]:
    """Examine all that the standalone server needs.

    :param document: the bytes of the configuration file.
    :param given: the same, parsed.
    :param path: the file.
    :param timeout: the seconds that each check may take.
    """
    findings, parts = load_parts(document, given, path, reactor)
    if parts is None:
        return findings
    findings += files.of_modes(given, path)
    findings += files.of_user([parts.key_file, path])
    findings += of_key_file(parts)
    hashing = hashing_pool(parts.config, reactor)
    hashing.startService()
    fetcher = Fetcher(reactor)
    try:
        checks = _checks(parts, _environment(parts, hashing, reactor), fetcher)
        findings += await run_checks(checks, reactor, timeout)
    finally:
        await fetcher.close()
        hashing.stopService()
    findings += system.of_synchronisation()
    findings.append(system.of_open_files(parts.config.limits.connections))
    # Measured alone: the other checks would slow it down, and it would slow down them.
    findings += await run_checks([check_hashing(parts.config.hashing, reactor)], reactor, timeout)
    return findings


def _environment(parts: Parts, hashing: HashingPool, reactor: Any) -> Environment:
    config = parts.config
    return read_only_environment(
        config.server_name,
        hashing,
        reactor,
        policy=config.tokens.policy(),
        keys=parts.keys,
        delegated=config.homeserver is not None,
        public_baseurl=config.public_baseurl,
    )


def _checks(parts: Parts, environment: Environment, fetcher: Fetcher) -> list[Check]:
    config = parts.config
    checks = []
    if parts.store is not None:
        checks.append(check_store(parts.store, environment))
    checks += [check_provider(each, environment) for each in parts.providers]
    if parts.homeserver is not None:
        checks.append(check_homeserver(parts.homeserver, environment))

    async def serve() -> list[Finding]:
        running = await examine_server(config, fetcher)
        found = list(running.findings)
        if config.public_baseurl is not None:
            through = await examine_proxy(
                config.public_baseurl,
                running,
                fetcher,
                environment.reactor,
                environment.clock(),
            )
            found += [replace(each, area=PROXY) for each in through]
        return found

    checks.append(Check(SERVER, "the server and the proxy", serve))
    return checks
