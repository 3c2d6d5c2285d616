"""The password providers: each examines itself, or is asked about an account that does not
exist.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from synapse_login_module.compose import build_plugin
from synapse_login_module.config.validation import config_path
from synapse_login_module.doctor.configuration import LoadedProvider
from synapse_login_module.doctor.running import Check, started
from synapse_login_module.errors import ConfigError, ProviderUnavailable
from synapse_login_module.interfaces import IDiagnosable, IPasswordProvider
from synapse_login_module.model import AccountStatus, Finding
from synapse_login_module.model.findings import (
    NO_ACCOUNT,
    failed,
    good,
    in_milliseconds,
    on_one_line,
    warning,
)
from synapse_login_module.plugin import Environment

_SLOW = 1.0
_UNVERIFIABLE = warning(
    "removed accounts",
    "it cannot say, without a password, whether an account is still there",
    "end the sessions of people who leave by hand: sessions revoke",
)


def check_provider(each: LoadedProvider, environment: Environment) -> Check:
    """Make the check of a provider."""

    async def work() -> Sequence[Finding]:
        path = f"password_providers.{each.index}.config"
        try:
            provider = config_path(path, build_plugin, each.loaded, environment)
        except ConfigError as error:
            return [failed(error.path, error.problem, "correct it in the configuration")]
        async with started(provider, environment.reactor):
            return await _examine(provider, environment)

    return Check(f"provider {each.name}", each.name, work)


async def _examine(provider: IPasswordProvider, environment: Environment) -> list[Finding]:
    findings: list[Finding] = []
    is_verifiable = getattr(provider, "verifiable", True)
    if IDiagnosable.providedBy(provider):
        findings = await IDiagnosable(provider).diagnose()
    else:
        found = await _ask(provider, environment)
        if found is None:
            is_verifiable = False
        else:
            findings = [found]
    return findings if is_verifiable else [*findings, _UNVERIFIABLE]


async def _ask(provider: Any, environment: Environment) -> Finding | None:
    """Ask a provider that cannot examine itself for the status of an account that does not exist.

    :return: ``None`` when it cannot tell, so that it is not known whether it works.
    """
    what = "account_status"
    began = time.perf_counter()
    try:
        status = await provider.account_status(f"@{NO_ACCOUNT}:{environment.server_name}")
    except ProviderUnavailable as error:
        advice = "see what the provider connects to, and its part of the configuration"
        return failed(what, f"unavailable: {on_one_line(error)}", advice)
    took = time.perf_counter() - began
    answered = f"answered about an unknown account in {in_milliseconds(took)}"
    if status is AccountStatus.UNVERIFIABLE:
        return None
    if status is not None:
        found = f"it says that the account {NO_ACCOUNT} exists"
        return warning(what, found, "see its code: accounts that are removed keep their sessions")
    if took > _SLOW:
        advice = "see what it waits for: refreshes wait for tokens.account_check_timeout at most"
        return warning(what, answered, advice)
    return good(what, answered)
