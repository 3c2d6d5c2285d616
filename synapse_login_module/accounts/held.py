"""Lists the gone accounts that the brake holds; ends their sessions when an operator says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import WatchedLink

_PAGE = 500


class LetGo(NamedTuple):
    """The outcome of letting held accounts go.

    :param ended: the accounts whose sessions have ended.
    :param kept: the accounts that their provider knows again.
    :param unsaid: the accounts whose provider was unavailable. They are still held.
    """

    ended: Sequence[WatchedLink]
    kept: Sequence[WatchedLink]
    unsaid: Sequence[WatchedLink]


async def find_held(links: ILinkWatch) -> list[WatchedLink]:
    """List the links of all held accounts, in the order of their user IDs."""
    held: list[WatchedLink] = []
    after = ""
    while rows := await links.page((), after, _PAGE, held=True):
        held += rows
        after = rows[-1].user_id
    return held


async def let_go(
    held: Sequence[WatchedLink],
    questions: Questions,
    judge: Judge,
    tell: Callable[[int], object] = lambda number: None,
) -> LetGo:
    """Ask the providers about held accounts again, and act on the answers without the brake.

    :param tell: called with how many more are done.
    """
    ended: list[WatchedLink] = []
    kept: list[WatchedLink] = []
    unsaid: list[WatchedLink] = []
    for row in held:
        tell(1)
        try:
            status = await questions.ask(row.link)
        except ProviderUnavailable:
            unsaid.append(row)
            continue
        await judge.end_held(row, status)
        (ended if status is None else kept).append(row)
    return LetGo(ended, kept, unsaid)
