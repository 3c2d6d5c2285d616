"""``hash-password``."""

from __future__ import annotations

import getpass
import sys

import click

from synapse_login_module.commands.program import Command, Failure
from synapse_login_module.passwords import hash_password


@click.command(
    "hash-password",
    cls=Command,
    epilog="Asks for the password twice; or reads it, one line, from a pipe.",
)
@click.option(
    "--rounds",
    type=click.IntRange(4, 31),
    default=12,
    show_default=True,
    metavar="N",
    help="bcrypt's cost.",
)
@click.option(
    "--pepper", default="", metavar="TEXT", help="The pepper of the provider's configuration."
)
def command(rounds: int, pepper: str) -> None:
    """Make a bcrypt hash for users.yaml."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise Failure("the passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise Failure("no password given")
    if any("\ud800" <= letter <= "\udfff" for letter in password):
        raise Failure("the password is not text in this locale's encoding")
    click.echo(hash_password(password, pepper, rounds))
