"""The keys of this server, beside those that the servers on one store make tokens under.

The store holds a fingerprint of each key, written before the key signs for the first time. So a
server can tell a token of a key that it lacks, which it may not refuse, from one that nobody made;
and it never signs with a key of its own that has the id of another.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import ExpiredToken, KeyUnavailable, StoreUnavailable
from synapse_login_module.interfaces import ITokenKeys
from synapse_login_module.model import TokenKey
from synapse_login_module.stores.rows import Database, Rows
from synapse_login_module.tokens.format import KeyRing, ParsedToken

A = TypeVar("A")
T = TypeVar("T")

LIFETIME = 5.0
"""Seconds after which the store's keys are read again, if anything is asked of the store."""

_ATTEMPTS = 3
_RETIRE = "synapse-login-module retire-key"


class KeyState(enum.Enum):
    """What this server makes of a key id."""

    SHARED = "shared"
    UNSHARED = "unshared"
    LACKING = "lacking"
    DIFFERENT = "different"
    RETIRED = "retired"
    UNKNOWN = "unknown"


class _NotShared(Exception):
    """The key that is to sign is not known to be in the store."""


class SharedKeys:
    """Says which key signs, and what a token of each key is worth here.

    The store's keys are kept for :data:`LIFETIME`, so that no token costs a further query.

    :param ring: the keys of this server.
    :param database: where the fingerprints are.
    :param clock: a clock, in seconds.
    """

    log = Logger()

    def __init__(self, ring: KeyRing, database: Database, clock: Callable[[], float]) -> None:
        self._ring = ring
        self._database = database
        self._clock = clock
        self._table: Mapping[int, TokenKey] = {}
        self._read_at: float | None = None
        self._reading = False
        self._problems: Mapping[int, str] = {}
        # The keys that are here and in the store alike, of those with these fingerprints.
        self._shared: tuple[Mapping[int, str], set[int]] = {}, set()

    def sign(
        self, work: Callable[[Rows], T], finish: Callable[[T], A], attempts: int = _ATTEMPTS
    ) -> Deferred[A]:
        """Run work that calls :meth:`signing`, once the key that signs is in the store.

        :param finish: makes of what the work returns what is fired.
        """
        # One pair of callbacks: each more is a µs of every refresh.
        return self._database.run(work).addCallbacks(
            finish, self._share_first, errbackArgs=(work, finish, attempts)
        )

    def _share_first(
        self, failure: Failure, work: Callable[[Rows], T], finish: Callable[[T], A], attempts: int
    ) -> Deferred[A]:
        failure.trap(_NotShared)
        if not attempts:
            return fail(KeyUnavailable("the keys keep changing"))
        return self.share().addCallback(lambda _: self.sign(work, finish, attempts - 1))

    def signing(self, rows: Rows) -> int:
        """The key to sign with. Work calls it before it writes anything.

        :raise KeyUnavailable: when the store knows another key of that id.
        """
        key_id = self._ring.newest
        if self.is_shared(key_id):
            return key_id
        state = self._state(key_id)
        if state in (KeyState.DIFFERENT, KeyState.RETIRED):
            self._look_again(rows, self._stale or key_id not in self._problems)
            key_id = self._ring.newest
            state = self._state(key_id)
        if state is KeyState.UNSHARED:
            state = self._share_within(rows, key_id)
        if state is not KeyState.SHARED:
            raise KeyUnavailable(self._problems.get(key_id, f"key {key_id} cannot sign"))
        return key_id

    def _share_within(self, rows: Rows, key_id: int) -> KeyState:
        """Put the fingerprints into the store in the transaction that is signed in.

        Nothing is remembered of it, since that may be rolled back.
        """
        if rows.writes_once:
            raise _NotShared
        known = {key.key_id: key for key in rows.token_keys()}
        missing = self._missing(known)
        if missing:
            rows.insert_keys(missing)
        return self._compare(key_id, {key.key_id: key for key in missing} | known)

    def require_signing(self) -> None:
        """Fail as :meth:`signing` does, as far as is known without asking the store."""
        problem = self._problems.get(self._ring.newest)
        if problem is not None and self._state(self._ring.newest) is not KeyState.SHARED:
            raise KeyUnavailable(problem)

    def resigning(self, rows: Rows, key_id: int) -> int:
        """The key to make a pair again with that was made under this key: the same, unless that
        has been retired, or nobody knows it any more.

        :raise KeyUnavailable: when it is another server's that this one lacks.
        """
        if self.is_shared(key_id):
            return key_id
        state = self._state(key_id)
        if state in (KeyState.UNKNOWN, KeyState.UNSHARED):
            self._look_again(rows, True)
            state = self._state(key_id)
        self._require_here(key_id, state)
        return key_id if state in (KeyState.SHARED, KeyState.UNSHARED) else self.signing(rows)

    def verify(self, rows: Rows, parsed: ParsedToken, salt: bytes, likely: bool) -> bool:
        """Whether a token of a row that is there is authentic.

        :param likely: whether a token of that row may well be under this key, so that the store
            is asked about a key that is not known.
        :raise KeyUnavailable: when the token is of a key that the store knows, and this server does
            not have, or has another of that id.
        :raise ExpiredToken: when the key has been retired.
        """
        if self.is_shared(parsed.key_id):
            return self._ring.verify(parsed, salt)
        state = self._state(parsed.key_id)
        if state in (KeyState.SHARED, KeyState.UNSHARED) and self._ring.verify(parsed, salt):
            return True
        # That a key is missed is not said before the store was asked whether it is retired by now.
        # What is known stays so for a while: neither a made-up token nor a retired key costs more.
        if state in (KeyState.LACKING, KeyState.DIFFERENT):
            is_news = parsed.key_id not in self._problems
        else:
            is_news = likely and state is not KeyState.RETIRED
        self._look_again(rows, self._stale or is_news)
        state = self._state(parsed.key_id)
        self._require_here(parsed.key_id, state)
        if state is KeyState.RETIRED:
            raise ExpiredToken
        return self._ring.verify(parsed, salt)

    def follow(self) -> None:
        """Read the keys of the store and of the file again, if that was long ago.

        Nobody waits for it.
        """
        if self._reading or not self._stale:
            return
        self._reading = True

        def done(result: Failure | None) -> None:
            self._reading = False
            if isinstance(result, Failure) and not result.check(StoreUnavailable):
                self.log.failure("reading the fingerprints of the keys", result)

        self._database.run(lambda rows: self._look_again(rows, True)).addBoth(done)

    async def _share(self) -> None:
        """Put the fingerprints of the keys in use into the store, unless they are there."""
        await self._database.run(lambda rows: self._look_again(rows, True))
        missing = self._missing(self._table)
        if missing:
            await self._database.run(lambda rows: rows.insert_keys(missing))
            await self._database.run(lambda rows: self._look_again(rows, True))

    def share(self) -> Deferred[None]:
        """Put the fingerprints of the keys in use into the store, and say in the log what is wrong.

        :return: fails with ``StoreUnavailable``.
        """
        return Deferred.fromCoroutine(self._share())

    def _missing(self, known: Mapping[int, TokenKey]) -> list[TokenKey]:
        prints = self._ring.fingerprints
        wanted = sorted(set(self._ring.in_use) - set(known))
        return [TokenKey(key_id, prints[key_id]) for key_id in wanted if key_id in prints]

    @property
    def _stale(self) -> bool:
        return self._read_at is None or not 0 <= self._clock() - self._read_at < LIFETIME

    def _look_again(self, rows: Rows, table_too: bool) -> None:
        """Have the keys of the file, and of the store, as they stand by now."""
        self._ring.renew()
        if table_too:
            self._table = {key.key_id: key for key in rows.token_keys()}
            self._read_at = self._clock()
        prints = self._ring.fingerprints
        known = {key_id for key_id in prints if self._state(key_id) is KeyState.SHARED}
        self._shared = prints, known
        self._tell()

    def is_shared(self, key_id: int) -> bool:
        """Whether a key is here and in the store, and the same: so it is for nearly every token."""
        prints, known = self._shared
        return key_id in known and prints is self._ring.fingerprints

    def _state(self, key_id: int) -> KeyState:
        return self._compare(key_id, self._table)

    def _compare(self, key_id: int, table: Mapping[int, TokenKey]) -> KeyState:
        mine, known = self._ring.fingerprints.get(key_id), table.get(key_id)
        if known is None:
            return KeyState.UNKNOWN if mine is None else KeyState.UNSHARED
        if known.retired:
            return KeyState.RETIRED
        if mine is None:
            return KeyState.LACKING
        return KeyState.SHARED if mine == known.fingerprint else KeyState.DIFFERENT

    def _require_here(self, key_id: int, state: KeyState) -> None:
        if state in (KeyState.LACKING, KeyState.DIFFERENT):
            raise KeyUnavailable(_problem(key_id, state))

    def _tell(self) -> None:
        """Say what is wrong with the keys, once for each key, and when all is well again."""
        states = {key_id: self._state(key_id) for key_id in (*self._table, self._ring.newest)}
        problems = {
            key_id: _problem(key_id, state)
            for key_id, state in sorted(states.items())
            if state in (KeyState.LACKING, KeyState.DIFFERENT)
            or (state is KeyState.RETIRED and key_id == self._ring.newest)
        }
        before, self._problems = self._problems, problems
        for key_id, problem in problems.items():
            if before.get(key_id) != problem:
                self.log.error("{problem}", problem=problem)
        if before and not problems:
            self.log.info("the token keys are those of the store again")


@implementer(ITokenKeys)
class KnowsTokenKeys:
    """What a store of derived tokens says of its keys."""

    _database: Database
    _shared: SharedKeys

    def token_keys(self) -> Deferred[list[TokenKey]]:
        """List the keys; see :class:`~synapse_login_module.interfaces.ITokenKeys`."""
        return self._database.run(lambda rows: rows.token_keys())

    def share_token_keys(self) -> Deferred[None]:
        """Make the keys known; see :class:`~synapse_login_module.interfaces.ITokenKeys`."""
        return self._shared.share()

    def retire_token_key(self, key_id: int) -> Deferred[bool]:
        """Retire a key; see :class:`~synapse_login_module.interfaces.ITokenKeys`."""
        return self._database.run(lambda rows: rows.retire_key(key_id))

    def _able_to_sign(self, reached: Deferred[None]) -> Deferred[None]:
        """Fail where the store is reached but no token could be made."""
        return reached.addCallback(lambda _: self._shared.require_signing())


def _problem(key_id: int, state: KeyState) -> str:
    if state is KeyState.LACKING:
        return (
            f"token key {key_id} is in use, and this server does not have it: it answers 503 to the"
            " tokens made under it. Copy the key file here from a machine that has it; if none has,"
            f" `{_RETIRE} {key_id}` ends these tokens"
        )
    if state is KeyState.DIFFERENT:
        return (
            f"token key {key_id} here is not the token key {key_id} in use: this server signs"
            " nothing with it and answers 503 to the tokens made under it. Copy the key file here"
            f" from a machine that has it; if none has, rotate-key --now, then `{_RETIRE} {key_id}`"
        )
    return (
        f"token key {key_id} has been retired, and is the one that signs here: this server answers"
        " 503 until another one does. Copy the key file here from a machine where one does"
    )
