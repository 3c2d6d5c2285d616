"""The options that several commands share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click

_Callback = Callable[..., Any]

FILE = click.Path(path_type=Path)
"""A file, whose name shells complete. The command itself checks that it exists."""


class Where(NamedTuple):
    """The place where a command works; exactly one of the two is given.

    :param config: the standalone server's configuration file, or ``None``.
    :param homeserver: Synapse's configuration files, or an empty tuple.
    """

    config: Path | None
    homeserver: tuple[str, ...]


def config_option(
    required: bool = True, help_text: str = "The standalone server's configuration file."
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


_AS_SYNAPSE = "Run the command as Synapse's user, in the folder that Synapse runs in."


def homeserver_option(
    required: bool = True, advice: str = _AS_SYNAPSE
) -> Callable[[_Callback], _Callback]:
    """Add ``--homeserver-config``, for commands on Synapse's database.

    :param advice: a sentence on where to run the command.
    """
    return click.option(
        "--homeserver-config",
        metavar="FILE",
        type=click.Path(),
        multiple=True,
        required=required,
        help="Synapse's configuration file, or a folder of them. May be given more than once, as"
        f" for Synapse. {advice}",
    )


yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def confirm(question: str, yes: bool) -> None:
    """Ask at the terminal to confirm what cannot be undone, unless ``--yes`` was given.

    :param yes: the value of :data:`yes_option`.
    :raise click.UsageError: when standard input is no terminal.
    :raise click.Abort: when the answer is no.
    """
    require_confirmable(yes)
    if yes:
        return
    # The reactor's handler would only stop the reactor, which waits for this answer.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        click.confirm(question, abort=True, err=True)
    finally:
        signal.signal(signal.SIGINT, handler)


def require_confirmable(yes: bool) -> None:
    """Check, before anything is read, that :func:`confirm` can ask.

    :param yes: the value of :data:`yes_option`.
    :raise click.UsageError: when standard input is no terminal.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("This cannot be undone: confirm it with --yes.")


def where_option(command: _Callback) -> _Callback:
    """Add ``--config`` and ``--homeserver-config``, one of which is required; pass the command a
    :class:`Where`.
    """

    @wraps(command)
    def with_where(
        config: Path | None, homeserver_config: tuple[str, ...], **options: object
    ) -> Any:
        if (config is None) != bool(homeserver_config):
            raise click.UsageError("Give one of --config and --homeserver-config.")
        return command(where=Where(config, homeserver_config), **options)

    return config_option(required=False)(homeserver_option(required=False)(with_where))
