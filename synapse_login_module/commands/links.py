"""``links …``: shows and changes which account of a provider logs in as which user.

The links are in the standalone server's store, or in Synapse's database.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import click

from synapse_login_module.accounts.link_place import LinkPlace, RefusedLink
from synapse_login_module.commands.backends import Opened, on_synapse, with_store
from synapse_login_module.commands.options import Where, where_option
from synapse_login_module.commands.program import Group, about, argument
from synapse_login_module.commands.progress import progress
from synapse_login_module.commands.report import (
    Say,
    for_people,
    json_option,
    print_json,
    print_table,
    report,
    row,
)
from synapse_login_module.commands.users import find_users
from synapse_login_module.common.console import printable
from synapse_login_module.errors import ConfigError, LinkTaken
from synapse_login_module.model import Link

T = TypeVar("T")

_user = argument("user", "a user ID, its local part, or an e-mail address")
_provider = argument("provider", "a provider's name")
_subject = argument("subject", "the account's id at the provider, or its name where it has no id")


@click.group(cls=Group, short_help="Show and change which account logs in as which user.")
def links() -> None:
    """Show and change which account of a provider logs in as which user."""


@links.command(
    "list",
    examples=(
        "links list -c config.yaml alice",
        "links list --homeserver-config homeserver.yaml --would-refuse",
    ),
    epilog="Prints a table to a terminal. Otherwise it prints one line for each link, with tabs"
    " between user ID, provider and subject. The keys of --json are user_id, provider and subject;"
    " with --would-refuse they are user_id, provider, problem and setting.",
)
@where_option
@argument("user", "list only the link of this user", required=False)
@click.option(
    "--would-refuse",
    is_flag=True,
    help="List the accounts of Synapse whose name exists at a provider but which a login of that"
    " name would not be linked to, with the reason and the setting that would change it. A ?"
    " after the provider means that it cannot tell whether the name exists.",
)
@json_option
def list_links(where: Where, user: str | None, would_refuse: bool, as_json: bool) -> None:
    """List links: user ID, provider and subject."""

    async def work(place: LinkPlace) -> Sequence[Link | RefusedLink]:
        if would_refuse:
            refused = await _refused(place)
            whose = None if user is None else await place.find_users(user)
            return [each for each in refused if whose is None or each.user_id in whose]
        return await (place.links.links() if user is None else place.links_of(user))

    found = _run(where, work, read_only=True)
    if as_json:
        print_json([each._asdict() for each in found])
    elif for_people():
        last = ("PROBLEM", "SETTING") if would_refuse else ("SUBJECT",)
        print_table(("USER", "PROVIDER", *last), found)
    else:
        for each in found:
            click.echo(row(*each))


@links.command("link", examples=("links link -c config.yaml alice ldap alice",))
@where_option
@_user
@_provider
@_subject
def add_link(where: Where, user: str, provider: str, subject: str) -> None:
    """Link a user to an account; neither may have a link yet."""
    with report() as say:

        async def work(place: LinkPlace) -> None:
            claim = place.claim(provider, subject)
            user_id = await place.user_to_link(user)
            link = Link(user_id, claim.provider, claim.subject)
            owner = await place.links.linked_user(claim)
            if owner is not None:
                raise ConfigError("", f"that account is linked to {printable(owner)} already")
            try:
                await place.links.link(link, False)
            except LinkTaken:
                raise ConfigError(
                    "", f"{user_id} is linked to another account already: see links relink"
                ) from None
            say(row(*link))

        _run(where, work, say)


@links.command(
    "relink",
    examples=("links relink -c config.yaml alice ldap 52f9a7f4-e6c5-103f-8c1c-a1b2c3d4e5f6",),
    epilog="All sessions of the user end. If another user is linked to that account, that link is"
    " deleted and the other user's sessions end too. Inside Synapse, the other user's local"
    " password is removed as well.",
)
@where_option
@_user
@_provider
@_subject
def relink(where: Where, user: str, provider: str, subject: str) -> None:
    """Link a linked user to another account instead."""
    with report() as say:

        async def work(place: LinkPlace) -> None:
            # The link changes before sessions end, so that the old account cannot log in between.
            claim = place.claim(provider, subject)
            user_id = (await place.the_link_of(user)).user_id
            link = Link(user_id, claim.provider, claim.subject)
            owner = await place.links.linked_user(claim)
            await place.links.link(link, True)
            say(row(*link))
            say(await place.revoke_all(user_id))
            if owner is not None and owner != user_id:
                # Its link may hold a former name of the provider, so it is not replaced above.
                await place.links.unlink(owner)
                say(f"{printable(owner)} is no longer linked")
                say(await place.revoke_all(owner))

        _run(where, work, say)


@links.command(
    "unlink",
    examples=("links unlink -c config.yaml alice",),
    epilog="The next login of that name is linked like a first login.",
)
@where_option
@_user
@click.option(
    "--keep-password",
    is_flag=True,
    help="Inside Synapse: keep the user's local password, which is valid again from then on."
    " Without this it is removed, because it may have been set while the user was linked.",
)
def unlink(where: Where, user: str, keep_password: bool) -> None:
    """Delete a user's link and end all sessions of the user."""
    with report() as say:

        async def work(place: LinkPlace) -> None:
            if keep_password and place.would_refuse is None:
                raise ConfigError("", "--keep-password needs --homeserver-config")
            user_id = (await place.the_link_of(user)).user_id
            await place.links.unlink(user_id)
            say(await place.revoke_all(user_id))

        _run(where, work, say, keep_password)


def _run(
    where: Where,
    work: Callable[[LinkPlace], Coroutine[Any, Any, T]],
    say: Say = click.echo,
    keep_passwords: bool = False,
    *,
    read_only: bool = False,
) -> T:
    """Run work on the links in the store or in Synapse's database, and return its result.

    :param say: called with lines about removed passwords.
    :param read_only: whether the work only asks; see :func:`.with_store`.
    """
    if where.config is None:
        with about(*where.homeserver):
            commands = on_synapse(where.homeserver)
            result: T = commands.run_on_links(where.homeserver, work, say, keep_passwords)
            return result

    async def on_store(opened: Opened) -> T:
        async def revoke_all(user_id: str) -> str:
            return f"{await opened.store.revoke_all(user_id)} sessions revoked"

        place = LinkPlace(
            opened.links,
            opened.server_name,
            partial(find_users, opened),
            opened.names,
            revoke_all,
        )
        return await work(place)

    return with_store(where.config, on_store, read_only=read_only)


async def _refused(place: LinkPlace) -> list[RefusedLink]:
    if place.would_refuse is None:
        raise ConfigError("", "--would-refuse needs --homeserver-config")
    with ExitStack() as stack:
        return await place.would_refuse(
            lambda total: stack.enter_context(progress("asking the providers", total))
        )
