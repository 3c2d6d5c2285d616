"""A password provider that cannot be built while a file of its configuration is there."""

from __future__ import annotations

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
    """What a check of the configuration does not find, a worker does."""

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        """Take ``unless``."""
        path: Path = folder / config["unless"]
        return path

    def __init__(self, config: Path, environment: Environment) -> None:
        super().__init__({})
        if config.exists():
            raise ConfigError("unless", f"{config.name} is there")
