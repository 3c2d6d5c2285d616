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
    epilog="For the day after a backup of the database was put back: sessions that had been logged"
    " out or revoked since are in it. Clients log in again, and keep their encryption keys.",
)
@config_option()
@yes_option
def expire(config: Path, yes: bool) -> None:
    """End the sessions of everybody; their devices live on."""
    confirm("End the sessions of everybody?", yes)

    async def work(opened: Opened) -> int:
        store = opened.store
        if not IHousekeeping.providedBy(store):
            raise ConfigError("token_store.module", "it cannot end all sessions at once")
        ended: int = await store.expire_all()
        return ended

    click.echo(f"{with_store(config, work)} sessions have ended")
