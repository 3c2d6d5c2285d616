"""``sessions …``."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

from synapse_login_module.commands import expiring, upkeep
from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.options import config_option
from synapse_login_module.commands.program import Group, argument
from synapse_login_module.commands.report import row


@click.group(cls=Group)
def sessions() -> None:
    """List or revoke sessions."""


@sessions.command("list")
@config_option()
@argument("user", "only this user's", required=False)
def list_sessions(config: Path, user: str | None) -> None:
    """List sessions, oldest first."""

    async def work(opened: Opened) -> list[str]:
        found = await opened.store.sessions(user and opened.user_id(user))
        return [
            row(
                session.user_id,
                session.device_id,
                f"since={_moment(session.created_at)}",
                f"refreshed={_moment(session.issued_at)}",
                session.display_name or "",
            )
            for session in found
        ]

    for line in with_store(config, work):
        click.echo(line)


@sessions.command("revoke")
@config_option()
@argument("user", "a user ID, or its local part")
@argument("device", "only on this device", required=False)
def revoke(config: Path, user: str, device: str | None) -> None:
    """End sessions; their tokens die at once."""

    async def work(opened: Opened) -> int:
        store, user_id = opened.store, opened.user_id(user)
        if device is None:
            return await store.revoke_all(user_id)
        found = [each for each in await store.sessions(user_id) if each.device_id == device]
        for session in found:
            await store.revoke(session)
        return len(found)

    click.echo(f"{with_store(config, work)} sessions revoked")


sessions.add_command(upkeep.prune)
sessions.add_command(expiring.expire)
sessions.add_command(upkeep.end_gone)


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.isoformat(timespec="seconds")
