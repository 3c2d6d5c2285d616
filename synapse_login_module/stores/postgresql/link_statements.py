"""Links in SQL: reading and writing ``synapse_login_links``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_login_module.model import Link
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.operations import DeleteLink, InsertLink, LinksKey

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_LINKS = b"SELECT user_id, provider, subject FROM synapse_login_links "
_ALL = _LINKS + b"ORDER BY user_id"
_OF_USER = b"WHERE user_id = $1::TEXT"

_COLUMNS = b"INSERT INTO synapse_login_links (user_id, provider, subject, linked_at, looked_at) "
_VALUES = b"$%d::TEXT, $%d::TEXT, $%d::TEXT, $%d::BIGINT, $%d::BIGINT"
_UNLESS_IT_CONFLICTS = b" ON CONFLICT DO NOTHING RETURNING user_id"
_INSERT = _COLUMNS + b"VALUES (" + _VALUES + b")" + _UNLESS_IT_CONFLICTS
_INSERT_IF_RESERVED = _COLUMNS + b"SELECT " + _VALUES + b" FROM reserved" + _UNLESS_IT_CONFLICTS
_DELETE = (
    b"DELETE FROM synapse_login_links"
    b" WHERE user_id = $1::TEXT AND provider = $2::TEXT AND subject = $3::TEXT RETURNING user_id"
)
_DELETE_LOGIN_TOKENS = b"DELETE FROM synapse_login_tokens WHERE user_id = $1::TEXT"
_FREE_NAME = b"DELETE FROM synapse_login_name_reservations WHERE user_id = $1::TEXT"

# FOR SHARE locks the row until the session is inserted. A transaction that changes the link waits,
# and then sees the session, which it has to end.
_EXISTS = (
    b"SELECT user_id FROM synapse_login_links"
    b" WHERE user_id = $%d::TEXT AND provider = $%d::TEXT AND subject = $%d::TEXT FOR SHARE"
)


def fetch(key: LinksKey) -> Statement:
    """Make the statement that fetches the link of a user ID and those of a claim, or all links."""
    parts: list[bytes] = []
    values: list[bytes] = []
    if key.user_id is not None:
        parts.append(_LINKS + _OF_USER)
        values.append(encode_text(key.user_id))
    if key.claim is not None:
        values += [
            encode_text(key.claim.subject),
            *(encode_text(name) for name in key.claim.providers),
        ]
        last = len(values)
        first = last - len(key.claim.providers)
        names = b", ".join(b"$%d::TEXT" % number for number in range(first + 1, last + 1))
        parts.append(_LINKS + b"WHERE provider IN (%b) AND subject = $%d::TEXT" % (names, first))
    return Statement(b" UNION ".join(parts) or _ALL, values)


def read_links(result: PGresult) -> list[Link]:
    """Read the links from a result."""
    return [
        Link(*(read_text(result.get_value(row, column)) for column in range(3)))
        for row in range(result.ntuples)
    ]


def linked(new: bool, first: int, reserved: bool) -> bytes:
    """Make the common table expression ``linked`` for a link.

    It has one row if the link exists or is inserted, and no row if another link conflicts with it.

    :param new: whether to insert the link if it does not exist.
    :param first: the number of the first placeholder; see :func:`link_values`.
    :param reserved: whether to insert it only if there is a row of the expression ``reserved``.
    """
    numbers = tuple(range(first, first + 3))
    exists = _EXISTS % numbers
    if not new:
        return b"linked AS (%b)" % exists
    sql = _INSERT_IF_RESERVED if reserved else _INSERT
    insert = sql % (*numbers, first + 3, first + 3)
    return (
        b"inserted AS (%b), existing AS (%b), linked AS (SELECT user_id FROM inserted"
        b" UNION ALL SELECT user_id FROM existing)" % (insert, exists)
    )


def link_values(link: Link, linked_at: int | None) -> list[str | bytes]:
    """Return the values of a link for its placeholders.

    :param linked_at: milliseconds since the epoch if the link is inserted, otherwise ``None``.
    """
    return [*map(encode_text, link), *([] if linked_at is None else [str(linked_at)])]


def insert_link(write: InsertLink) -> list[Statement]:
    """Make the statements that insert a link. The last returns a row if the link was inserted."""
    statements = [each for link in write.instead_of for each in delete_link(DeleteLink(link))]
    insert = Statement(_INSERT % (1, 2, 3, 4, 4), link_values(write.link, write.linked_at))
    return [*statements, insert]


def delete_link(write: DeleteLink) -> list[Statement]:
    """Make the statements that delete a link. The last returns a row if the link existed."""
    return [
        delete_login_tokens(write.link.user_id),
        Statement(_FREE_NAME, [encode_text(write.link.user_id)]),
        Statement(_DELETE, link_values(write.link, None)),
    ]


def delete_login_tokens(user_id: str) -> Statement:
    """Make the statement that deletes the login tokens of a user."""
    return Statement(_DELETE_LOGIN_TOKENS, [encode_text(user_id)])


def encode_text(value: str) -> bytes:
    """Encode text in binary format.

    Text format would end at a NUL. In binary format the server sees all of the text, and rejects
    what it cannot store.
    """
    return value.encode("utf-8", "surrogatepass")


def read_text(value: bytes | None) -> str:
    """Decode a text that is not NULL."""
    assert value is not None
    return value.decode()
