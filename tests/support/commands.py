"""Runs commands of ``synapse-login-module`` that need no reactor in this process."""

from __future__ import annotations

import inspect
import subprocess
from typing import Any

from click.testing import CliRunner

from synapse_login_module.commands.main import program
from synapse_login_module.commands.program import PROGRAM

# click 8.2 removed mix_stderr; older releases need it to keep the two outputs apart.
_APART = "mix_stderr" in inspect.signature(CliRunner).parameters


def invoke(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    :param given: its standard input, which is no terminal.
    :raise Exception: an exception that a process would print a traceback of.
    """
    options: dict[str, Any] = {"mix_stderr": False} if _APART else {}
    done = CliRunner(**options).invoke(program, list(arguments), given, prog_name=PROGRAM)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
