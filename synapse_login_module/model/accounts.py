"""Accounts at a provider, and the user IDs that they are linked to."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.errors import AccountDeactivated, AccountLocked


class AccountStatus(enum.Enum):
    """What a password provider says of an account.

    ``UNVERIFIABLE`` is the answer of a provider that cannot look at accounts without a password:
    there may be one of that name, or none.
    """

    ACTIVE = "active"
    LOCKED = "locked"
    DEACTIVATED = "deactivated"
    UNVERIFIABLE = "unverifiable"


def require_active(status: AccountStatus | None) -> None:
    """Let an account through that is active, or that nobody can look at; one that nobody knows any
    more counts as closed.

    :raise AccountLocked: when it is locked for now.
    :raise AccountDeactivated: when it is closed.
    """
    if status is AccountStatus.LOCKED:
        raise AccountLocked
    if status in (None, AccountStatus.DEACTIVATED):
        raise AccountDeactivated


class Claim(NamedTuple):
    """Whose account it is to a provider: what a homeserver's account is linked to.

    :param providers: the provider's name, and the names that it had before.
    :param subject: what the provider knows the account by.
    """

    providers: tuple[str, ...]
    subject: str

    @property
    def provider(self) -> str:
        """The provider's name today."""
        return self.providers[0]


class Link(NamedTuple):
    """A user ID, and the one account of a provider that may log in as it."""

    user_id: str
    provider: str
    subject: str


@dataclass(frozen=True, slots=True)
class Account:
    """An account that a password provider vouches for.

    :param user_id: the full user ID: the provider's own, or made from the name it has there.
    :param display_name: the name to show, or ``None`` when the provider knows none.
    :param emails: the account's e-mail addresses.
    :param provider: the name of the provider that vouched; the chain fills it in.
    :param status: its status, where the provider has it in hand; the chain asks where it has not.
    :param named: the user ID of the name that it has there, which its failures count by; the chain
        fills it in.
    :param subject: an id of the account that never changes, or its name as the provider spells it;
        without one the user ID serves.
    :param claim: what the account is linked by; the chain fills it in. ``None`` for an account of
        the homeserver's own, which is not linked.
    :param is_local: whether it is an account of the homeserver itself, with no provider behind it.
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
