"""Links, as SQL: what is fetched and written of ``synapse_login_links``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_login_module.model import Link
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.optimistic import DeleteLink, InsertLink, LinksKey

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_LINKS = b"SELECT user_id, provider, subject FROM synapse_login_links "
_ALL = _LINKS + b"ORDER BY user_id"
_OF_USER = b"WHERE user_id = $1::TEXT"

_INSERT = (
    b"INSERT INTO synapse_login_links (user_id, provider, subject, linked_at, looked_at)"
    b" VALUES ($%d::TEXT, $%d::TEXT, $%d::TEXT, $%d::BIGINT, $%d::BIGINT)"
    b" ON CONFLICT DO NOTHING RETURNING user_id"
)
_DELETE = (
    b"DELETE FROM synapse_login_links"
    b" WHERE user_id = $1::TEXT AND provider = $2::TEXT AND subject = $3::TEXT RETURNING user_id"
)
_DELETE_LOGIN_TOKENS = b"DELETE FROM synapse_login_tokens WHERE user_id = $1::TEXT"

# The row is locked: who changes the link waits, and then finds the session, which is to end.
_STANDS = (
    b"SELECT user_id FROM synapse_login_links"
    b" WHERE user_id = $%d::TEXT AND provider = $%d::TEXT AND subject = $%d::TEXT FOR SHARE"
)


def fetch(key: LinksKey) -> Statement:
    """The statement that fetches the link of a user ID and those of a claim, or all."""
    parts: list[bytes] = []
    values: list[bytes] = []
    if key.user_id is not None:
        parts.append(_LINKS + _OF_USER)
        values.append(text(key.user_id))
    if key.claim is not None:
        values += [text(key.claim.subject), *(text(name) for name in key.claim.providers)]
        last = len(values)
        first = last - len(key.claim.providers)
        names = b", ".join(b"$%d::TEXT" % number for number in range(first + 1, last + 1))
        parts.append(_LINKS + b"WHERE provider IN (%b) AND subject = $%d::TEXT" % (names, first))
    return Statement(b" UNION ".join(parts) or _ALL, values)


def links(result: PGresult) -> list[Link]:
    """The links that were fetched."""
    return [
        Link(*(read_text(result.get_value(row, column)) for column in range(3)))
        for row in range(result.ntuples)
    ]


def linked(new: bool, first: int) -> bytes:
    """The common table expression ``linked``: of one row where a link stands, or is inserted, and
    of none where another is in its way.

    :param new: whether it is inserted if it does not stand.
    :param first: the number of its first value; see :func:`link_values`.
    """
    numbers = tuple(range(first, first + 3))
    stands = _STANDS % numbers
    if not new:
        return b"linked AS (%b)" % stands
    insert = _INSERT % (*numbers, first + 3, first + 3)
    return (
        b"inserted AS (%b), standing AS (%b), linked AS (SELECT user_id FROM inserted"
        b" UNION ALL SELECT user_id FROM standing)" % (insert, stands)
    )


def link_values(link: Link, linked_at: int | None) -> list[str | bytes]:
    """The values of a link.

    :param linked_at: where it is inserted.
    """
    return [*map(text, link), *([] if linked_at is None else [str(linked_at)])]


def insert_link(write: InsertLink) -> list[Statement]:
    """The statements that insert a link; the last says whether it was."""
    statements = [each for link in write.instead_of for each in delete_link(DeleteLink(link))]
    insert = Statement(_INSERT % (1, 2, 3, 4, 4), link_values(write.link, write.linked_at))
    return [*statements, insert]


def delete_link(write: DeleteLink) -> list[Statement]:
    """The statements that delete a link; the last says whether it was there."""
    return [
        delete_login_tokens(write.link.user_id),
        Statement(_DELETE, link_values(write.link, None)),
    ]


def delete_login_tokens(user_id: str) -> Statement:
    """The statement that deletes the login tokens of a user."""
    return Statement(_DELETE_LOGIN_TOKENS, [text(user_id)])


def text(value: str) -> bytes:
    """Text in binary form, so that the server sees the whole of it, and refuses what is no text."""
    return value.encode("utf-8", "surrogatepass")


def read_text(value: bytes | None) -> str:
    """A text that is not NULL."""
    assert value is not None
    return value.decode()
