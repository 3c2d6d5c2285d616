"""Imported sessions: sessions of a homeserver whose clients still have that homeserver's tokens.

The store keeps the SHA-256 digest of each imported token, and the number of its session. An
imported token that is presented is exchanged for the token of generation 0 of that session, which
is derived on the spot. From there on everything is as for a session that began here: which token
is good, what a refresh does and what counts as reuse. The client gets tokens of this server with
its first refresh. Tokens in this server's own form never come here.

A digest counts only while its session has a row. Pruning deletes it some time after that, or after
the first refresh is confirmed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.common.lru import Recent
from synapse_login_module.interfaces import IImportsSessions
from synapse_login_module.model import (
    ImportedSession,
    ImportOutcome,
    PresentedToken,
    Pruned,
    Session,
    SessionInfo,
    TokenPair,
)
from synapse_login_module.stores.delegation import DelegatedTokenStore
from synapse_login_module.stores.names import free_id
from synapse_login_module.tokens import over
from synapse_login_module.tokens.format import SALT_SIZE, TokenKind

LIFETIME = 1.0
"""Seconds for which a store without imported tokens is believed to have none.

Another process may import some at any time. Without this, each text that is no token would cost a
query, also where nothing was ever imported.
"""

_REMEMBERED = 10_000
_LONGEST = 4096


class Owner(NamedTuple):
    """The session of an imported token."""

    session_id: int
    salt: bytes


class NewSession(NamedTuple):
    """A session to import, and the row that it gets unless its device has one."""

    given: ImportedSession
    row: Session


class Existing(NamedTuple):
    """The session that a device has.

    :param tokens: the digests of its imported tokens that the store still has.
    """

    session_id: int
    generation: int
    tokens: frozenset[bytes]


class PrunedTokens(NamedTuple):
    """The result of one batch of pruning.

    :param after: the number of the session at which the batch ended; ``None`` after the last.
    """

    number: int
    after: int | None


class ImportedTokens(Protocol):
    """The digests of imported tokens in a database."""

    def any(self) -> Deferred[bool]:
        """Find out whether there are any."""

    def find(self, digest: bytes, kind: TokenKind) -> Deferred[Owner | None]:
        """Find the session of a token."""

    def insert(
        self, wanted: Sequence[NewSession], write: bool
    ) -> Deferred[list[ImportOutcome | None]]:
        """Decide on each session by :func:`decide` and write the rows, in one transaction.

        :param write: ``False`` to decide only.
        :return: fires with the outcomes; ``None`` where another session took the number of the row
            or the device in the meantime, so that nothing was written.
        """

    def prune(self, after: int, last: int | None, scan: int, most: int) -> Deferred[PrunedTokens]:
        """Delete one batch of digests whose tokens can no longer be used.

        These are the digests of sessions that have no row, or of which a later generation is
        confirmed.

        :param after: look only at sessions with higher numbers, in their order.
        :param last: the highest number to look at; ``None`` for no limit.
        :param scan: the most digests to look at.
        :param most: the most digests to delete.
        """


def decide(wanted: ImportedSession, there: Existing | None, is_spent: bool) -> ImportOutcome:
    """Decide whether a session is taken over.

    :param there: the session that its device has here.
    :param is_spent: whether the store has one of its digests, or has noted that its device is to be
        deleted at the homeserver, because a session on it has ended here.
    """
    if there is None:
        return ImportOutcome.ENDED if is_spent else ImportOutcome.TAKEN
    if not there.tokens:
        return ImportOutcome.IN_USE
    if there.generation > 0 or there.tokens == wanted.tokens:
        return ImportOutcome.KNOWN
    return ImportOutcome.RENEWED


def kinds_of(session: ImportedSession) -> list[tuple[bytes, int]]:
    """Return the digests of a session, each with the number of its kind."""
    return sorted(
        [(digest, TokenKind.ACCESS.number) for digest in session.access_tokens]
        + [(digest, TokenKind.REFRESH.number) for digest in session.refresh_tokens]
    )


@implementer(IImportsSessions)
class ImportingTokenStore(DelegatedTokenStore):
    """A store of derived tokens that accepts imported tokens too.

    :ivar imported: the digests, in the same database.
    """

    imported: ImportedTokens

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._sessions_of: Recent[tuple[TokenKind, bytes], Owner] = Recent(_REMEMBERED)
        self._has_any = False
        self._had_none_at: float | None = None

    def import_sessions(
        self, batch: Sequence[ImportedSession], write: bool = True
    ) -> Deferred[list[ImportOutcome]]:
        """Take over sessions; see :class:`~synapse_login_module.interfaces.IImportsSessions`."""
        return Deferred.fromCoroutine(self._import(batch, write))

    async def _import(self, batch: Sequence[ImportedSession], write: bool) -> list[ImportOutcome]:
        outcomes: dict[int, ImportOutcome] = {}
        while left := [index for index in range(len(batch)) if index not in outcomes]:
            used: set[int] = set()
            wanted = [NewSession(batch[index], self._row(batch[index], used)) for index in left]
            decided = await self.imported.insert(wanted, write)
            outcomes |= {
                index: outcome
                for index, outcome in zip(left, decided, strict=True)
                if outcome is not None
            }
        if write:
            self._had_none_at = None
        return [outcomes[index] for index in range(len(batch))]

    def _row(self, given: ImportedSession, used: set[int]) -> Session:
        number = free_id(self._random, self._now(), [], lambda each: each not in used)
        used.add(number)
        return Session(
            session_id=number,
            user_id=given.user_id,
            device_id=given.device_id,
            display_name=given.display_name,
            salt=self._random(SALT_SIZE),
            key_id=self._keys.newest,
            generation=0,
            confirmed=True,
            created_at=given.known_at,
            issued_at=given.known_at,
            access_expires_at=given.access_expires_at,
            previous_expires_at=None if given.refresh_tokens else over.NO_REFRESH_TOKEN,
        )

    def present(self, refresh_token: str) -> Deferred[PresentedToken]:
        """Check a refresh token; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        if _is_own(TokenKind.REFRESH, refresh_token):
            return super().present(refresh_token)
        return self._exchange(TokenKind.REFRESH, refresh_token).addCallback(super().present)

    def refresh(
        self, presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Exchange a refresh token; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        refresh: Callable[[PresentedToken, str | None, bool], Deferred[TokenPair]] = super().refresh
        if access_token is None or _is_own(TokenKind.ACCESS, access_token):
            return refresh(presented, access_token, strict)
        return self._exchange(TokenKind.ACCESS, access_token).addCallback(
            lambda own: refresh(presented, own, strict)
        )

    def session_for_access_token(
        self, access_token: str, allow_expired: bool
    ) -> Deferred[SessionInfo]:
        """Find a session; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        find: Callable[[str, bool], Deferred[SessionInfo]] = super().session_for_access_token
        if _is_own(TokenKind.ACCESS, access_token):
            return find(access_token, allow_expired)
        return self._exchange(TokenKind.ACCESS, access_token).addCallback(
            lambda own: find(own, allow_expired)
        )

    def prune(self, after: int | None, scan: int, most: int) -> Deferred[Pruned]:
        """Delete old rows; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        if self._policy.keep_ended is None:
            return super().prune(after, scan, most)
        pruned: Deferred[Pruned] = super().prune(after, scan, most)
        return pruned.addCallback(
            lambda batch: Deferred.fromCoroutine(self._prune_tokens(batch, after, scan, most))
        )

    async def _prune_tokens(self, batch: Pruned, after: int | None, scan: int, most: int) -> Pruned:
        """Delete digests of the sessions that a batch of pruning has looked at."""
        start = -1 if after is None else after
        if batch.after == start:  # there are more login tokens, and no more sessions
            tokens = await self.imported.prune(start, None, scan, most)
            return batch._replace(imported_tokens=tokens.number)
        tokens = await self.imported.prune(start, batch.after, scan, most)
        # If the digests take more batches than the sessions, the next batch begins there.
        reached = batch.after if tokens.after is None else tokens.after
        return batch._replace(after=reached, imported_tokens=tokens.number)

    def _exchange(self, kind: TokenKind, token: str) -> Deferred[str]:
        """Fire with the token of generation 0 of an imported token's session.

        Text that is no imported token stays as it is. It is then rejected like any other text.
        """
        return Deferred.fromCoroutine(self._exchanged(kind, token))

    async def _exchanged(self, kind: TokenKind, token: str) -> str:
        if len(token) > _LONGEST:
            return token
        digest = digest_of(token)
        owner = self._sessions_of.get((kind, digest))
        if owner is None and await self._may_have_any():
            owner = await self.imported.find(digest, kind)
            if owner is not None:
                self._sessions_of.remember((kind, digest), owner)
        if owner is None:
            return token
        # The key that signs now is good for it: no imported token is under any key.
        return self._keys.derive(kind, self._keys.newest, owner.session_id, 0, owner.salt)

    async def _may_have_any(self) -> bool:
        """Return whether the store may have imported tokens."""
        now = self._clock()
        if self._has_any:
            return True
        if self._had_none_at is not None and 0 <= now - self._had_none_at < LIFETIME:
            return False
        self._has_any = await self.imported.any()
        self._had_none_at = now
        return self._has_any


def digest_of(token: str) -> bytes:
    """Return the SHA-256 digest of a token, 32 bytes."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _is_own(kind: TokenKind, token: str) -> bool:
    """Return whether a text is in this server's form of tokens, or looks so."""
    return token.startswith(kind.prefix)
