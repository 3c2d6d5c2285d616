"""A piece of work: what is asked, what was tried, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.optimistic import (
    CompareAndSwap,
    Delete,
    DeleteLink,
    DeleteLoginToken,
    Execution,
    Found,
    Insert,
    InsertLink,
    Key,
    LinksKey,
    LoginTokenKey,
    SessionKey,
    Write,
    execute_on,
)
from synapse_login_module.stores.rows import Rows


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much, and for how long.

    :param connections: open at most.
    :param batch: pieces of work that share a transaction at most.
    :param queue: pieces of work that wait at most.
    :param timeout: seconds within which each piece is answered.
    """

    connections: int
    batch: int
    queue: int
    timeout: float


@dataclass(slots=True, eq=False)
class Piece:
    """A piece of work.

    :ivar statements: where it is no work on rows, but statements that are run as they are.
    :ivar attempts: how often it was begun in vain.
    :ivar alone: whether it shares no transaction any more, since one that it was in failed.
    :ivar in_doubt: what was sent on a connection that was lost: it may have been written.
    """

    work: Callable[[Rows], Any]
    done: Deferred[Any]
    statements: Sequence[Statement] = ()
    attempts: int = 0
    alone: bool = False
    in_doubt: Execution | None = None

    def finish(self, result: Any) -> None:
        """Answer whoever still waits; a failure is a result too."""
        if not self.done.called:
            self.done.callback(result)

    def execute_on(self, found: Found) -> Execution:
        """Do the work on what was fetched, unless it turns out to have been done before."""
        if self.in_doubt is not None:
            write = self.in_doubt.write
            assert isinstance(write, CompareAndSwap | Insert)
            session = write.new if isinstance(write, CompareAndSwap) else write.session
            if found.get(SessionKey(session.session_id)) == session:
                return Execution(result=self.in_doubt.result)
        return execute_on(self.work, found)


def nothing(rows: Rows) -> None:
    """No work on rows."""


def keys_of(write: Write | None) -> set[Key]:
    """The keys of the rows that are written and others may write too."""
    if isinstance(write, CompareAndSwap):
        return {SessionKey(write.old.session_id)}
    if isinstance(write, Delete):
        return {SessionKey(number) for number in write.session_ids}
    if isinstance(write, DeleteLoginToken):
        return {LoginTokenKey(write.token_id)}
    if isinstance(write, InsertLink | DeleteLink):
        return {LinksKey(write.link.user_id)}
    if isinstance(write, Insert) and write.login_token is not None:
        return {LoginTokenKey(write.login_token)}
    return set()
