"""The interface between a store of derived tokens and its database: reading and writing rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

from synapse_login_module.model import Claim, Link, Session, TokenKey

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

SESSION_COLUMNS = ", ".join(Session._fields)
"""The columns of a session in SQL, in the order of its fields."""


@dataclass(frozen=True, slots=True)
class LoginTokenRow:
    """The row of one unused login token.

    :param token_id: a positive 63-bit number, the primary key.
    :param salt: 16 random bytes.
    :param expires_at: milliseconds since the epoch.
    """

    token_id: int
    user_id: str
    salt: bytes
    expires_at: int


class Rows(Protocol):
    """The rows of a database, as seen inside one transaction.

    :ivar writes_once: whether a piece of work may make one write only.
    """

    writes_once: bool

    def session(self, session_id: int) -> Session | None:
        """Read one session."""

    def is_free(self, session_id: int) -> bool:
        """Return whether no session has a number. The caller then inserts a session with it.

        A remote database may assume that the number is free. If it is not, the insertion fails and
        the work is run again.
        """

    def reread(self, session_id: int) -> Session | None:
        """Read the current row of a session. :meth:`session` may return a cached row."""

    def together(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Run two reads that do not depend on each other.

        A remote database fetches the rows of both in one round trip.
        """

    def owner(self, session_id: int) -> tuple[Session, Link | None] | None:
        """Read one session, and the link of its user."""

    def sessions(self, user_id: str) -> list[Session]:
        """Read the sessions of a user, oldest first."""

    def page(self, user_id: str | None, after: int, most: int) -> list[Session]:
        """Read sessions of a user, or of all users, in the order of their numbers.

        :param after: read only sessions with higher numbers.
        :param most: the most sessions to read.
        """

    def insert(
        self,
        session: Session,
        link: Link | None = None,
        new: bool = False,
        reserved: bool = False,
    ) -> None:
        """Insert a session, and delete any other session of its user and device.

        :param link: the link of the session's user. It was read before or, if ``new``, no link that
            was read conflicts with it. If that has changed, the work is run again.
        :param new: whether to insert the link too, unless it exists already. Its ``linked_at`` is
            the session's ``created_at``.
        :param reserved: whether to end the reservation of the device, which was read before. If it
            has ended since, the work is run again.
        """

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Write ``new`` if the row is still ``old``; return whether it was."""

    def delete(self, session_id: int, note: int | None = None) -> None:
        """Delete one session, if it exists.

        :param note: when its device is due to be deleted at the homeserver, in milliseconds since
            the epoch; ``None`` to note nothing.
        """

    def delete_user(self, user_id: str, note: int | None = None) -> int:
        """Delete every session of a user, and the user's login tokens.

        :param note: as for :meth:`delete`.
        :return: the number of sessions deleted.
        """

    def delete_device(self, user_id: str, device_id: str, note: int) -> None:
        """Delete the session of a device, if there is one, and note the device in any case.

        :param note: as for :meth:`delete`.
        """

    def is_reserved(self, user_id: str, device_id: str) -> bool:
        """Return whether a device is reserved. The caller then inserts a session on it.

        It is reserved from when it is noted until a server leases it to delete it. A remote
        database may assume that it is reserved. If it is not, the insertion fails and the work is
        run again.
        """

    def links_of(self, user_id: str | None, claim: Claim | None) -> list[Link]:
        """Read the link of a user ID, and the links of a claim under any name of its provider."""

    def links(self) -> list[Link]:
        """Read all links, in the order of their user IDs."""

    def insert_link(self, link: Link, linked_at: int, instead_of: Sequence[Link]) -> None:
        """Insert a link, after deleting others as :meth:`delete_link` does.

        :param linked_at: milliseconds since the epoch.
        :param instead_of: the links that conflict with the new one.
        """

    def delete_link(self, link: Link) -> None:
        """Delete a link, and the login tokens of its user, which the linked account requested."""

    def token_keys(self) -> list[TokenKey]:
        """Read the keys that tokens are or were derived under, ordered by id."""

    def insert_keys(self, keys: Sequence[TokenKey]) -> None:
        """Insert the keys whose ids do not exist yet."""

    def retire_key(self, key_id: int) -> bool:
        """Mark a key as retired; return whether it exists."""

    def login_token(self, token_id: int) -> LoginTokenRow | None:
        """Read one login token."""

    def insert_login_token(self, row: LoginTokenRow, now: int) -> None:
        """Insert a login token, and delete all expired ones.

        :param now: milliseconds since the epoch.
        """

    def delete_login_token(self, token_id: int) -> bool:
        """Delete one login token; return whether it existed."""


class Database(Protocol):
    """A database that holds the rows of a store."""

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run work in one transaction.

        The work may run on another thread, and more than once.

        :return: fires with what ``work`` returned, once its writes are durable. Fails with what
            ``work`` raised, with nothing written, or with
            :class:`~synapse_login_module.errors.StoreUnavailable`.
        """

    def read(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run work that only reads, and may take a while. No writer waits for it.

        :return: as of :meth:`run`.
        """
