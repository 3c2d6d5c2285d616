"""Accounts at a provider, and the user IDs that they are linked to."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    LoginNotPermitted,
    PasswordExpired,
)


class AccountStatus(enum.Enum):
    """The status of an account, as its password provider reports it.

    A provider that cannot look at accounts without a password reports ``UNVERIFIABLE``: the account
    may exist or not. An account that is ``PASSWORD_EXPIRED`` or ``NOT_PERMITTED`` may not begin a
    session now, and those that it has go on.
    """

    ACTIVE = "active"
    LOCKED = "locked"
    DEACTIVATED = "deactivated"
    UNVERIFIABLE = "unverifiable"
    PASSWORD_EXPIRED = "password_expired"
    NOT_PERMITTED = "not_permitted"


def require_active(status: AccountStatus | None) -> None:
    """Accept an account that is active, or whose status no provider can report.

    :raise AccountLocked: when the account is locked.
    :raise AccountDeactivated: when the account is deactivated, or its provider no longer knows it
        (``None``).
    :raise PasswordExpired: when its password has to be changed first.
    :raise LoginNotPermitted: when it may not log in at this time, or from here.
    """
    if status is AccountStatus.LOCKED:
        raise AccountLocked
    if status in (None, AccountStatus.DEACTIVATED):
        raise AccountDeactivated
    if status is AccountStatus.PASSWORD_EXPIRED:
        raise PasswordExpired
    if status is AccountStatus.NOT_PERMITTED:
        raise LoginNotPermitted


class Claim(NamedTuple):
    """An account at a provider, as a login presents it to be linked to a user ID.

    :param providers: the provider's name, followed by the names that it had before.
    :param subject: the provider's identifier of the account.
    """

    providers: tuple[str, ...]
    subject: str

    @property
    def provider(self) -> str:
        """The provider's current name."""
        return self.providers[0]


class Link(NamedTuple):
    """A user ID, and the only account of a provider that may log in as it."""

    user_id: str
    provider: str
    subject: str


@dataclass(frozen=True, slots=True)
class Account:
    """An account that a password provider has authenticated.

    :param user_id: the full user ID. The provider sets it itself or makes it from the account's
        name at the provider.
    :param display_name: the display name, or ``None`` when the provider knows none.
    :param emails: the account's e-mail addresses.
    :param provider: the name of the provider; the provider chain sets it.
    :param status: the account's status. Where the provider leaves it ``None``, the provider chain
        asks for it.
    :param named: the user ID made from the account's name at the provider, under which its failed
        attempts are counted; the provider chain sets it.
    :param subject: an identifier of the account that never changes, or its name as the provider
        spells it. Where it is empty, the user ID takes its place.
    :param claim: the claim that the account is linked by; the provider chain sets it. ``None`` for
        an account of the homeserver itself, which is not linked.
    :param is_local: whether it is an account of the homeserver itself, with no provider behind it.
    :param admin: whether the provider says that the account is a server administrator. ``None``
        where it says nothing, and the account stays what it is. It counts only inside Synapse.
    """

    user_id: str
    display_name: str | None = None
    emails: tuple[str, ...] = ()
    provider: str = ""
    status: AccountStatus | None = None
    is_local: bool = False
    named: str = ""
    subject: str = ""
    claim: Claim | None = None
    admin: bool | None = None
