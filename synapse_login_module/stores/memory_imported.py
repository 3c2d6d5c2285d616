"""The digests of imported tokens in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed

from synapse_login_module.model import ImportedSession, ImportOutcome, Link, Session
from synapse_login_module.stores.imported import (
    Existing,
    NewSession,
    Owner,
    PrunedTokens,
    decide,
    kinds_of,
)
from synapse_login_module.tokens.format import TokenKind


class MemoryRows(Protocol):
    """The rows in memory, as far as importing needs them."""

    def session(self, session_id: int) -> Session | None:
        """Read one session."""

    def sessions(self, user_id: str | None) -> list[Session]:
        """Read the sessions of a user, or all sessions."""

    def insert(self, session: Session, link: Link | None = None, new: bool = False) -> None:
        """Insert a session."""

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Write a session's row, unless it has changed."""


class _Token(NamedTuple):
    session_id: int
    kind: int


class MemoryImportedTokens:
    """See :class:`~synapse_login_module.stores.imported.ImportedTokens`.

    :param rows: the rows of the sessions.
    :param is_owed: whether a device is to be deleted at the homeserver.
    """

    def __init__(self, rows: MemoryRows, is_owed: Callable[[str, str], bool]) -> None:
        self._rows = rows
        self._is_owed = is_owed
        self._tokens: dict[bytes, _Token] = {}

    def any(self) -> Deferred[bool]:
        """Find out whether there are any."""
        return succeed(bool(self._tokens))

    def find(self, digest: bytes, kind: TokenKind) -> Deferred[Owner | None]:
        """Find the session of a token."""
        token = self._tokens.get(digest)
        if token is None or token.kind != kind.number:
            return succeed(None)
        session = self._rows.session(token.session_id)
        return succeed(None if session is None else Owner(session.session_id, session.salt))

    def insert(
        self, wanted: Sequence[NewSession], write: bool
    ) -> Deferred[list[ImportOutcome | None]]:
        """Decide on each session and write its rows."""
        return succeed([self._insert(each, write) for each in wanted])

    def _insert(self, each: NewSession, write: bool) -> ImportOutcome | None:
        given, row = each
        session = self._session(given)
        there = session and Existing(
            session.session_id, session.generation, self._digests(session.session_id)
        )
        is_spent = self._is_owed(given.user_id, given.device_id)
        is_spent = is_spent or not self._tokens.keys().isdisjoint(given.tokens)
        outcome = decide(given, there, is_spent)
        if not write or outcome not in (ImportOutcome.TAKEN, ImportOutcome.RENEWED):
            return outcome
        number = row.session_id
        if session is None:
            if self._rows.session(number) is not None:
                return None
            self._rows.insert(row)
        else:
            number = session.session_id
            for digest in self._digests(number):
                del self._tokens[digest]
            times = row._asdict()
            renewed = ("issued_at", "access_expires_at", "previous_expires_at")
            self._rows.compare_and_swap(
                session, session._replace(**{name: times[name] for name in renewed})
            )
        for digest, kind in kinds_of(given):
            self._tokens.setdefault(digest, _Token(number, kind))
        return outcome

    def prune(self, after: int, last: int | None, scan: int, most: int) -> Deferred[PrunedTokens]:
        """Delete one batch of digests that are useless."""
        in_range = sorted(
            (token.session_id, digest)
            for digest, token in self._tokens.items()
            if token.session_id > after and (last is None or token.session_id <= last)
        )
        reached = in_range[scan - 1][0] if len(in_range) >= scan else None
        useless = [
            each
            for each in in_range
            if (reached is None or each[0] <= reached) and self._is_useless(each[0])
        ][:most]
        for _, digest in useless:
            del self._tokens[digest]
        if len(useless) == most:
            # The last session may have further digests, so it is looked at again.
            reached = useless[-1][0] - 1
        return succeed(PrunedTokens(len(useless), reached))

    def _is_useless(self, session_id: int) -> bool:
        session = self._rows.session(session_id)
        return session is None or session.generation > (0 if session.confirmed else 1)

    def _session(self, given: ImportedSession) -> Session | None:
        on_device = (
            each for each in self._rows.sessions(given.user_id) if each.device_id == given.device_id
        )
        return next(on_device, None)

    def _digests(self, session_id: int) -> frozenset[bytes]:
        return frozenset(
            digest for digest, token in self._tokens.items() if token.session_id == session_id
        )
