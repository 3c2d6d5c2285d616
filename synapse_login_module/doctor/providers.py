"""The password providers: each examines itself, or is asked about an account of nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.defer import maybeDeferred

from synapse_login_module.compose import build_plugin
from synapse_login_module.config.validation import config_path
from synapse_login_module.doctor.configuration import LoadedProvider
from synapse_login_module.doctor.running import Check, in_time
from synapse_login_module.errors import ConfigError, ProviderUnavailable
from synapse_login_module.interfaces import IDiagnosable, IPasswordProvider
from synapse_login_module.model import AccountStatus, Finding
from synapse_login_module.model.findings import failed, good, in_milliseconds, on_one_line, warning
from synapse_login_module.plugin import Environment

_NOBODY = "synapse-login-module-doctor"
"""A local part that no account has."""

_SLOW = 1.0
_STOP_SECONDS = 2.0


def check_provider(each: LoadedProvider, environment: Environment) -> Check:
    """Make the check of a provider."""

    async def work() -> Sequence[Finding]:
        path = f"password_providers.{each.index}.config"
        try:
            provider = config_path(path, build_plugin, each.loaded, environment)
        except ConfigError as error:
            return [failed(error.path, error.problem, "correct it in the configuration")]
        try:
            if IService.providedBy(provider):
                IService(provider).startService()
            return await _examine(provider, environment)
        finally:
            if IService.providedBy(provider):
                # One whose connections hang must not hold the others up.
                with suppress(Late):
                    stopped = maybeDeferred(IService(provider).stopService)
                    await in_time(stopped, environment.reactor, _STOP_SECONDS)

    return Check(f"provider {each.name}", each.name, work)


async def _examine(provider: IPasswordProvider, environment: Environment) -> list[Finding]:
    findings: list[Finding]
    if IDiagnosable.providedBy(provider):
        findings = await IDiagnosable(provider).diagnose()
    else:
        findings = [await _ask(provider, environment)]
    return [*findings, *_of_verifiability(provider)]


async def _ask(provider: Any, environment: Environment) -> Finding:
    """Ask a provider that cannot examine itself for the status of an account of nobody."""
    what = "account_status"
    began = time.perf_counter()
    try:
        status = await provider.account_status(f"@{_NOBODY}:{environment.server_name}")
    except ProviderUnavailable as error:
        advice = "see what the provider connects to, and its part of the configuration"
        return failed(what, f"unavailable: {on_one_line(error)}", advice)
    took = time.perf_counter() - began
    answered = f"answered about an unknown account in {in_milliseconds(took)}"
    if status not in (None, AccountStatus.UNVERIFIABLE):
        found = f"it says that the account {_NOBODY} exists"
        return warning(what, found, "see its code: accounts that are removed keep their sessions")
    if took > _SLOW:
        advice = "see what it waits for: refreshes wait for tokens.account_check_timeout at most"
        return warning(what, answered, advice)
    return good(what, answered)


def _of_verifiability(provider: object) -> Iterator[Finding]:
    if not getattr(provider, "verifiable", True):
        yield warning(
            "removed accounts",
            "it cannot say, without a password, whether an account is still there",
            "end the sessions of people who leave by hand: sessions revoke",
        )
