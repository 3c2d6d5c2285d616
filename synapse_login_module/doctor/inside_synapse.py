"""The diagnosis of a Synapse with the module."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twisted.python.reflect import namedAny

from synapse_login_module.common.daemon_thread import in_daemon_thread
from synapse_login_module.compose import hashing_pool
from synapse_login_module.config.delegated import is_delegated
from synapse_login_module.config.homeserver_yaml import own_entries
from synapse_login_module.config.settings import ModuleConfig, parse_module
from synapse_login_module.doctor import files, system
from synapse_login_module.doctor.configuration import (
    AREA,
    LoadedProvider,
    load_each_provider,
    of_mistakes,
)
from synapse_login_module.doctor.fetching import Fetcher
from synapse_login_module.doctor.hashing import check_hashing
from synapse_login_module.doctor.providers import check_provider
from synapse_login_module.doctor.running import Check, run_checks
from synapse_login_module.doctor.synapse_listeners import examine_listeners
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import good
from synapse_login_module.plugin import read_only_environment
from synapse_login_module.standalone.check import check_homeserver

DATABASE, SYNAPSE, LISTENERS = "database", "synapse", "listeners"


@dataclass(frozen=True)
class _Module:
    """The module's part of the configuration, as far as it has no mistake.

    :param is_delegated: whether the module is loaded for a Synapse that delegates.
    """

    config: ModuleConfig | None
    providers: Sequence[LoadedProvider]
    is_delegated: bool


async def diagnose(paths: Sequence[str], reactor: Any, timeout: float) -> list[Finding]:
    """Examine all that the module in Synapse needs.

    :param paths: Synapse's configuration files, or folders of them.
    :param timeout: the seconds that each check may take.
    """
    synapse = namedAny("synapse_login_module.synapse.diagnosis")
    what = ", ".join(paths)
    try:
        given = synapse.read_given(paths)
    except ConfigError as error:
        return list(of_mistakes(error, what))
    findings = _of_configuration(given, what)
    findings.append(replace(synapse.examine_release(), area=SYNAPSE))
    module = _module(given)
    fetcher = Fetcher(reactor)

    def in_thread() -> Any:
        return in_daemon_thread(
            reactor, lambda: synapse.examine_database(given, module.is_delegated)
        )

    async def listen() -> list[Finding]:
        return await examine_listeners(given, module.is_delegated, fetcher, reactor)

    checks = [
        Check(DATABASE, "the database", in_thread),
        Check(LISTENERS, "the listeners", listen),
    ]
    hashing = None
    if module.config is not None:
        hashing = hashing_pool(module.config, reactor)
        hashing.startService()
        environment = read_only_environment(str(given.get("server_name")), hashing, reactor)
        for each in module.providers:
            if not synapse.is_local_passwords(each.loaded[0]):
                checks.append(check_provider(each, environment))
    try:
        findings += await run_checks(checks, reactor, timeout)
    finally:
        await fetcher.close()
        if hashing is not None:
            hashing.stopService()
    findings += system.of_synchronisation()
    if module.config is not None:
        alone = check_hashing(module.config.hashing, reactor)
        findings += await run_checks([alone], reactor, timeout)
    return findings


def _of_configuration(given: Mapping[str, Any], what: str) -> list[Finding]:
    try:
        checked = check_homeserver(given)
    except ConfigError as error:
        return list(of_mistakes(error, what))
    findings = [good(what, "no mistake in the module's part of it", AREA)]
    findings += files.of_warnings(checked.modes, what)
    for each in checked.settings:
        area = LISTENERS if each.what.startswith("listeners") else AREA
        findings.append(replace(each, advice=each.advice or f"correct it in {what}", area=area))
    return findings


def _module(given: Mapping[str, Any]) -> _Module:
    for _, entry in own_entries(given):
        config = entry.get("config") or {}
        if is_delegated(config):
            return _Module(None, (), True)
        with contextlib.suppress(ConfigError):  # reported already
            parsed = parse_module(config)
            return _Module(parsed, load_each_provider(parsed, Path.cwd()), False)
    return _Module(None, (), False)
