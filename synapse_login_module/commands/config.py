"""``check-config``."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.commands.options import FILE
from synapse_login_module.commands.program import PROGRAM, Command, Failure, argument
from synapse_login_module.common.console import escaped
from synapse_login_module.errors import ConfigError
from synapse_login_module.standalone.check import check_file


@click.command(
    "check-config",
    cls=Command,
    examples=(
        "check-config config.yaml",
        "check-config /etc/matrix-synapse/homeserver.yaml",
    ),
    epilog=(
        "The exit status is 0 if the server would start with the file, else 1 with one line for"
        " each mistake. The command opens no connections; it names the services that it did not"
        " try. In Synapse's homeserver.yaml it checks the module's block. Run it in the folder"
        " that Synapse runs in, for relative paths."
    ),
)
@argument("file", "the standalone server's configuration, or Synapse's", type=FILE)
def command(file: Path) -> None:
    """Check a configuration file."""
    from twisted.internet import reactor

    try:
        checked = check_file(file, reactor)
    except ConfigError as error:
        mistakes = [f"{file}: {each}" for each in error.all()]
        count = [f"{file}: {len(mistakes)} mistakes"] if len(mistakes) > 1 else []
        raise Failure(*mistakes, *count) from None
    for warning in (*checked.modes, *checked.settings):
        click.echo(escaped(f"{PROGRAM}: {file}: warning: {warning.line}"), err=True)
    untried = f"; not tried: {', '.join(checked.not_tried)}" if checked.not_tried else ""
    click.echo(f"{file}: good{untried}")
