"""E-mail addresses and telephone numbers that are bound to users in Synapse's database."""

from __future__ import annotations

from typing import NamedTuple

from twisted.logger import Logger

from synapse_login_module.model import (
    EmailIdentifier,
    Identifier,
    Link,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
    canonical_email,
    fold,
)
from synapse_login_module.synapse import link_rows, user_tables
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.tables import TokenRows


class Bound(NamedTuple):
    """The user that an address is bound to.

    :param link: the user's link, if there is one.
    """

    user_id: str
    link: Link | None


def named_by(user_id: str, link: Link | None) -> UserIdentifier:
    """Return the identifier by which providers know a user.

    It has the spelling of the linked name where that differs from the user ID only in the case of
    letters, since some providers compare names case-sensitively.
    """
    user = UserId.parse(user_id, "")
    if link is not None:
        spelled = UserId.parse(link.subject, user.server_name)
        if fold(str(spelled)) == fold(user_id):
            return UserIdentifier(spelled)
    return UserIdentifier(user)


class Addresses:
    """Finds and adds bindings. All methods run on Synapse's side of the crossing.

    :param homeserver: the way into Synapse.
    """

    log = Logger()

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver

    async def binding_of(self, identifier: Identifier) -> Bound | None:
        """Find the user that an address is bound to; return ``None`` for a user ID."""
        if isinstance(identifier, UserIdentifier):
            return None
        named = medium_and_address(identifier)
        if named is None:
            return None
        medium, address = named

        def work(rows: TokenRows) -> Bound | None:
            user_id = user_tables.user_with_address(rows, medium, address)
            if user_id is None:
                return None
            row = link_rows.row_of_user(rows, user_id)
            return Bound(user_id, None if row is None or row.pending else row.link)

        return await self._homeserver.transaction("synapse_login_address", work)

    async def add_emails(self, user_id: str, emails: tuple[str, ...]) -> None:
        """Bind e-mail addresses to a user, except those that are bound already."""
        for address in dict.fromkeys(map(_bindable, emails)):
            if address is not None:
                await self._add(user_id, address)

    async def _add(self, user_id: str, address: str) -> None:
        now = self._homeserver.now()

        def work(rows: TokenRows) -> str | None:
            if user_tables.bind_address(rows, user_id, "email", address, now):
                return None
            return user_tables.user_with_address(rows, "email", address)

        owner = await self._homeserver.transaction("synapse_login_bind", work)
        if owner is None:
            await self._homeserver.tell_bound(user_id, "email", address)
        elif owner != user_id:
            self.log.info(
                "{address} stays bound to {owner}: the provider has it as an address of {user_id}",
                address=address,
                owner=owner,
                user_id=user_id,
            )


def medium_and_address(identifier: EmailIdentifier | PhoneIdentifier) -> tuple[str, str] | None:
    """Return the medium and the address as Synapse stores them, or ``None`` when it cannot store
    such an address.
    """
    if isinstance(identifier, PhoneIdentifier):
        return ("msisdn", identifier.msisdn) if identifier.msisdn.isprintable() else None
    address = _bindable(identifier.address)
    return None if address is None else ("email", address)


def _bindable(email: str) -> str | None:
    """Return an e-mail address as Synapse stores it, or ``None`` when it cannot store it."""
    address = canonical_email(email)
    return address if address is not None and address.isprintable() else None
