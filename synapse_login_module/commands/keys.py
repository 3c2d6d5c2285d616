"""``rotate-key``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from synapse_login_module.commands.backends import load
from synapse_login_module.commands.options import config_option
from synapse_login_module.commands.program import Command, about
from synapse_login_module.tokens import keyfile


@click.command(
    "rotate-key",
    cls=Command,
    epilog="New tokens are made under it from the next login on, without a restart; old ones stay"
    " good until their key's line is deleted from the key file.",
)
@config_option()
def rotate(config: Path) -> None:
    """Add a new newest key for tokens."""
    path = load(config).key_file
    with about(config):
        click.echo(f"key {keyfile.rotate(path, os.urandom)} added to {path}")
