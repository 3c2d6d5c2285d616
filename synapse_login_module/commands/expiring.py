"""``sessions expire``."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.options import config_option, confirm, yes_option
from synapse_login_module.commands.program import Command
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IHousekeeping


@click.command(
    "expire",
    cls=Command,
    epilog="Use this after you restored a backup of the database, which brings back sessions that"
    " were logged out or revoked since the backup. Clients log in again and keep their encryption"
    " keys.",
)
@config_option()
@yes_option
def expire(config: Path, yes: bool) -> None:
    """End all sessions of all users, but keep their devices."""
    confirm("End all sessions of all users?", yes)

    async def work(opened: Opened) -> int:
        store = opened.store
        if not IHousekeeping.providedBy(store):
            raise ConfigError("token_store.module", "this store cannot end all sessions at once")
        ended, after = 0, None
        while True:
            batch = await store.expire(after, 1000)
            ended, after = ended + batch.sessions, batch.after
            if after is None:
                return ended

    click.echo(f"{with_store(config, work)} sessions have ended")
