"""What a store of derived tokens needs of its database: a few rows, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

from synapse_login_module.model import Claim, Link, Session, TokenKey

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoginTokenRow:
    """One unused login token.

    :param token_id: a positive 63-bit number, the primary key.
    :param expires_at: milliseconds since the epoch.
    """

    token_id: int
    user_id: str
    salt: bytes
    expires_at: int


class Rows(Protocol):
    """The rows, inside one transaction.

    :ivar writes_once: whether a piece of work writes one thing at most.
    """

    writes_once: bool

    def session(self, session_id: int) -> Session | None:
        """Read one session."""

    def is_free(self, session_id: int) -> bool:
        """Say whether a number may be drawn for a new session, which is inserted next.

        Where the rows are elsewhere this may be assumed: the insertion fails where it is not so,
        and the work is done again.
        """

    def reread(self, session_id: int) -> Session | None:
        """Read one session as it stands now, where :meth:`session` may give what is remembered."""

    def together(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Read two things that do not depend on one another.

        Where the rows are elsewhere both are fetched in one round trip.
        """

    def owner(self, session_id: int) -> tuple[Session, Link | None] | None:
        """Read one session, and the link of its user."""

    def sessions(self, user_id: str | None) -> list[Session]:
        """Read the sessions of a user, or all, oldest first."""

    def insert(self, session: Session, link: Link | None = None, new: bool = False) -> None:
        """Insert a session, in the place of any other of its user and device.

        :param link: the link of its user, which was read before, or which nothing that was read
            stands in the way of. Where that is no longer so the work is done again.
        :param new: whether the link is inserted too, unless it stands already; it is made when the
            session is.
        """

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Write ``new`` where ``old`` still stands unchanged; say whether it did."""

    def delete(self, session_id: int) -> None:
        """Delete one session, if it is there."""

    def delete_user(self, user_id: str) -> int:
        """Delete every session of a user, and their login tokens, which would begin another; say
        how many sessions there were.
        """

    def links_of(self, user_id: str | None, claim: Claim | None) -> list[Link]:
        """Read the link of a user ID, and those of a claim under any of its names."""

    def links(self) -> list[Link]:
        """Read all links, in the order of their user IDs."""

    def insert_link(self, link: Link, linked_at: int, instead_of: Sequence[Link]) -> None:
        """Insert a link that nothing stands in the way of but the links that it replaces.

        These are deleted, as :meth:`delete_link` does.

        :param linked_at: milliseconds since the epoch.
        """

    def delete_link(self, link: Link) -> None:
        """Delete a link, and its user's login tokens, which the linked account made."""

    def token_keys(self) -> list[TokenKey]:
        """Read the keys that tokens are made under, or were, by id."""

    def insert_keys(self, keys: Sequence[TokenKey]) -> None:
        """Insert the keys, but for those whose ids are there."""

    def retire_key(self, key_id: int) -> bool:
        """Mark a key as retired; say whether it is there."""

    def login_token(self, token_id: int) -> LoginTokenRow | None:
        """Read one login token."""

    def insert_login_token(self, row: LoginTokenRow, now: int) -> None:
        """Insert a login token, and delete those that have expired by now."""

    def delete_login_token(self, token_id: int) -> bool:
        """Delete one login token; say whether it was there."""


class Database(Protocol):
    """Somewhere to keep rows."""

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Do some work in one transaction, perhaps on another thread, perhaps more than once.

        :return: fires with what ``work`` returned, once that is durable. Fails with what it
            raised, and then nothing is written; or with
            :class:`~synapse_login_module.errors.StoreUnavailable`.
        """
