"""Work on rows that are elsewhere: run until it asks for a row, and run again once that is here.

No transaction stays open while work is done. What it reads is fetched for many pieces in one
query; what it writes is kept until it has ended, and then written only where everything that it
went by still stands. Where it does not, the work is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.python.failure import Failure

from synapse_login_module.model import Claim, Link, Session, TokenKey
from synapse_login_module.stores.rows import LoginTokenRow, Rows

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class SessionKey:
    """One session, by its number."""

    session_id: int


@dataclass(frozen=True, slots=True)
class UserKey:
    """The sessions of a user, or all."""

    user_id: str | None


@dataclass(frozen=True, slots=True)
class LoginTokenKey:
    """One login token, by its number."""

    token_id: int


@dataclass(frozen=True, slots=True)
class OwnerKey:
    """One session and the link of its user, by the session's number."""

    session_id: int


@dataclass(frozen=True, slots=True)
class LinksKey:
    """The link of a user ID, and those of a claim; all, where neither is given."""

    user_id: str | None = None
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class NewSessionKey:
    """The session, if there is one, that has a number that was drawn for a new one."""

    session_id: int


@dataclass(frozen=True, slots=True)
class TokenKeysKey:
    """The keys that tokens are made under, or were."""


Key = SessionKey | UserKey | LoginTokenKey | OwnerKey | LinksKey | NewSessionKey | TokenKeysKey
"""What can be asked for."""


@dataclass(frozen=True, slots=True)
class CompareAndSwap:
    """To be written where ``old`` still stands."""

    old: Session
    new: Session


@dataclass(frozen=True, slots=True)
class Insert:
    """To be inserted, in the place of any other of its user and device.

    :param login_token: a login token that is used up for it; where it is gone, nothing is inserted.
    :param link: the link of its user; where it is gone, nothing is inserted.
    :param new: whether the link is inserted too; where another stands in its way, nothing is.
    """

    session: Session
    login_token: int | None = None
    link: Link | None = None
    new: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """To be deleted, those that are there.

    :param user_id: whose login tokens are deleted too.
    """

    session_ids: tuple[int, ...]
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class InsertLoginToken:
    """To be inserted; those that have expired by now are deleted."""

    row: LoginTokenRow
    now: int


@dataclass(frozen=True, slots=True)
class DeleteLoginToken:
    """To be deleted, if it is still there."""

    token_id: int


@dataclass(frozen=True, slots=True)
class InsertLink:
    """To be inserted, after others were deleted, unless one stands in its way then."""

    link: Link
    linked_at: int
    instead_of: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """To be deleted, if it is still there, and the login tokens of its user."""

    link: Link


@dataclass(frozen=True, slots=True)
class InsertKeys:
    """To be inserted, those whose ids are not there."""

    keys: tuple[TokenKey, ...]


@dataclass(frozen=True, slots=True)
class RetireKey:
    """To be marked as retired, if it is there."""

    key_id: int


Write = (
    CompareAndSwap
    | Insert
    | Delete
    | InsertLoginToken
    | DeleteLoginToken
    | InsertLink
    | DeleteLink
    | InsertKeys
    | RetireKey
)
"""What can be written."""

Found = dict[Key, Any]
"""What was fetched: for each key the row, or the rows, or ``None``."""


class Assumed:
    """What was found, and in the place of what a login mostly finds what it mostly is: that no
    session has the number that was drawn, and that nobody else has the user ID or the account.

    An :class:`Insert` may rely on this: it inserts the link, or finds it as it would have been
    inserted, and fails where another link is in its way or the number is taken. No other write may.

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
            # An account that is linked under a former name of its provider is not to be overlooked.
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
    """Rows are asked for that have not been fetched; no work is to catch it."""

    def __init__(self, *keys: Key) -> None:
        super().__init__(*keys)
        self.keys = keys


@dataclass(slots=True)
class Execution:
    """What came of running some work.

    :ivar absent: what has to be fetched before it can be run again; nothing when it has ended.
    :ivar result: what the work returned, or the failure of what it raised.
    :ivar write: what must be written before the result is true.
    """

    absent: tuple[Key, ...] = ()
    result: Any = None
    write: Write | None = None


def execute_on(
    work: Callable[[Rows], Any], found: Mapping[Key, Any] | Assumed, remembered: bool = False
) -> Execution:
    """Run some work on what was fetched.

    :param remembered: whether that was not just now.
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

    What stands for two writes in one is that a login token is dropped, and then a session inserted.
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
        """Say whether a number may be drawn for a new session."""
        return self._read(NewSessionKey(session_id)) is None

    def reread(self, session_id: int) -> Session | None:
        """Read one session; have it fetched, where it is remembered."""
        if self._remembered:
            raise _Absent(SessionKey(session_id))
        return self.session(session_id)

    def together(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Read two things; what is absent of both is fetched in one round trip."""
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

    def sessions(self, user_id: str | None) -> list[Session]:
        """Read the sessions of a user, or all."""
        sessions: list[Session] = self._read(UserKey(user_id))
        return sessions

    def insert(self, session: Session, link: Link | None = None, new: bool = False) -> None:
        """Insert a session in the place of its user's and device's earlier one."""
        used, self.write = self.write, None
        if isinstance(used, DeleteLoginToken) and link is None:
            self._write(Insert(session, used.token_id))
        else:
            self.write = used
            self._write(Insert(session, link=link, new=new))

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Compare with what was fetched, and swap what is in the database."""
        if self.session(old.session_id) != old:
            return False
        self._write(CompareAndSwap(old, new))
        return True

    def delete(self, session_id: int) -> None:
        """Delete one session."""
        self._write(Delete((session_id,)))

    def delete_user(self, user_id: str) -> int:
        """Delete a user's sessions, as they were when they were read, and login tokens."""
        session_ids = tuple(each.session_id for each in self.sessions(user_id))
        self._write(Delete(session_ids, user_id))
        return len(session_ids)

    def links_of(self, user_id: str | None, claim: Claim | None) -> list[Link]:
        """Read the link of a user ID, and those of a claim."""
        found: list[Link] = self._read(LinksKey(user_id, claim))
        return found

    def links(self) -> list[Link]:
        """Read all links."""
        return self.links_of(None, None)

    def insert_link(self, link: Link, linked_at: int, instead_of: Sequence[Link]) -> None:
        """Insert a link in the place of others."""
        self._write(InsertLink(link, linked_at, tuple(instead_of)))

    def delete_link(self, link: Link) -> None:
        """Delete a link and the login tokens of its user."""
        self._write(DeleteLink(link))

    def token_keys(self) -> list[TokenKey]:
        """Read the keys."""
        keys: list[TokenKey] = self._read(TokenKeysKey())
        return keys

    def insert_keys(self, keys: Sequence[TokenKey]) -> None:
        """Insert the keys that are not there."""
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
