"""The digests of imported tokens in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from synapse_login_module.model import ImportOutcome
from synapse_login_module.stores.imported import (
    Existing,
    NewSession,
    Owner,
    PrunedTokens,
    decide,
    kinds_of,
)
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.housekeeping import Execute
from synapse_login_module.stores.postgresql.link_statements import read_text
from synapse_login_module.stores.postgresql.session_statements import COLUMNS
from synapse_login_module.tokens.format import TokenKind

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_Device = tuple[str, str]

_ANY = b"SELECT EXISTS (SELECT 1 FROM synapse_login_imported)"
_FIND = b"""
SELECT session.session_id, session.salt FROM synapse_login_imported AS token
JOIN synapse_login_sessions AS session ON session.session_id = token.session_id
WHERE token.digest = $1::BYTEA AND token.kind = $2::SMALLINT
"""
_EXISTING = b"""
SELECT session.user_id, session.device_id, session.session_id, session.generation, token.digest
FROM unnest($1::TEXT[], $2::TEXT[]) AS wanted (user_id, device_id)
JOIN synapse_login_sessions AS session
    ON session.user_id = wanted.user_id AND session.device_id = wanted.device_id
LEFT JOIN synapse_login_imported AS token ON token.session_id = session.session_id
"""
_KNOWN = b"SELECT digest FROM synapse_login_imported WHERE digest = ANY ($1::BYTEA[])"
_OWED = b"""
SELECT note.user_id, note.device_id
FROM unnest($1::TEXT[], $2::TEXT[]) AS wanted (user_id, device_id)
JOIN synapse_login_device_notes AS note
    ON note.user_id = wanted.user_id AND note.device_id = wanted.device_id
WHERE note.owed = 1
"""

# A device or a number that another session has taken meanwhile leaves its session out.
_INSERT = (
    b"""
WITH new AS (
    INSERT INTO synapse_login_sessions (%b)
    SELECT * FROM unnest(
        $1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::BYTEA[], $6::INTEGER[], $7::BIGINT[],
        $8::BOOLEAN[], $9::BIGINT[], $10::BIGINT[], $11::BIGINT[], $12::BIGINT[]
    )
    ON CONFLICT DO NOTHING RETURNING session_id
), tokens AS (
    INSERT INTO synapse_login_imported (digest, session_id, kind)
    SELECT token.digest, token.session_id, token.kind
    FROM unnest($13::BYTEA[], $14::BIGINT[], $15::SMALLINT[]) AS token (digest, session_id, kind)
    JOIN new ON new.session_id = token.session_id
    ON CONFLICT DO NOTHING
)
SELECT session_id FROM new
"""
    % COLUMNS
)
_DELETE_FORMER = b"""
DELETE FROM synapse_login_imported
WHERE session_id = ANY ($1::BIGINT[]) AND NOT digest = ANY ($2::BYTEA[])
"""
_INSERT_PRESENT = b"""
INSERT INTO synapse_login_imported (digest, session_id, kind)
SELECT * FROM unnest($1::BYTEA[], $2::BIGINT[], $3::SMALLINT[]) ON CONFLICT DO NOTHING
"""
_RENEW_SESSIONS = b"""
UPDATE synapse_login_sessions AS row
SET issued_at = new.issued_at, access_expires_at = new.access_expires_at,
    previous_expires_at = new.previous_expires_at
FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[]) AS new (
    session_id, issued_at, access_expires_at, previous_expires_at
)
WHERE row.session_id = new.session_id AND row.generation = 0
"""

# An imported session is in generation 0, so a later one that is confirmed has replaced its tokens.
_USELESS = """NOT EXISTS (
    SELECT 1 FROM synapse_login_sessions AS session WHERE session.session_id = token.session_id
    AND (session.generation = 0 OR (session.generation = 1 AND NOT session.confirmed))
)"""
_PRUNE = f"""
WITH seen AS (
    SELECT session_id FROM synapse_login_imported
    WHERE session_id > $1::BIGINT AND ($2::BIGINT IS NULL OR session_id <= $2::BIGINT)
    ORDER BY session_id LIMIT $3::BIGINT
), range AS (
    SELECT MAX(session_id) AS last, COUNT(*) AS number FROM seen
), found AS (
    SELECT token.digest, token.session_id FROM synapse_login_imported AS token, range
    WHERE token.session_id > $1::BIGINT AND token.session_id <= range.last AND {_USELESS}
    ORDER BY token.session_id LIMIT $4::BIGINT
), pruned AS (
    DELETE FROM synapse_login_imported AS token USING found
    WHERE token.digest = found.digest AND {_USELESS}
    RETURNING token.session_id
)
SELECT
    (SELECT COUNT(*) FROM pruned),
    CASE
        WHEN (SELECT COUNT(*) FROM found) = $4::BIGINT
            THEN (SELECT MAX(session_id) FROM found) - 1
        WHEN (SELECT number FROM range) = $3::BIGINT THEN (SELECT last FROM range)
    END
""".encode()


class PostgreSQLImportedTokens:
    """See :class:`~synapse_login_module.stores.imported.ImportedTokens`.

    :param execute: runs statements in one transaction.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def any(self) -> Deferred[bool]:
        """Find out whether there are any."""
        return self._execute([Statement(_ANY, [])]).addCallback(
            lambda results: results[0].get_value(0, 0) == b"\1"
        )

    def find(self, digest: bytes, kind: TokenKind) -> Deferred[Owner | None]:
        """Find the session of a token."""

        def owner(results: list[PGresult]) -> Owner | None:
            if not results[0].ntuples:
                return None
            number, salt = (results[0].get_value(0, column) for column in range(2))
            return Owner(_integer(number), salt or b"")

        return self._execute([Statement(_FIND, [digest, str(kind.number)])]).addCallback(owner)

    def insert(
        self, wanted: Sequence[NewSession], write: bool
    ) -> Deferred[list[ImportOutcome | None]]:
        """Decide on each session, then write the rows; what has changed in between is left out."""
        return Deferred.fromCoroutine(self._insert(wanted, write))

    async def _insert(
        self, wanted: Sequence[NewSession], write: bool
    ) -> list[ImportOutcome | None]:
        there, known, owed = await self._read(wanted)

        def is_spent(each: NewSession) -> bool:
            return _device(each) in owed or not known.isdisjoint(each.given.tokens)

        outcomes: list[ImportOutcome | None] = [
            decide(each.given, there.get(_device(each)), is_spent(each)) for each in wanted
        ]
        if not write:
            return outcomes
        pairs = list(zip(wanted, outcomes, strict=True))
        new = [each for each, outcome in pairs if outcome is ImportOutcome.TAKEN]
        renewed = {
            there[_device(each)].session_id: each
            for each, outcome in pairs
            if outcome is ImportOutcome.RENEWED
        }
        statements = ([_insertion(new)] if new else []) + (_renewal(renewed) if renewed else [])
        if not statements:
            return outcomes
        results = await self._execute(statements)
        made = {
            _integer(results[0].get_value(row, 0))
            for row in range(results[0].ntuples if new else 0)
        }
        return [
            None if outcome is ImportOutcome.TAKEN and each.row.session_id not in made else outcome
            for each, outcome in pairs
        ]

    async def _read(
        self, wanted: Sequence[NewSession]
    ) -> tuple[Mapping[_Device, Existing], set[bytes], set[_Device]]:
        """Read the sessions of the devices, which digests the store has, and which devices are to
        be deleted.
        """
        devices = [_device(each) for each in wanted]
        users, names = ([each[part] for each in devices] for part in range(2))
        digests = [digest for each in wanted for digest in each.given.tokens]
        arrays = [_texts(users), _texts(names)]
        existing, known, owed = await self._execute(
            [
                Statement(_EXISTING, arrays),
                Statement(_KNOWN, [_binaries(digests)]),
                Statement(_OWED, arrays),
            ]
        )
        there: dict[_Device, Existing] = {}
        for row in range(existing.ntuples):
            user, device, number, generation, digest = (
                existing.get_value(row, column) for column in range(5)
            )
            key = read_text(user), read_text(device)
            found = there.setdefault(
                key, Existing(_integer(number), _integer(generation), frozenset())
            )
            if digest is not None:
                there[key] = found._replace(tokens=found.tokens | {digest})
        return (
            there,
            {known.get_value(row, 0) or b"" for row in range(known.ntuples)},
            {
                (read_text(owed.get_value(row, 0)), read_text(owed.get_value(row, 1)))
                for row in range(owed.ntuples)
            },
        )

    def prune(self, after: int, last: int | None, scan: int, most: int) -> Deferred[PrunedTokens]:
        """Find and delete digests that are useless, in one transaction."""

        def pruned(results: list[PGresult]) -> PrunedTokens:
            number, reached = (results[0].get_value(0, column) for column in range(2))
            return PrunedTokens(_integer(number), None if reached is None else _integer(reached))

        limit = None if last is None else str(last)
        prune = Statement(_PRUNE, [str(after), limit, str(scan), str(most)])
        return self._execute([prune]).addCallback(pruned)


def _insertion(new: Sequence[NewSession]) -> Statement:
    # In the order of their devices, as other servers insert, so that deadlocks are rare.
    rows = sorted((each.row for each in new), key=lambda row: (row.user_id, row.device_id))
    ids, users, devices, names, salts, *numbers = zip(*rows, strict=True)
    tokens = [(each.row.session_id, each) for each in new]
    return Statement(
        _INSERT,
        [
            _numbers(ids),
            _texts(users),
            _texts(devices),
            _texts(names),
            _binaries(salts),
            *map(_numbers, numbers),
            *_tokens(tokens),
        ],
    )


def _renewal(renewed: Mapping[int, NewSession]) -> list[Statement]:
    tokens = _tokens(list(renewed.items()))
    rows = [each.row for each in renewed.values()]
    return [
        Statement(_DELETE_FORMER, [_numbers(renewed), tokens[0]]),
        Statement(_INSERT_PRESENT, tokens),
        Statement(
            _RENEW_SESSIONS,
            [
                _numbers(renewed),
                _numbers(row.issued_at for row in rows),
                _numbers(row.access_expires_at for row in rows),
                _numbers(row.previous_expires_at for row in rows),
            ],
        ),
    ]


def _tokens(sessions: Sequence[tuple[int, NewSession]]) -> list[str]:
    """Return the digests of sessions, the numbers of their sessions and their kinds, as arrays."""
    rows = [
        (digest, number, kind) for number, each in sessions for digest, kind in kinds_of(each.given)
    ]
    digests, numbers, kinds = zip(*rows, strict=True)
    return [_binaries(digests), _numbers(numbers), _numbers(kinds)]


def _device(each: NewSession) -> _Device:
    return each.given.user_id, each.given.device_id


def _numbers(values: Iterable[int | None]) -> str:
    """Format integers or booleans as an array in PostgreSQL's text format."""
    return "{" + ",".join("NULL" if each is None else str(each) for each in values) + "}"


def _texts(values: Iterable[str | None]) -> str:
    """Format texts without NUL as an array in PostgreSQL's text format."""
    quoted = (
        "NULL" if each is None else '"' + each.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for each in values
    )
    return "{" + ",".join(quoted) + "}"


def _binaries(values: Iterable[bytes]) -> str:
    """Format bytes as an array in PostgreSQL's text format."""
    return "{" + ",".join(f'"\\\\x{each.hex()}"' for each in values) + "}"


def _integer(value: bytes | None) -> int:
    assert value is not None
    return int.from_bytes(value, "big", signed=True)
