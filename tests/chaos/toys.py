"""Token stores made of dictionaries, one of them right and the others wrong in one way each.

Their tokens are drawn at random and stored, unlike the service's own, which are derived: so they
can go wrong in every way that the checker is for. A refresh has two halves, a read and a write, so
that two of them can come between one another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tests.chaos.history import Pair


@dataclass(frozen=True, slots=True)
class Row:
    """A session."""

    pair: Pair
    previous: Pair | None = None
    confirmed: bool = True


class ToyStore:
    """A store that does it right: compares and swaps, and commits before it answers.

    :param random: where tokens come from.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._rows: dict[str, Row] = {}
        self._disk: dict[str, Row] = {}

    @property
    def sessions(self) -> frozenset[str]:
        """Which sessions there are."""
        return frozenset(self._rows)

    def log_in(self, session: str) -> Pair:
        """Begin a session."""
        pair = self._new_pair()
        self._write(session, Row(pair))
        return pair

    def log_out(self, session: str, pair: Pair) -> bool:
        """End a session."""
        if not self.session_for_access_token(session, pair):
            return False
        self._write(session, None)
        return True

    def read(self, session: str) -> Row | None:
        """The first half of a refresh."""
        return self._rows.get(session)

    def refresh(self, session: str, read: Row | None, pair: Pair, strict: bool) -> Pair | None:
        """Run the second half of a refresh.

        :param read: the row that the first half read.
        :return: the new pair, or ``None`` if the pair is rejected.
        """
        row = self._as_it_is(session, read)
        if row is None:
            return None
        if pair == row.pair:
            row = Row(self._new_pair(), row.pair, strict)
        elif pair == row.previous and self._may_repeat(row):
            row = replace(row, confirmed=row.confirmed or strict)
        else:
            return None
        self._write(session, row)
        return row.pair

    def session_for_access_token(self, session: str, pair: Pair) -> bool:
        """Whether an access token is good; its first use confirms it."""
        row = self._rows.get(session)
        if row is None:
            return False
        if pair == row.pair:
            if not row.confirmed:
                self._write(session, replace(row, confirmed=True))
            return True
        return pair == row.previous and self._may_repeat(row)

    def crash(self) -> None:
        """Lose what is not on the disk, and start again."""
        self._rows = dict(self._disk)

    def _as_it_is(self, session: str, read: Row | None) -> Row | None:
        return self._rows.get(session)

    def _may_repeat(self, row: Row) -> bool:
        return not row.confirmed

    def _write(self, session: str, row: Row | None) -> None:
        if row is None:
            del self._rows[session]
        else:
            self._rows[session] = row
        self._commit()

    def _commit(self) -> None:
        self._disk = dict(self._rows)

    def _new_pair(self) -> Pair:
        return Pair(f"a{self._random.getrandbits(64):x}", f"r{self._random.getrandbits(64):x}")


class AcknowledgesFirst(ToyStore):
    """Answers at once, and commits every eighth time."""

    _writes = 0

    def _commit(self) -> None:
        self._writes += 1
        if self._writes % 8 == 0:
            super()._commit()


class ReadsThenWrites(ToyStore):
    """Rotates what it read, whatever has happened since."""

    def _as_it_is(self, session: str, read: Row | None) -> Row | None:
        return read if session in self._rows else None


class Revives(ToyStore):
    """Takes the pair before the last for ever, as if its successor were never used."""

    def _may_repeat(self, row: Row) -> bool:
        return True


class Forgets(ToyStore):
    """Keeps no session past a crash that never refreshed."""

    def crash(self) -> None:
        self._rows = {session: row for session, row in self._disk.items() if row.previous}
