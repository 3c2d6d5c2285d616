"""``sessions expire``."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.batches import end_in_batches
from synapse_login_module.commands.options import config_option, confirm, yes_option
from synapse_login_module.commands.program import Command
from synapse_login_module.commands.progress import progress, shows_progress
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IHousekeeping


@click.command(
    "expire",
    cls=Command,
    epilog="Use this after you restored a backup of the database, which brings back sessions that"
    " were logged out or revoked since the backup. Clients log in again and keep their encryption"
    " keys.",
    examples=("sessions expire -c config.yaml --yes",),
)
@config_option()
@yes_option
def expire(config: Path, yes: bool) -> None:
    """End all sessions of all users, but keep their devices."""
    confirm("End all sessions of all users?", yes)

    async def work(opened: Opened) -> int:
        from twisted.internet import reactor

        store = housekept(opened)
        living = (await store.count_sessions()).living if shows_progress() else 0
        with progress("ending sessions", living) as update:
            return await end_in_batches(store.expire, update, reactor)

    click.echo(f"{with_store(config, work, read_only=False)} sessions have ended")


def housekept(opened: Opened) -> IHousekeeping:
    """Return the store.

    :raise ConfigError: when it cannot end all sessions at once.
    """
    if not IHousekeeping.providedBy(opened.store):
        raise ConfigError("token_store.module", "this store cannot end all sessions at once")
    return IHousekeeping(opened.store)
