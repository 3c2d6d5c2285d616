"""``check-config``."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.commands.backends import load
from synapse_login_module.commands.options import FILE
from synapse_login_module.commands.program import Command, argument


@click.command(
    "check-config",
    cls=Command,
    epilog="Exit status 0 when the server would start with it, else 1 and one line that says why.",
)
@argument("file", "the server's configuration", type=FILE)
def command(file: Path) -> None:
    """Check a configuration file."""
    load(file)
    click.echo(f"{file}: good")
