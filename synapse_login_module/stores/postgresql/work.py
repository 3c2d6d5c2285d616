"""A piece of work for the database: the work itself, its attempts, and the Deferred for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.operations import (
    CompareAndSwap,
    Delete,
    DeleteLink,
    DeleteLoginToken,
    Found,
    Insert,
    InsertLink,
    Key,
    LinksKey,
    LoginTokenKey,
    SessionKey,
    Write,
)
from synapse_login_module.stores.postgresql.optimistic import Execution, execute_on
from synapse_login_module.stores.rows import Rows


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The limits of a connection pool.

    :param connections: the most open connections.
    :param batch: the most pieces of work that share a transaction.
    :param queue: the most pieces of work that wait.
    :param timeout: the seconds after which the Deferred of a piece of work fails.
    """

    connections: int
    batch: int
    queue: int
    timeout: float


@dataclass(slots=True, eq=False)
class Piece:
    """A piece of work.

    :ivar work: the work on rows.
    :ivar done: the Deferred that fires with the result.
    :ivar statements: statements to run as they are, instead of work on rows.
    :ivar writes: whether these write.
    :ivar attempts: the number of failed attempts.
    :ivar alone: whether it gets a transaction of its own, as after a shared transaction failed.
    :ivar in_doubt: the last execution, if the connection was lost after its write was sent. The
        write may have been committed or not.
    """

    work: Callable[[Rows], Any]
    done: Deferred[Any]
    statements: Sequence[Statement] = ()
    writes: bool = False
    attempts: int = 0
    alone: bool = False
    in_doubt: Execution | None = None

    def finish(self, result: Any) -> None:
        """Fire the Deferred, unless it has timed out. The result may be a failure."""
        if not self.done.called:
            self.done.callback(result)

    def execute_on(self, found: Found) -> Execution:
        """Run the work on fetched rows, unless a write in doubt turns out to be committed."""
        if self.in_doubt is not None:
            write = self.in_doubt.write
            assert isinstance(write, CompareAndSwap | Insert)
            session = write.new if isinstance(write, CompareAndSwap) else write.session
            if found.get(SessionKey(session.session_id)) == session:
                return Execution(result=self.in_doubt.result)
        return execute_on(self.work, found)


def nothing(rows: Rows) -> None:
    """Do nothing; the work of a piece that runs statements."""


def keys_of(write: Write | None) -> set[Key]:
    """Return the keys of the rows in a write that other pieces of work may write too."""
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
