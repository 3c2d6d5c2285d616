"""All sessions of a token store, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator

from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import SessionInfo

_PAGE = 1000


def _created_at(session: SessionInfo) -> int:
    return session.created_at or 0


async def session_pages(
    store: ITokenStore, user_id: str | None, page: int = _PAGE
) -> AsyncIterator[list[SessionInfo]]:
    """List the sessions of a user, or of all users, in memory for one page.

    Pages come in the store's order. Within a page, the oldest session comes first: the order of a
    store may be exact to a second only.

    :param page: the most sessions of a page.
    """
    after: SessionInfo | None = None
    while True:
        found = await store.sessions(user_id, after, page)
        if found:
            yield sorted(found, key=_created_at)
            after = found[-1]
        if len(found) < page:
            return


async def all_sessions(store: ITokenStore, user_id: str) -> list[SessionInfo]:
    """List all sessions of a user, as :func:`session_pages` does."""
    return [each async for found in session_pages(store, user_id) for each in found]
