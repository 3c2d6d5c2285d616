"""The accounts that the brake holds: who they are, and letting them go when a person says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.linkwatch import ILinkWatch, WatchedLink

_PAGE = 500


class LetGo(NamedTuple):
    """What came of letting accounts go.

    :param ended: those whose sessions have ended.
    :param kept: those that their provider knows again.
    :param unsaid: those of which it could not say; they are still held.
    """

    ended: Sequence[WatchedLink]
    kept: Sequence[WatchedLink]
    unsaid: Sequence[WatchedLink]


async def find_held(links: ILinkWatch) -> list[WatchedLink]:
    """List those who are held, in the order of their user IDs."""
    held: list[WatchedLink] = []
    after = ""
    while rows := await links.page((), after, _PAGE, held=True):
        held += rows
        after = rows[-1].user_id
    return held


async def let_go(held: Sequence[WatchedLink], questions: Questions, judge: Judge) -> LetGo:
    """Act upon what their providers say of them by now, whatever the brake thinks of that."""
    ended: list[WatchedLink] = []
    kept: list[WatchedLink] = []
    unsaid: list[WatchedLink] = []
    for row in held:
        try:
            status = await questions.ask(row.link)
        except ProviderUnavailable:
            unsaid.append(row)
            continue
        await judge.end_held(row, status)
        (ended if status is None else kept).append(row)
    return LetGo(ended, kept, unsaid)
