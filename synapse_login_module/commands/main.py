"""``synapse-login-module``: the program with all commands."""

from __future__ import annotations

import click

from synapse_login_module import __version__
from synapse_login_module.commands import (
    check_login,
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


program.add_section(
    "Set up", config.command, doctor.command, check_login.command, passwords.command
)
program.add_section("Users and their sessions", sessions.sessions, links.links, tokens.create)
program.add_section("Keys of tokens", keys.show, keys.rotate, keys.activate, keys.retire)
program.add_section("Move from Synapse", import_synapse.command)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit."""
    program.main(arguments, prog_name=PROGRAM)
