"""Whose account a login begins a session of: the rules of links, over rows of one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from synapse_login_module.errors import AccountNotLinked, LinkTaken
from synapse_login_module.model import Claim, Link
from synapse_login_module.stores.rows import Rows

RELINK = "synapse-login-module links relink"
"""The command that gives a user ID to another account."""


class LinkedLogin(NamedTuple):
    """Whose session a login begins.

    :param link: what the user ID is linked to; ``None`` where nothing is to be linked.
    :param new: whether the link is still to be made.
    """

    user_id: str
    link: Link | None = None
    new: bool = False


def linked_login(user_id: str, claim: Claim, found: Sequence[Link]) -> LinkedLogin:
    """Decide whose session a login with a right password begins.

    :param user_id: the user ID that the account would be linked to.
    :param found: the links of the user ID and of the claim.
    :raise AccountNotLinked: when the user ID is linked to another account.
    """
    link = _of_claim(claim, found)
    if link is not None:
        return LinkedLogin(link.user_id, link)
    for other in found:
        raise AccountNotLinked(
            user_id, f"it is linked to another account, of {other.provider}", RELINK
        )
    return LinkedLogin(user_id, Link(user_id, claim.provider, claim.subject), new=True)


def linked_user(rows: Rows, claim: Claim) -> str | None:
    """Find the user ID that an account is linked to."""
    link = _of_claim(claim, rows.links_of(None, claim))
    return None if link is None else link.user_id


def link_of(rows: Rows, user_id: str) -> Link | None:
    """Find the link of a user ID."""
    return next(iter(rows.links_of(user_id, None)), None)


def make_link(rows: Rows, link: Link, replace: bool, now: int) -> None:
    """Link a user ID.

    :param replace: whether a link of this user ID, or of this subject, gives way.
    :raise LinkTaken: when one stands in the way.
    """
    found = dict.fromkeys(rows.links_of(link.user_id, Claim((link.provider,), link.subject)))
    if link in found:
        return
    if found and not replace:
        raise LinkTaken
    rows.put_link(link, now, tuple(found))


def drop_link(rows: Rows, user_id: str) -> Link | None:
    """Delete the link of a user ID; what it was."""
    link = link_of(rows, user_id)
    if link is not None:
        rows.drop_link(link)
    return link


def _of_claim(claim: Claim, found: Sequence[Link]) -> Link | None:
    """The link of an account; of several, that under its provider's newest name."""
    for provider in claim.providers:
        for link in found:
            if (link.provider, link.subject) == (provider, claim.subject):
                return link
    return None
