"""``links …``: which account of a provider logs in as which user.

The links are in the standalone server's store, or in Synapse's database.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import click

from synapse_login_module.accounts.link_place import LinkPlace
from synapse_login_module.commands.backends import Opened, on_synapse, with_store
from synapse_login_module.commands.options import Where, where_option
from synapse_login_module.commands.program import Group, about, argument
from synapse_login_module.commands.report import Say, report, row
from synapse_login_module.compose import provider_names
from synapse_login_module.console import printable
from synapse_login_module.errors import ConfigError, LinkTaken
from synapse_login_module.model import Link, UserId

_Work = Callable[[LinkPlace, Any], Coroutine[Any, Any, None]]
"""Work on links, with the full ID of the user that the command names, if it names one."""

_user = argument("user", "a user ID, or its local part")
_provider = argument("provider", "a provider's name")
_subject = argument("subject", "what the provider knows the account by, exactly")


@click.group(cls=Group, short_help="Show and change who logs in as which user.")
def links() -> None:
    """Show and change which account of a provider logs in as which user."""


@links.command("list", epilog="One line a link, with tabs between its parts.")
@where_option
@argument("user", "only this user's", required=False)
@click.option(
    "--would-refuse",
    is_flag=True,
    help="List the accounts of Synapse's whose name a provider knows, and to which a login would"
    " not be linked: why, and which setting would change that; a ? behind the provider says that"
    " it cannot tell whether it knows the name.",
)
def list_links(where: Where, user: str | None, would_refuse: bool) -> None:
    """List links: the user ID, the provider and the subject."""
    with report() as say:

        async def work(place: LinkPlace, user_id: str | None) -> None:
            if would_refuse:
                for refused in await _refused(place):
                    if user_id in (None, refused.user_id):
                        say(row(*refused))
            elif user_id is None:
                for link in await place.links.links():
                    say(row(*link))
            else:
                say(row(*await _require_link(place, user_id)))

        _run(where, user, work, say)


@links.command("link")
@where_option
@_user
@_provider
@_subject
def add_link(where: Where, user: str, provider: str, subject: str) -> None:
    """Link a user and an account that are both free."""
    with report() as say:

        async def work(place: LinkPlace, user_id: str) -> None:
            claim = place.claim(provider, subject)
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

        _run(where, user, work, say)


@links.command(
    "relink",
    epilog="All sessions of the user end. If another user is linked to that account, that user is"
    " not any more, and those sessions end too, with its local password inside Synapse.",
)
@where_option
@_user
@_provider
@_subject
def relink(where: Where, user: str, provider: str, subject: str) -> None:
    """Give a linked user to another account."""
    with report() as say:

        async def work(place: LinkPlace, user_id: str) -> None:
            # Sessions end after the link has changed: none begins then for the account before.
            claim = place.claim(provider, subject)
            await _require_link(place, user_id)
            link = Link(user_id, claim.provider, claim.subject)
            owner = await place.links.linked_user(claim)
            await place.links.link(link, True)
            say(row(*link))
            say(await place.revoke_all(user_id))
            if owner is not None and owner != user_id:
                # Its link is of this account too, perhaps under a former name of the provider.
                await place.links.unlink(owner)
                say(f"{printable(owner)} is not linked any more")
                say(await place.revoke_all(owner))

        _run(where, user, work, say)


@links.command("unlink", epilog="The next login of that name is linked as a first one is.")
@where_option
@_user
@click.option(
    "--keep-password",
    is_flag=True,
    help="Inside Synapse: leave the account its local password, which counts again from then on;"
    " without this it is removed, since it may have been set while the account was linked.",
)
def unlink(where: Where, user: str, keep_password: bool) -> None:
    """Drop a user's link; all sessions end."""
    with report() as say:

        async def work(place: LinkPlace, user_id: str) -> None:
            if keep_password and place.would_refuse is None:
                raise ConfigError(
                    "", "without a homeserver there are no local passwords to be kept"
                )
            await _require_link(place, user_id)
            await place.links.unlink(user_id)
            say(await place.revoke_all(user_id))

        _run(where, user, work, say, keep_password)


def _run(
    where: Where, user: str | None, work: _Work, say: Say, keep_passwords: bool = False
) -> None:
    """Run work on the links that the options lead to."""
    if where.config is None:
        with about(*where.homeserver):
            on_synapse(where.homeserver).run_on_links(
                where.homeserver, user, work, say, keep_passwords
            )
        return

    async def on_store(opened: Opened) -> None:
        async def revoke_all(user_id: str) -> str:
            return f"{await opened.store.revoke_all(user_id)} sessions revoked"

        config = opened.loaded.config
        user_id = user and opened.user_id(user)
        if user_id and UserId.parse(user_id, "").server_name != config.server_name:
            raise ConfigError("", f"{user_id} is no user of {config.server_name}")
        names = provider_names(config.password_providers, opened.loaded.providers)
        # The configuration is refused where its store keeps no links.
        kept: Any = opened.store
        await work(LinkPlace(kept, names, revoke_all), user_id)

    with_store(where.config, on_store)


async def _refused(place: LinkPlace) -> Any:
    if place.would_refuse is None:
        raise ConfigError("", "without a homeserver there are no accounts before their login")
    return await place.would_refuse()


async def _require_link(place: LinkPlace, user_id: str) -> Link:
    link = await place.links.link_of(user_id)
    if link is None:
        raise ConfigError("", f"{user_id} is not linked")
    return link
