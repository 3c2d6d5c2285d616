"""Optimistic concurrency control: runs pieces of work on the rows of a remote database.

The work runs until it reads a row that has not been fetched. The row is fetched, and the work is
run again from its start. No transaction stays open in the meantime, and one query fetches the rows
for many pieces of work. A write is kept until the work has ended. Then it is made only if
everything that the work relied on is still so; if not, the work is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.python.failure import Failure

from synapse_login_module.model import Claim, Link, Session, TokenKey
from synapse_login_module.stores.postgresql.operations import (
    CompareAndSwap,
    Delete,
    DeleteDevice,
    DeleteLink,
    DeleteLoginToken,
    Insert,
    InsertKeys,
    InsertLink,
    InsertLoginToken,
    Key,
    LinksKey,
    LoginTokenKey,
    NewSessionKey,
    OwnerKey,
    PageKey,
    ReservationKey,
    RetireKey,
    SessionKey,
    TokenKeysKey,
    UserKey,
    Write,
)
from synapse_login_module.stores.rows import LoginTokenRow, Rows

A = TypeVar("A")
B = TypeVar("B")


class Assumed:
    """The fetched rows, and assumptions in place of rows that a login reads.

    It assumes what is so for most logins: no session has the number drawn, no other link has the
    user ID or the account, and the device is reserved. Only an :class:`~.operations.Insert` may
    rely on this. It inserts the link unless that very link exists. It fails if another link
    conflicts, the number is taken, or the device has to be reserved and is not.

    :param found: the rows by key.
    :ivar used: whether anything was assumed.
    """

    def __init__(self, found: Mapping[Key, Any]) -> None:
        self._found = found
        self.used = False

    def __getitem__(self, key: Key) -> Any:
        try:
            return self._found[key]
        except KeyError:
            if isinstance(key, NewSessionKey):
                self.used = True
                return None
            if isinstance(key, ReservationKey):
                self.used = True
                return True
            # A provider with former names is never assumed about: the account may be linked under
            # one of them, which the insertion would not notice.
            if (
                isinstance(key, LinksKey)
                and key.user_id is not None
                and key.claim is not None
                and len(key.claim.providers) == 1
            ):
                self.used = True
                return []
            raise


class _Absent(BaseException):
    """Work reads rows that have not been fetched. No work catches a ``BaseException``."""

    def __init__(self, *keys: Key) -> None:
        super().__init__(*keys)
        self.keys = keys


@dataclass(slots=True)
class Execution:
    """The outcome of running work.

    :ivar absent: the keys to fetch before the work is run again; empty if the work has ended.
    :ivar result: what the work returned, or a failure if it raised.
    :ivar write: the write that has to be committed before the result counts.
    """

    absent: tuple[Key, ...] = ()
    result: Any = None
    write: Write | None = None


def execute_on(
    work: Callable[[Rows], Any], found: Mapping[Key, Any] | Assumed, remembered: bool = False
) -> Execution:
    """Run work on fetched rows.

    :param remembered: whether the rows are from the cache, and so may have changed.
    """
    rows = _FetchedRows(found, remembered)
    try:
        result = work(rows)
    except _Absent as absent:
        return Execution(absent=absent.keys)
    except Exception:
        return Execution(result=Failure())
    return Execution(result=result, write=rows.write)


class _FetchedRows:
    """:class:`~synapse_login_module.stores.rows.Rows` of work that writes once.

    Deleting a login token and then inserting a session counts as one write.
    """

    writes_once = True

    def __init__(self, found: Mapping[Key, Any] | Assumed, remembered: bool) -> None:
        self._found = found
        self._remembered = remembered
        self.write: Write | None = None

    def session(self, session_id: int) -> Session | None:
        """Read one session."""
        session: Session | None = self._read(SessionKey(session_id))
        return session

    def is_free(self, session_id: int) -> bool:
        """Return whether no session has a number."""
        return self._read(NewSessionKey(session_id)) is None

    def reread(self, session_id: int) -> Session | None:
        """Read one session; fetch it if the rows are from the cache."""
        if self._remembered:
            raise _Absent(SessionKey(session_id))
        return self.session(session_id)

    def together(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Run two reads; fetch the absent rows of both in one round trip."""
        try:
            one = first()
        except _Absent as absent:
            try:
                second()
            except _Absent as more:
                raise _Absent(*absent.keys, *more.keys) from None
            raise
        return one, second()

    def owner(self, session_id: int) -> tuple[Session, Link | None] | None:
        """Read one session and the link of its user."""
        owner: tuple[Session, Link | None] | None = self._read(OwnerKey(session_id))
        return owner

    def sessions(self, user_id: str) -> list[Session]:
        """Read the sessions of a user."""
        sessions: list[Session] = self._read(UserKey(user_id))
        return sessions

    def page(self, user_id: str | None, after: int, most: int) -> list[Session]:
        """Read sessions in the order of their numbers."""
        sessions: list[Session] = self._read(PageKey(user_id, after, most))
        return sessions

    def insert(
        self,
        session: Session,
        link: Link | None = None,
        new: bool = False,
        reserved: bool = False,
    ) -> None:
        """Insert a session, and delete the earlier one of its user and device."""
        used, self.write = self.write, None
        if isinstance(used, DeleteLoginToken) and link is None:
            self._write(Insert(session, used.token_id, reserved=reserved))
        else:
            self.write = used
            self._write(Insert(session, link=link, new=new, reserved=reserved))

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Compare with the fetched row now, and with the row in the database when writing."""
        if self.session(old.session_id) != old:
            return False
        self._write(CompareAndSwap(old, new))
        return True

    def delete(self, session_id: int, note: int | None = None) -> None:
        """Delete one session."""
        self._write(Delete((session_id,), note=note))

    def delete_user(self, user_id: str, note: int | None = None) -> int:
        """Delete a user's sessions, those that were read, and login tokens."""
        session_ids = tuple(each.session_id for each in self.sessions(user_id))
        self._write(Delete(session_ids, user_id, note))
        return len(session_ids)

    def delete_device(self, user_id: str, device_id: str, note: int) -> None:
        """Delete the session of a device, and note the device."""
        self._write(DeleteDevice(user_id, device_id, note))

    def is_reserved(self, user_id: str, device_id: str) -> bool:
        """Return whether a device is reserved."""
        reserved: bool = self._read(ReservationKey(user_id, device_id))
        return reserved

    def links_of(self, user_id: str | None, claim: Claim | None) -> list[Link]:
        """Read the link of a user ID, and the links of a claim."""
        found: list[Link] = self._read(LinksKey(user_id, claim))
        return found

    def links(self) -> list[Link]:
        """Read all links."""
        return self.links_of(None, None)

    def insert_link(self, link: Link, linked_at: int, instead_of: Sequence[Link]) -> None:
        """Insert a link, after deleting others."""
        self._write(InsertLink(link, linked_at, tuple(instead_of)))

    def delete_link(self, link: Link) -> None:
        """Delete a link and the login tokens of its user."""
        self._write(DeleteLink(link))

    def token_keys(self) -> list[TokenKey]:
        """Read the keys."""
        keys: list[TokenKey] = self._read(TokenKeysKey())
        return keys

    def insert_keys(self, keys: Sequence[TokenKey]) -> None:
        """Insert the keys whose ids do not exist yet."""
        self._write(InsertKeys(tuple(keys)))

    def retire_key(self, key_id: int) -> bool:
        """Mark a key as retired."""
        if key_id not in [key.key_id for key in self.token_keys()]:
            return False
        self._write(RetireKey(key_id))
        return True

    def login_token(self, token_id: int) -> LoginTokenRow | None:
        """Read one login token."""
        row: LoginTokenRow | None = self._read(LoginTokenKey(token_id))
        return row

    def insert_login_token(self, row: LoginTokenRow, now: int) -> None:
        """Insert a login token and delete the expired ones."""
        self._write(InsertLoginToken(row, now))

    def delete_login_token(self, token_id: int) -> bool:
        """Delete one login token."""
        if self.login_token(token_id) is None:
            return False
        self._write(DeleteLoginToken(token_id))
        return True

    def _read(self, key: Key) -> Any:
        try:
            return self._found[key]
        except KeyError:
            raise _Absent(key) from None

    def _write(self, write: Write) -> None:
        if self.write is not None:
            raise RuntimeError("one piece of work writes once")
        self.write = write
