"""Runs commands at a terminal, with typed input."""

from __future__ import annotations

import os
import pty
import sys


def at_terminal(typed: bytes, *arguments: str) -> tuple[int, str]:
    """Run a command of ``synapse-login-module`` at a pseudo-terminal.

    :param typed: the input; one line is typed at each prompt. Control characters act as at a
        terminal.
    :return: the exit status, and the text on the terminal.
    """
    pid, terminal = pty.fork()
    if pid == 0:  # the child runs only the next line of this process
        command = [sys.executable, "-m", "synapse_login_module.cli", *arguments]
        os.execv(sys.executable, command)
    waiting = [*typed.splitlines(keepends=True)]
    shown = b""
    while block := _read(terminal):
        shown += block
        if waiting and shown.endswith(b": "):
            shown += b"\n"
            os.write(terminal, waiting.pop(0))
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def _read(terminal: int) -> bytes:
    """Read the next output; empty when the other side is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
