"""Comparing the keys of this server with the keys of all servers that share a store.

The store holds a fingerprint of each key, written before the key signs for the first time. So a
server can distinguish a token under a key that it lacks, which it must not reject, from a forged
token. And it never signs with a key whose id belongs to another key.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import ExpiredToken, KeyUnavailable, StoreUnavailable
from synapse_login_module.interfaces import ITokenKeys
from synapse_login_module.model import TokenKey
from synapse_login_module.stores.ping import SharedPing
from synapse_login_module.stores.rows import Database, Rows
from synapse_login_module.tokens.format import KeyRing, ParsedToken

A = TypeVar("A")
T = TypeVar("T")

LIFETIME = 5.0
"""Seconds after which the next request has the store's keys read again."""

_ATTEMPTS = 3
_RETIRE = "synapse-login-module retire-key"


class KeyState(enum.Enum):
    """The state of a key id on this server."""

    SHARED = "shared"
    """The server and the store have the same key."""
    UNSHARED = "unshared"
    """The server has a key, and the store does not know the id."""
    LACKING = "lacking"
    """The store knows the id, and the server has no key."""
    DIFFERENT = "different"
    """The server and the store have different keys."""
    RETIRED = "retired"
    """The key has been retired in the store."""
    UNKNOWN = "unknown"
    """Neither the server nor the store knows the id."""


class KeyProblem(NamedTuple):
    """A problem with a key, and what to do about it. As text it is both, as two sentences."""

    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.found}. {self.advice[:1].upper()}{self.advice[1:]}"


def state_of(mine: str | None, known: TokenKey | None) -> KeyState:
    """Return the state of a key id.

    :param mine: the fingerprint of this server's key; ``None`` if it has none of that id.
    :param known: the key of the store; ``None`` if it has none of that id.
    """
    if known is None:
        return KeyState.UNKNOWN if mine is None else KeyState.UNSHARED
    if known.retired:
        return KeyState.RETIRED
    if mine is None:
        return KeyState.LACKING
    return KeyState.SHARED if mine == known.fingerprint else KeyState.DIFFERENT


class _NotShared(Exception):
    """The key that is to sign may not be in the store yet."""


class SharedKeys:
    """Decides which key signs, and whether tokens under a key are accepted here.

    The store's fingerprints are cached for :data:`LIFETIME`, so that a token costs no extra query.

    :param ring: the keys of this server.
    :param database: the database that holds the fingerprints.
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
        self._problems: Mapping[int, KeyProblem] = {}
        # The ring's fingerprints at the last comparison, and the ids of the keys shared then.
        self._shared: tuple[Mapping[int, str], set[int]] = {}, set()
        self._look_again = SharedPing(self.read, clock)

    def sign(
        self, work: Callable[[Rows], T], finish: Callable[[T], A], attempts: int = _ATTEMPTS
    ) -> Deferred[A]:
        """Run work that calls :meth:`signing`.

        If the key that signs is not in the store yet, put it there and run the work again.

        :param finish: converts the result of the work to the result of the Deferred.
        :param attempts: how often the work may be run again.
        """
        # One pair of callbacks, because each more adds about 1 µs to every refresh.
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
        """Return the id of the key to sign with. Work calls this before it writes anything.

        :raise KeyUnavailable: when the store has another key of that id, or has retired it.
        """
        key_id = self._ring.newest
        if self.is_shared(key_id):
            return key_id
        state = self._state(key_id)
        if state in (KeyState.DIFFERENT, KeyState.RETIRED):
            self._reload(rows, self._stale or key_id not in self._problems)
            key_id = self._ring.newest
            state = self._state(key_id)
        if state is KeyState.UNSHARED:
            state = self._share_within(rows, key_id)
        if state is not KeyState.SHARED:
            raise KeyUnavailable(str(self._problems.get(key_id, f"key {key_id} cannot sign")))
        return key_id

    def _share_within(self, rows: Rows, key_id: int) -> KeyState:
        """Put the fingerprints into the store, in the transaction of the work that signs.

        The result is not cached, because the transaction may be rolled back.
        """
        if rows.writes_once:
            raise _NotShared
        known = {key.key_id: key for key in rows.token_keys()}
        missing = self._missing(known)
        if missing:
            rows.insert_keys(missing)
        return self._compare(key_id, {key.key_id: key for key in missing} | known)

    def require_signing(self) -> None:
        """Raise what :meth:`signing` would raise, as far as the cache tells."""
        problem = self._problems.get(self._ring.newest)
        if problem is not None and self._state(self._ring.newest) is not KeyState.SHARED:
            raise KeyUnavailable(str(problem))

    def check_signing(self) -> Deferred[None]:
        """Check that the newest key can sign, changing nothing.

        After a problem, read the keys again first: requests read them too, but a proxy may send
        none until this check succeeds.

        :return: fails as :meth:`signing` does.
        """
        try:
            self.require_signing()
        except KeyUnavailable:
            return self._look_again().addCallback(lambda _: self.require_signing())
        return succeed(None)

    def resigning(self, rows: Rows, key_id: int) -> int:
        """Return the id of the key with which to derive a pair again.

        It is the key of the first time. If that has been retired, or neither this server nor the
        store knows it any more, it is the key that signs now.

        :param key_id: the key of the first time.
        :raise KeyUnavailable: when this server lacks the key, or has another of that id.
        """
        if self.is_shared(key_id):
            return key_id
        state = self._state(key_id)
        if state in (KeyState.UNKNOWN, KeyState.UNSHARED):
            self._reload(rows, True)
            state = self._state(key_id)
        self._require_here(key_id, state)
        return key_id if state in (KeyState.SHARED, KeyState.UNSHARED) else self.signing(rows)

    def verify(self, rows: Rows, parsed: ParsedToken, salt: bytes, likely: bool) -> bool:
        """Return whether a token is authentic. Its row exists.

        :param salt: the salt of the row.
        :param likely: whether the row suggests that the token is under this key. If so, the store's
            keys are read again when the key is not known.
        :raise KeyUnavailable: when the store knows the key, and this server lacks it or has another
            of that id.
        :raise ExpiredToken: when the key has been retired.
        """
        if self.is_shared(parsed.key_id):
            return self._ring.verify(parsed, salt)
        state = self._state(parsed.key_id)
        if state in (KeyState.SHARED, KeyState.UNSHARED) and self._ring.verify(parsed, salt):
            return True
        # Before a key counts as missing, read the store's keys, which may say that it is retired.
        # Known problems and retired keys stay cached, so that neither forged tokens nor tokens
        # under retired keys cost a query each.
        if state in (KeyState.LACKING, KeyState.DIFFERENT):
            is_news = parsed.key_id not in self._problems
        else:
            is_news = likely and state is not KeyState.RETIRED
        self._reload(rows, self._stale or is_news)
        state = self._state(parsed.key_id)
        self._require_here(parsed.key_id, state)
        if state is KeyState.RETIRED:
            raise ExpiredToken
        return self._ring.verify(parsed, salt)

    def follow(self) -> None:
        """Read the keys of the store and of the key file again, in the background, if it is time.

        It is time when the last reading was :data:`LIFETIME` ago.
        """
        if self._reading or not self._stale:
            return
        self._reading = True

        def done(result: Failure | None) -> None:
            self._reading = False
            if isinstance(result, Failure) and not result.check(StoreUnavailable):
                self.log.failure("cannot read the fingerprints of the token keys", result)

        self.read().addBoth(done)

    def read(self) -> Deferred[None]:
        """Read the keys of the store and of the key file again."""
        return self._database.run(lambda rows: self._reload(rows, True))

    async def _share(self) -> None:
        """Put the fingerprints of the keys in use into the store, unless they are there."""
        await self.read()
        missing = self._missing(self._table)
        if missing:
            await self._database.run(lambda rows: rows.insert_keys(missing))
            await self._database.run(lambda rows: self._reload(rows, True))

    def share(self) -> Deferred[None]:
        """Put the fingerprints of the keys in use into the store, and log problems with the keys.

        :return: fails with ``StoreUnavailable``.
        """
        return Deferred.fromCoroutine(self._share())

    def _missing(self, known: Mapping[int, TokenKey]) -> list[TokenKey]:
        fingerprints = self._ring.fingerprints
        wanted = sorted(set(self._ring.in_use) - set(known))
        return [
            TokenKey(key_id, fingerprints[key_id]) for key_id in wanted if key_id in fingerprints
        ]

    @property
    def _stale(self) -> bool:
        return self._read_at is None or not 0 <= self._clock() - self._read_at < LIFETIME

    def _reload(self, rows: Rows, store_too: bool) -> None:
        """Read the key file again and, if ``store_too``, the store's keys."""
        self._ring.renew()
        if store_too:
            self._table = {key.key_id: key for key in rows.token_keys()}
            self._read_at = self._clock()
        fingerprints = self._ring.fingerprints
        known = {key_id for key_id in fingerprints if self._state(key_id) is KeyState.SHARED}
        self._shared = fingerprints, known
        self._log_problems()

    def is_shared(self, key_id: int) -> bool:
        """Return whether the server and the store have the same key, as of the last comparison.

        This is a fast path: it is true for nearly every token.
        """
        fingerprints, known = self._shared
        return key_id in known and fingerprints is self._ring.fingerprints

    def _state(self, key_id: int) -> KeyState:
        return self._compare(key_id, self._table)

    def _compare(self, key_id: int, table: Mapping[int, TokenKey]) -> KeyState:
        return state_of(self._ring.fingerprints.get(key_id), table.get(key_id))

    def _require_here(self, key_id: int, state: KeyState) -> None:
        if state in (KeyState.LACKING, KeyState.DIFFERENT):
            raise KeyUnavailable(str(_problem(key_id, state)))

    def _log_problems(self) -> None:
        """Log each new problem with a key once, and log when all problems are gone."""
        problems = _problems(self._ring, self._table)
        before, self._problems = self._problems, problems
        for key_id, problem in problems.items():
            if before.get(key_id) != problem:
                self.log.error("{problem}", problem=str(problem))
        if before and not problems:
            self.log.info("the token keys are those of the store again")


@implementer(ITokenKeys)
class KnowsTokenKeys:
    """The part of a store of derived tokens that knows the keys."""

    _database: Database
    _shared: SharedKeys

    def token_keys(self) -> Deferred[list[TokenKey]]:
        """List the keys; see :class:`~synapse_login_module.interfaces.ITokenKeys`."""
        return self._database.read(lambda rows: rows.token_keys())

    def require_token_key(self) -> Deferred[None]:
        """Check the key; see :class:`~synapse_login_module.interfaces.ITokenKeys`."""
        return self._shared.read().addCallback(lambda _: self._shared.require_signing())

    def share_token_keys(self) -> Deferred[None]:
        """Share the keys; see :class:`~synapse_login_module.interfaces.ITokenKeys`."""
        return self._shared.share()

    def retire_token_key(self, key_id: int) -> Deferred[bool]:
        """Retire a key; see :class:`~synapse_login_module.interfaces.ITokenKeys`."""
        return self._database.run(lambda rows: rows.retire_key(key_id))

    def _able_to_sign(self, reached: Deferred[None]) -> Deferred[None]:
        """Fail too when the store was reached but the key cannot sign."""
        return reached.addCallback(lambda _: self._shared.check_signing())


def find_problems(ring: KeyRing, keys: Iterable[TokenKey]) -> list[KeyProblem]:
    """Compare the keys of this server with those of the store; return the problems.

    :param keys: the store's keys.
    """
    return list(_problems(ring, {key.key_id: key for key in keys}).values())


def _problems(ring: KeyRing, table: Mapping[int, TokenKey]) -> Mapping[int, KeyProblem]:
    mine = ring.fingerprints
    states = {
        key_id: state_of(mine.get(key_id), table.get(key_id)) for key_id in (*table, ring.newest)
    }
    return {
        key_id: _problem(key_id, state)
        for key_id, state in sorted(states.items())
        if state in (KeyState.LACKING, KeyState.DIFFERENT)
        or (state is KeyState.RETIRED and key_id == ring.newest)
    }


def _problem(key_id: int, state: KeyState) -> KeyProblem:
    if state is KeyState.LACKING:
        return KeyProblem(
            f"token key {key_id} is in use, and this server does not have it: it answers 503 to the"
            " tokens made under it",
            "copy the key file here from a machine that has it; if none has,"
            f" `{_RETIRE} {key_id}` ends these tokens",
        )
    if state is KeyState.DIFFERENT:
        return KeyProblem(
            f"token key {key_id} here is not the token key {key_id} in use: this server signs"
            " nothing with it and answers 503 to the tokens made under it",
            "copy the key file here from a machine that has it; if none has, rotate-key --now, then"
            f" `{_RETIRE} {key_id}`",
        )
    return KeyProblem(
        f"token key {key_id} has been retired, and is the one that signs here: this server answers"
        " 503 until another one does",
        "copy the key file here from a machine where one does",
    )
