"""Commands of ``synapse-login-module`` in this process: those that run no reactor."""

from __future__ import annotations

import inspect
import subprocess
from typing import Any

from click.testing import CliRunner

from synapse_login_module.commands.main import program
from synapse_login_module.commands.program import PROGRAM

# Before click 8.2 the two outputs have to be kept apart; since then that cannot be asked for.
_APART = "mix_stderr" in inspect.signature(CliRunner).parameters


def invoke(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    :param given: what it reads from its standard input, which is no terminal.
    :raise Exception: what a process would end with a traceback of.
    """
    options: dict[str, Any] = {"mix_stderr": False} if _APART else {}
    done = CliRunner(**options).invoke(program, list(arguments), given, prog_name=PROGRAM)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
