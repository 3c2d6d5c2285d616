"""The options that several commands have, in one style."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click

_Callback = Callable[..., Any]

FILE = click.Path(path_type=Path)
"""A file, which shells complete. Whether it is there is for the command to say."""


class Where(NamedTuple):
    """Where a command works: one of the two is given.

    :param config: the standalone server's configuration.
    :param homeserver: Synapse's configuration files.
    """

    config: Path | None
    homeserver: tuple[str, ...]


def config_option(
    required: bool = True, help_text: str = "The standalone server's configuration."
) -> Callable[[_Callback], _Callback]:
    """Add ``--config``."""
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        type=FILE,
        required=required,
        help=help_text,
    )


def homeserver_option(required: bool = True) -> Callable[[_Callback], _Callback]:
    """Add ``--homeserver-config``, for what works on Synapse's database."""
    return click.option(
        "--homeserver-config",
        metavar="FILE",
        type=click.Path(),
        multiple=True,
        required=required,
        help="Synapse's configuration; may be given more than once, as to Synapse. Run the command"
        " as Synapse's user, in the folder that Synapse runs in.",
    )


yes_option = click.option("--yes", is_flag=True, help="Do so without being asked.")


def confirm(question: str, yes: bool) -> None:
    """Go on with what cannot be undone only if it is confirmed: at a terminal, or beforehand.

    :param yes: whether it was, by :data:`yes_option`.
    :raise click.UsageError: when nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("This cannot be undone: confirm it with --yes.")
    click.confirm(question, abort=True, err=True)


def where_option(command: _Callback) -> _Callback:
    """Add both, of which one has to be given, and hand the command a :class:`Where`."""

    @wraps(command)
    def with_where(
        config: Path | None, homeserver_config: tuple[str, ...], **options: object
    ) -> Any:
        if (config is None) != bool(homeserver_config):
            raise click.UsageError("Give one of --config and --homeserver-config.")
        return command(where=Where(config, homeserver_config), **options)

    return config_option(required=False)(homeserver_option(required=False)(with_where))
