"""The token store, which examines its database itself."""

from __future__ import annotations

from collections.abc import Sequence

from synapse_login_module.compose import LoadedPlugin
from synapse_login_module.doctor.running import Check
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import warning
from synapse_login_module.plugin import Environment, IDiagnosableClass

AREA = "store"


def check_store(loaded: LoadedPlugin, environment: Environment) -> Check:
    """Make the check of a store."""
    store, config = loaded

    async def work() -> Sequence[Finding]:
        if not IDiagnosableClass.providedBy(store):
            found = f"{store.__module__}.{store.__name__} cannot be examined without being started"
            return [warning("store", found, "ask its maker for IDiagnosableClass", AREA)]
        found_there: Sequence[Finding] = await store.diagnose(config, environment)
        return found_there

    return Check(AREA, "the store", work)
