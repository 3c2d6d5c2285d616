"""The homeserver that delegates authentication to this server."""

from __future__ import annotations

from collections.abc import Sequence

from synapse_login_module.compose import LoadedPlugin, build_plugin
from synapse_login_module.config.validation import config_path
from synapse_login_module.doctor.running import Check, started
from synapse_login_module.errors import ConfigError, HomeserverUnavailable
from synapse_login_module.interfaces import IDiagnosable, IHomeserver
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed, good, on_one_line
from synapse_login_module.plugin import Environment

AREA = "homeserver"


def check_homeserver(loaded: LoadedPlugin, environment: Environment) -> Check:
    """Make the check of a homeserver."""

    async def work() -> Sequence[Finding]:
        try:
            built = config_path("homeserver.config", build_plugin, loaded, environment)
        except ConfigError as error:
            return [failed(error.path, error.problem, "correct it in the configuration")]
        async with started(built, environment.reactor):
            return await _examine(built)

    return Check(AREA, "the homeserver", work)


async def _examine(built: IHomeserver) -> list[Finding]:
    if IDiagnosable.providedBy(built):
        findings: list[Finding] = await IDiagnosable(built).diagnose()
        return findings
    try:
        problem = await built.check()
    except HomeserverUnavailable as error:
        problem = on_one_line(error)
    if problem is not None:
        return [failed("check", problem, "see the homeserver's log, and homeserver.config")]
    return [good("check", "it is there, and delegates to this server")]
