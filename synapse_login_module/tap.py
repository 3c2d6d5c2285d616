"""``twistd synapse-login``: parses the options and composes the server."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from twisted.application.service import IService
from twisted.python import usage

from synapse_login_module import compose
from synapse_login_module.errors import ConfigError


class Options(usage.Options):
    """The options of the twistd command."""

    synopsis = "[options]"
    longdesc = "The login service for Matrix homeservers: POST /login and POST /tokenrefresh."
    optParameters: ClassVar = [("config", "c", None, "The configuration file (YAML).")]

    def postOptions(self) -> None:
        """Insist on a configuration."""
        if self["config"] is None:
            raise SystemExit("synapse-login: --config FILE is needed")


def makeService(options: Options) -> IService:
    """Build the server; a mistake in the configuration ends the program with one line."""
    from twisted.internet import reactor

    path = Path(options["config"])
    try:
        return compose.build(compose.load(path, reactor), reactor)
    except ConfigError as error:
        raise SystemExit(f"synapse-login: {path}: {error}") from None
