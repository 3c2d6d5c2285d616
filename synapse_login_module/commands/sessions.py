"""``sessions …``: lists and ends sessions."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.accounts.listing import all_sessions
from synapse_login_module.commands import expiring, listing, upkeep
from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.batches import end_in_batches
from synapse_login_module.commands.expiring import housekept
from synapse_login_module.commands.options import (
    config_option,
    confirm,
    require_confirmable,
    yes_option,
)
from synapse_login_module.commands.program import Group, argument
from synapse_login_module.commands.progress import progress, shows_progress
from synapse_login_module.commands.users import find_users, nothing_found
from synapse_login_module.common.console import printable
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import SessionInfo


@click.group(cls=Group)
def sessions() -> None:
    """List and end sessions.

    A session is one login: a user on a device. Commands work while the server runs, and while it is
    stopped.
    """


@sessions.command(
    "revoke",
    short_help="End sessions and revoke their tokens.",
    epilog="When all sessions of a user end, the user's login tokens are revoked too. With"
    " --everybody, sessions end in batches, so that a running server goes on serving; one that"
    " begins in the meantime may end too. A homeserver that delegates to this server is told by the"
    " running server: it deletes the devices. Until it has, the homeserver may accept an access"
    " token that it remembers, for up to two minutes.",
    examples=(
        "sessions revoke -c config.yaml alice PHONE",
        "sessions revoke -c config.yaml --all-of alice",
        "sessions revoke -c config.yaml --everybody --yes",
    ),
)
@config_option()
@argument(
    "user",
    "end this user's sessions without asking: a user ID, its local part, or an e-mail address",
    required=False,
)
@argument("device", "end only the sessions on this device: a device ID", required=False)
@click.option(
    "--all-of",
    metavar="USER",
    help="End all sessions of this user, once you have confirmed their number.",
)
@click.option(
    "--everybody",
    is_flag=True,
    help="End all sessions of all users, once you have confirmed their number.",
)
@yes_option
def revoke(
    config: Path,
    user: str | None,
    device: str | None,
    all_of: str | None,
    everybody: bool,
    yes: bool,
) -> None:
    """End sessions and revoke their tokens at once.

    Clients have to log in again, and forget their encryption keys.
    """
    if (user is not None) + (all_of is not None) + everybody != 1:
        raise click.UsageError("Give one of USER, --all-of and --everybody.")
    if user is None:
        require_confirmable(yes)

    async def work(opened: Opened) -> int:
        if everybody:
            return await _revoke_everybody(opened, yes)
        if all_of is not None:
            return await _revoke_all_of(opened, all_of, yes)
        assert user is not None
        if device is not None:
            return await _revoke_device(opened, user, device)
        # Users without a session may still have a login token.
        return await _revoke_users(opened, user, await find_users(opened, user))

    click.echo(f"{with_store(config, work, read_only=False)} sessions revoked")


sessions.add_command(listing.list_sessions)
sessions.add_command(upkeep.prune)
sessions.add_command(expiring.expire)
sessions.add_command(upkeep.end_gone)


async def _revoke_device(opened: Opened, user: str, device: str) -> int:
    """End the sessions of a user on a device; return how many.

    :raise ConfigError: when there is none.
    """
    users = await find_users(opened, user)
    found = await _sessions_of(opened, users)
    if not found:
        raise nothing_found(user, users)
    on_device = [each for each in found if each.device_id == device]
    for session in on_device:
        await opened.store.revoke(session)
    if not on_device:
        devices = ", ".join(sorted(printable(each.device_id) for each in found))
        problem = f"{user} has no session on the device {device}, only on {devices}"
        raise ConfigError("", printable(problem))
    return len(on_device)


async def _revoke_all_of(opened: Opened, user: str, yes: bool) -> int:
    """End all sessions of a user, once that is confirmed; return how many."""
    users = await find_users(opened, user)
    number = len(await _sessions_of(opened, users))
    if number:
        confirm(f"End {number} sessions of {' and '.join(map(printable, users))}?", yes)
    return await _revoke_users(opened, user, users)


async def _revoke_users(opened: Opened, user: str, users: list[str]) -> int:
    """End all sessions of users; return how many.

    :param user: the name that the operator typed.
    :raise ConfigError: when there is none.
    """
    number = sum([await opened.store.revoke_all(each) for each in users])
    if not number:
        raise nothing_found(user, users)
    return number


async def _revoke_everybody(opened: Opened, yes: bool) -> int:
    """End all sessions of all users, once that is confirmed; return how many."""
    from twisted.internet import reactor

    store = housekept(opened)
    living = 0
    if not yes or shows_progress():
        living = (await store.count_sessions()).living
    confirm(f"End all {living} sessions of all users?", yes)
    with progress("ending sessions", living) as update:
        return await end_in_batches(store.revoke_everybody, update, reactor)


async def _sessions_of(opened: Opened, users: list[str]) -> list[SessionInfo]:
    return [each for user_id in users for each in await all_sessions(opened.store, user_id)]
