"""Finds the user that a command names, in the standalone server's store."""

from __future__ import annotations

from collections.abc import Sequence

from synapse_login_module.accounts.listing import session_pages
from synapse_login_module.accounts.names import address_in, alike, linked_by_name, user_id_of
from synapse_login_module.commands.backends import Opened
from synapse_login_module.common.console import printable
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IFindsAccounts, IHousekeeping
from synapse_login_module.model import Claim, EmailIdentifier


async def find_users(opened: Opened, given: str) -> list[str]:
    """Find user IDs that have a link or a session; see :data:`.FindUsers`.

    A full user ID that has one means that user alone. Any other name means all users of that
    spelling, ignoring the case of ASCII letters; if there is none, the user that the account of
    that name is linked to.

    :raise ConfigError: for an e-mail address that no provider has, or that some cannot look up.
    """
    address = address_in(given)
    if address is not None:
        return [await _user_with(opened, address)]
    typed = user_id_of(given, opened.server_name)
    if given.startswith("@") and await _is_known(opened, typed):
        return [typed]
    found = alike(typed, await _known_alike(opened, typed))
    return found or await linked_by_name(given, opened.links, opened.names)


def nothing_found(given: str, users: Sequence[str]) -> ConfigError:
    """Build the error for a user without sessions.

    :param given: the name that the operator typed.
    :param users: the user IDs that were found.
    """
    name = printable(given)
    if users:
        return ConfigError("", f"{name}: {' and '.join(map(printable, users))} has no session")
    return ConfigError(
        "",
        f"{name}: no user of that name has a session or is linked, whatever the case of its"
        " letters, and no account of that name is linked to another user",
    )


async def _known_alike(opened: Opened, user_id: str) -> list[str]:
    """List user IDs that have a link or a session, including all of this spelling.

    Sessions of users without a link count too, because they have to end with the others.
    """
    store = opened.store
    if IHousekeeping.providedBy(store):
        return list(await store.users_alike(user_id))
    known: set[str] = {link.user_id for link in await opened.links.links()}
    async for page in session_pages(store, None):
        known |= {each.user_id for each in page}
    return list(known)


async def _is_known(opened: Opened, user_id: str) -> bool:
    if await opened.store.sessions(user_id, most=1):
        return True
    return await opened.links.link_of(user_id) is not None


async def _user_with(opened: Opened, address: str) -> str:
    """Find the user who logs in by an e-mail address.

    :raise ConfigError: when no provider has it, or some cannot look it up.
    """
    unable = []
    names = opened.names
    try:
        providers = opened.providers()
    except ConfigError as error:
        raise ConfigError(
            "", f"{address}: the password providers cannot be used ({error}): give the user ID"
        ) from None
    for name, provider in zip(names, providers, strict=True):
        if not IFindsAccounts.providedBy(provider):
            unable.append(name)
            continue
        account = await provider.find(EmailIdentifier(address))
        if account is not None:
            claim = Claim(names[name], account.subject or account.user_id)
            return await opened.links.linked_user(claim) or str(account.user_id)
    if unable:
        raise ConfigError(
            "",
            f"{address}: {', '.join(unable)} cannot look up an address without a password, and"
            " no other provider has it: give the user ID",
        )
    raise ConfigError("", f"{address}: no password provider has an account with that address")
