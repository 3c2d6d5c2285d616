"""Password providers that disturb their worker."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zope.interface import implementer, provider

from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.testing import FakeProvider


@implementer(IPasswordProvider)
@provider(IPluginClass)
class BrittleProvider(FakeProvider):
    """A provider that cannot be built while a file exists, which only workers notice."""

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        """Return the path ``unless``."""
        path: Path = folder / config["unless"]
        return path

    def __init__(self, config: Path, environment: Environment) -> None:
        super().__init__({})
        if config.exists():
            raise ConfigError("unless", f"{config.name} is there")


@implementer(IPasswordProvider)
@provider(IPluginClass)
class HelpedProvider(FakeProvider):
    """A provider that starts a program, which outlives it and inherits what it can."""

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> None:
        """Ignore the configuration."""

    def __init__(self, config: None, environment: Environment) -> None:
        super().__init__({})
        subprocess.Popen(["sleep", "600"], close_fds=False)


@implementer(IPasswordProvider)
@provider(IPluginClass)
class HastyProvider(FakeProvider):
    """A provider that sends its process SIGHUP as early as possible."""

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> None:
        """Ignore the configuration."""

    def __init__(self, config: None, environment: Environment) -> None:
        super().__init__({})
        environment.reactor.callWhenRunning(os.kill, os.getpid(), signal.SIGHUP)
