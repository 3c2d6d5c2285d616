"""A password provider that fails at its start."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import IService, Service
from zope.interface import implementer, provider

from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.testing import FakeProvider


@implementer(IPasswordProvider, IService)
@provider(IPluginClass)
class BreakingProvider(FakeProvider, Service):  # type: ignore[misc] # both have a name
    """A provider that fails in the way of ``how``: ``raise``, ``exit``, ``kill`` or ``build``."""

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> str:
        """Return ``how``."""
        return str(config["how"])

    def __init__(self, config: str, environment: Environment) -> None:
        super().__init__({})
        self._how = config
        if config == "build":
            raise RuntimeError("a broken plugin")

    def startService(self) -> None:
        """Fail."""
        if self._how == "raise":
            raise RuntimeError("a broken plugin")
        if self._how == "exit":
            sys.exit("a broken plugin")
        if self._how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
