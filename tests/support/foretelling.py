"""Runs ``check-login`` as an operator does, for tests that compare it with a server's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.threads import deferToThread

from synapse_login_module.commands.check_login import login_body
from tests.support.delegated_server import CLIENT, Reply, asked
from tests.support.process import subprocess_environment
from tests.support.waiting import TIMEOUT


class Foretold(NamedTuple):
    """What the command foretells.

    :param status: the status of the response.
    :param errcode: its error code; empty when the login would succeed.
    :param user_id: the user; empty when the login would fail.
    :param texts: the texts of all steps, and the reason of the result.
    :param steps: the steps.
    """

    status: int
    errcode: str
    user_id: str
    texts: str
    steps: Sequence[Mapping[str, Any]]

    @property
    def answer(self) -> tuple[int, str, str]:
        """What a client would see of it."""
        return self.status, self.errcode, self.user_id


async def run_check(
    where: Sequence[str], user: str, password: str, *options: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command; it never prints the password.

    :param where: the options that name the configuration.
    :param folder: the folder to run it in.
    """
    command = [sys.executable, "-m", "synapse_login_module.cli", "check-login", *where]
    done: subprocess.CompletedProcess[str] = await deferToThread(
        subprocess.run,
        [*command, *options, "--", user],
        cwd=folder,
        env=subprocess_environment(),
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    if password in done.stdout + done.stderr:
        raise AssertionError(f"the password is printed: {done.stdout} {done.stderr}")
    return done


async def foretell(
    where: Sequence[str], user: str, password: str, *options: str, folder: Path | None = None
) -> Foretold:
    """Run the command with ``--json``; see :func:`run_check`."""
    done = await run_check(where, user, password, "--json", *options, folder=folder)
    if done.stderr:
        raise AssertionError(done.stderr)
    *steps, result = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != (0 if result["succeeds"] else 1) or result["step"] != "result":
        raise AssertionError(f"{done.returncode}: {done.stdout}")
    texts = "\n".join([*(step["text"] for step in steps), result["reason"]])
    return Foretold(result["status"], result["errcode"], result["user_id"], texts, steps)


async def log_in(port: int, user: str, password: str) -> Reply:
    """Log in as a client would that sends what the command takes for its own."""
    return await asked(port, "POST", f"{CLIENT}/login", login_body(user, False, password))


def answer_of(reply: Reply) -> tuple[int, str, str]:
    """Return what :attr:`Foretold.answer` foretells."""
    return reply.status, reply.content.get("errcode", ""), reply.content.get("user_id", "")
