"""``synapse-login-module``: the program with all commands."""

from __future__ import annotations

import click

from synapse_login_module import __version__
from synapse_login_module.commands import (
    config,
    doctor,
    import_synapse,
    keys,
    links,
    passwords,
    sessions,
    tokens,
)
from synapse_login_module.commands.program import PROGRAM, Program


@click.group(
    cls=Program,
    context_settings={"max_content_width": 100},
    epilog="Every command has its own --help.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def program() -> None:
    """Administer the login service of a Matrix homeserver."""


for _command in (
    passwords.command,
    config.command,
    doctor.command,
    tokens.create,
    keys.show,
    keys.rotate,
    keys.activate,
    keys.retire,
    sessions.sessions,
    links.links,
    import_synapse.command,
):
    program.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit."""
    program.main(arguments, prog_name=PROGRAM)
