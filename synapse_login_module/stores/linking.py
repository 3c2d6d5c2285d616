"""Links of a store of derived tokens, and which user a login begins a session for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.errors import AccountNotLinked, LinkTaken
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, Link
from synapse_login_module.stores.rows import Database, Rows

RELINK = "synapse-login-module links relink"
"""The command that gives a user ID to another account."""


class LinkedLogin(NamedTuple):
    """The user that a login begins a session for.

    :param link: the link of the user ID; ``None`` when the login does not link an account.
    :param new: whether the link does not exist yet.
    """

    user_id: str
    link: Link | None = None
    new: bool = False


def linked_login(user_id: str, claim: Claim, found: Sequence[Link]) -> LinkedLogin:
    """Decide which user a login with a right password begins a session for.

    :param user_id: the user ID to link the account to, unless it is linked already.
    :param claim: the account.
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


@implementer(ILinks)
class KeepsLinks:
    """The part of a store of derived tokens that keeps the links."""

    _database: Database
    _now: Callable[[], int]

    def link_of(self, user_id: str) -> Deferred[Link | None]:
        """Find a link; see :class:`~synapse_login_module.interfaces.ILinks`."""
        return self._database.run(lambda rows: _link_of(rows, user_id))

    def linked_user(self, claim: Claim) -> Deferred[str | None]:
        """Find a user ID; see :class:`~synapse_login_module.interfaces.ILinks`."""

        def work(rows: Rows) -> str | None:
            link = _of_claim(claim, rows.links_of(None, claim))
            return None if link is None else link.user_id

        return self._database.run(work)

    def links(self) -> Deferred[list[Link]]:
        """List links; see :class:`~synapse_login_module.interfaces.ILinks`."""
        return self._database.run(lambda rows: rows.links())

    def link(self, link: Link, replace: bool) -> Deferred[None]:
        """Insert a link; see :class:`~synapse_login_module.interfaces.ILinks`."""
        now = self._now()

        def work(rows: Rows) -> None:
            found = dict.fromkeys(
                rows.links_of(link.user_id, Claim((link.provider,), link.subject))
            )
            if link in found:
                return
            if found and not replace:
                raise LinkTaken
            rows.insert_link(link, now, tuple(found))

        return self._database.run(work)

    def unlink(self, user_id: str) -> Deferred[Link | None]:
        """Delete a link; see :class:`~synapse_login_module.interfaces.ILinks`."""

        def work(rows: Rows) -> Link | None:
            link = _link_of(rows, user_id)
            if link is not None:
                rows.delete_link(link)
            return link

        return self._database.run(work)


def _link_of(rows: Rows, user_id: str) -> Link | None:
    return next(iter(rows.links_of(user_id, None)), None)


def _of_claim(claim: Claim, found: Sequence[Link]) -> Link | None:
    """Find the link of an account. Of several, return that under its provider's newest name."""
    for provider in claim.providers:
        for link in found:
            if (link.provider, link.subject) == (provider, claim.subject):
                return link
    return None
