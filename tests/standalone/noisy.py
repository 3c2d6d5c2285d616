"""A password provider that reports on every way there is, as third parties do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python import log as old_log
from zope.interface import implementer, provider

from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, Identifier
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.testing import FakeProvider

HOSTILE = 'two\nlines \u2028 \x85 \x1b[31m "quoted" \\ {"time":"2026"}'
LONG = 100_000
"""Characters of the longest report: more than a pipe takes at once."""


def _raise() -> None:
    raise ValueError(HOSTILE)


@implementer(IPasswordProvider)
@provider(IPluginClass)
class NoisyProvider(FakeProvider):
    """A provider that reports at each login, and knows nobody."""

    name = "noisy"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> None:
        """Ignore the configuration."""

    def __init__(self, config: None, environment: Environment) -> None:
        super().__init__({})

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Report in every way."""
        Logger("noisy").info("of twisted: {text}", text=HOSTILE)
        Logger("noisy").info("{unformattable.x}", unformattable=1)
        old_log.msg("of old twisted")
        logging.getLogger("noisy.library").warning("of logging: %s", HOSTILE)
        try:
            _raise()
        except ValueError:
            logging.getLogger("noisy.library").exception("with a traceback")
        warnings.warn("of warnings", stacklevel=1)
        print("of print", file=sys.stderr)
        fail(ValueError("of a Deferred"))
        thread = threading.Thread(target=_raise, name="noisy-thread")
        thread.start()
        thread.join()
        os.write(2, b"of descriptor 2 \xff\xfe\n" + b"x" * LONG + b"\n")
        os.write(1, b'{"time":"of descriptor 1"}\n')
        subprocess.run(["sh", "-c", "echo of a child; echo of its errors >&2"], check=True)
        Logger("noisy").info("long: {text}", text="y" * LONG)
        if password == "die":
            os.write(2, b"last words")
            os.write(1, b'{"time":"half')
            os.abort()
        return super().authenticate(identifier, password)
