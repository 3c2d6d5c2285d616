"""Password providers that are no good neighbours."""

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
    """Cannot be built while a file of its configuration is there; what a check of the
    configuration does not find, a worker does.
    """

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        """Take ``unless``."""
        path: Path = folder / config["unless"]
        return path

    def __init__(self, config: Path, environment: Environment) -> None:
        super().__init__({})
        if config.exists():
            raise ConfigError("unless", f"{config.name} is there")


@implementer(IPasswordProvider)
@provider(IPluginClass)
class HelpedProvider(FakeProvider):
    """Starts a program that outlives it, with whatever it may inherit."""

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> None:
        """Take nothing."""

    def __init__(self, config: None, environment: Environment) -> None:
        super().__init__({})
        subprocess.Popen(["sleep", "600"], close_fds=False)


@implementer(IPasswordProvider)
@provider(IPluginClass)
class HastyProvider(FakeProvider):
    """Sends its process SIGHUP as soon as anything can happen at all."""

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> None:
        """Take nothing."""

    def __init__(self, config: None, environment: Environment) -> None:
        super().__init__({})
        environment.reactor.callWhenRunning(os.kill, os.getpid(), signal.SIGHUP)
