"""What Synapse answers to access tokens, as the tests have seen it, and the table of it in docs/.

``python -m tests.delegation.answers`` writes ``docs/delegation-answers.rst``.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "delegation-answers.rst"


class Answers(NamedTuple):
    """The statuses of Synapse's answers to one token after an event.

    :param known: when Synapse knew the token, without ``forget_tokens``.
    :param forgotten: when Synapse knew the token, with ``forget_tokens``.
    :param new: when the token was new to Synapse.
    """

    known: int
    forgotten: int
    new: int


class Row(NamedTuple):
    """An event, and the answers afterwards.

    :param old: to the access token from before.
    :param fresh: to the access token that the client got by it; ``None`` where it got none.
    """

    event: str
    old: Answers
    fresh: int | None = None


ALIVE, DEAD = Answers(200, 200, 200), Answers(401, 401, 401)
FORGOTTEN = Answers(200, 401, 401)

TABLE = {
    "lenient": Row("``/refresh``", ALIVE, 200),
    "confirmed": Row("``/refresh``, and the new token was used", FORGOTTEN, 200),
    "strict": Row("``/tokenrefresh``", FORGOTTEN, 200),
    "again": Row("a login on the same device", FORGOTTEN, 200),
    "logout": Row("``/logout``, ``/logout/all``, or the device was deleted", DEAD),
    "reuse": Row("the refresh token was reused", FORGOTTEN),
    "gone": Row("the account is gone or deactivated at its provider", FORGOTTEN),
    "locked": Row("the account is locked at its provider", Answers(200, 503, 503)),
    "deactivated": Row("the account is deactivated at Synapse", DEAD),
}


def rendered() -> str:
    """Return the page: the table, and nothing else."""
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 40 15 20 10 15",
        "",
        "   * - what happened",
        "     - old token, known",
        "     - known, with ``forget_tokens``",
        "     - old token, new",
        "     - the token it gave",
    ]
    for row in TABLE.values():
        known = (
            f"{row.old.known}, for up to two minutes"
            if row.old.known == 200 != row.old.new
            else row.old.known
        )
        fresh = "" if row.fresh is None else row.fresh
        cells = (row.event, known, row.old.forgotten, row.old.new, fresh)
        lines += [f"   {'*' if not n else ' '} - {cell}".rstrip() for n, cell in enumerate(cells)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
