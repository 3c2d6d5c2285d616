"""What the SQL provider needs from a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Rows = Sequence[Mapping[str, Any]]

MOST_ROWS = 10
"""The number of rows that are read of a statement's result."""


class Driver(Protocol):
    """What differs between databases. Except for ``cut`` and ``describe``, methods are called on a
    thread of the pool.

    :ivar key: the key of the configuration that names the database.
    :ivar parameter: a regular expression for a parameter in a statement.
    :ivar stray: a regular expression for what no statement may contain; ``None`` for nothing.
    :ivar errors: the exceptions that the database raises.
    :ivar exact: whether it compares text exactly, unless a statement says otherwise.
    :ivar lasting: whether a connection is kept for the next statement.
    :ivar unverified_host: the server's host, if its certificate is not verified; else ``None``.
    :ivar to_verify: what to do to have it verified.
    """

    key: str
    parameter: str
    stray: str | None
    errors: tuple[type[Exception], ...]
    exact: bool
    lasting: bool
    unverified_host: str | None
    to_verify: str

    def connect(self) -> Any:
        """Connect, in autocommit mode: each statement is a transaction."""

    def begin(self, connection: Any) -> None:
        """Set up a new connection before its first statement."""

    def run(self, connection: Any, statement: str, values: Mapping[str, str]) -> tuple[Rows, int]:
        """Run a statement; return its first rows, and the database's count of rows.

        A value that the database cannot store is found in no row.
        """

    def is_broken(self, connection: Any, error: Exception) -> bool:
        """Say whether an error means that the connection is of no more use."""

    def cut(self, connection: Any) -> None:
        """Make the running statement end soon; called on another thread."""

    def describe(self, error: Exception) -> str:
        """Describe an error in one line, without the values of a statement."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__
