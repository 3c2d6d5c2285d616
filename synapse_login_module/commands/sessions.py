"""``sessions …``: lists and ends sessions."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.commands import expiring, upkeep
from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.options import config_option
from synapse_login_module.commands.program import Group, argument
from synapse_login_module.commands.report import (
    for_people,
    json_option,
    print_json,
    print_table,
    row,
)
from synapse_login_module.commands.users import find_users, nothing_found
from synapse_login_module.common.console import moment, printable
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import SessionInfo


@click.group(cls=Group)
def sessions() -> None:
    """List and end sessions."""


@sessions.command(
    "list",
    epilog="Prints a table to a terminal. Otherwise it prints one line for each session, with tabs"
    " between its parts: user ID, device ID, since=TIME, refreshed=TIME (or -), display name. The"
    " keys of --json are user_id, device_id, display_name (or null), created_ts and refreshed_ts"
    " (milliseconds since the epoch, or null).",
)
@config_option()
@argument(
    "user",
    "list only this user's sessions: a user ID, its local part, or an e-mail address",
    required=False,
)
@json_option
def list_sessions(config: Path, user: str | None, as_json: bool) -> None:
    """List sessions, oldest first."""

    async def work(opened: Opened) -> list[SessionInfo]:
        if user is None:
            return await opened.store.sessions(None)
        return await _sessions_of(opened, user)

    found = with_store(config, work)
    if as_json:
        print_json([_as_json(each) for each in found])
    elif for_people():
        print_table(
            ("USER", "DEVICE", "SINCE", "REFRESHED", "NAME"),
            [
                (
                    each.user_id,
                    each.device_id,
                    moment(each.created_at),
                    moment(each.issued_at),
                    each.display_name or "",
                )
                for each in found
            ],
        )
    else:
        for each in found:
            since, refreshed = moment(each.created_at), moment(each.issued_at)
            name = each.display_name or ""
            times = (f"since={since}", f"refreshed={refreshed}")
            click.echo(row(each.user_id, each.device_id, *times, name))


@sessions.command(
    "revoke",
    short_help="End sessions and revoke their tokens.",
    epilog="Without DEVICE, all sessions of the user end, and the user's login tokens are revoked"
    " too.",
)
@config_option()
@argument("user", "a user ID, its local part, or an e-mail address")
@argument("device", "end only the sessions on this device: a device ID", required=False)
def revoke(config: Path, user: str, device: str | None) -> None:
    """End sessions and revoke their tokens at once."""

    async def work(opened: Opened) -> int:
        store = opened.store
        if device is None:
            # Users without a session may still have a login token.
            users = await find_users(opened, user)
            number = sum([await store.revoke_all(each) for each in users])
            if not number:
                raise nothing_found(user, users)
            return number
        found = await _sessions_of(opened, user)
        on_device = [each for each in found if each.device_id == device]
        for session in on_device:
            await store.revoke(session)
        if not on_device:
            devices = ", ".join(sorted(printable(each.device_id) for each in found))
            problem = f"{user} has no session on the device {device}, only on {devices}"
            raise ConfigError("", printable(problem))
        return len(on_device)

    click.echo(f"{with_store(config, work)} sessions revoked")


sessions.add_command(upkeep.prune)
sessions.add_command(expiring.expire)
sessions.add_command(upkeep.end_gone)


async def _sessions_of(opened: Opened, user: str) -> list[SessionInfo]:
    """List the sessions of the user that an operator names.

    :raise ConfigError: when there is no session.
    """
    users = await find_users(opened, user)
    found = [each for user_id in users for each in await opened.store.sessions(user_id)]
    if not found:
        raise nothing_found(user, users)
    return found


def _as_json(session: SessionInfo) -> dict[str, object]:
    return {
        "user_id": session.user_id,
        "device_id": session.device_id,
        "display_name": session.display_name,
        "created_ts": session.created_at,
        "refreshed_ts": session.issued_at,
    }
