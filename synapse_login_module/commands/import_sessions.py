"""The sessions that ``import-synapse`` takes over."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from twisted.internet.task import deferLater

from synapse_login_module.commands.backends import Opened
from synapse_login_module.commands.import_links import KnownAccounts
from synapse_login_module.commands.import_report import Tally
from synapse_login_module.commands.progress import progress
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IImportsSessions
from synapse_login_module.model import (
    DevicelessTokens,
    HomeserverDevice,
    HomeserverUser,
    ImportOutcome,
)
from synapse_login_module.stores.imported import LIFETIME

WHAT = "sessions"

PAGE = 2000
"""How many access tokens are read, and taken over in one transaction. A running server waits for
the transaction, so it has to be short."""

_DONE = {
    ImportOutcome.TAKEN: "taken",
    ImportOutcome.RENEWED: "renewed",
    ImportOutcome.KNOWN: "there already",
}
_LEFT = {
    ImportOutcome.IN_USE: "its device has a session here already",
    ImportOutcome.ENDED: "it was taken over before and has ended here",
}


class Source(Protocol):
    """Where accounts and sessions are taken over from."""

    server_name: str
    pepper: str

    def users(self, page: int) -> Iterator[list[HomeserverUser]]:
        """Read all accounts, in pages."""

    def devices(self, page: int, now: int) -> Iterator[list[HomeserverDevice]]:
        """Read the tokens of all devices, in pages."""

    def number_of_users(self) -> int:
        """Count the accounts."""

    def number_of_tokens(self) -> int:
        """Count the access tokens of devices."""

    def without_device(self) -> list[DevicelessTokens]:
        """Count the access tokens that are of no device, by user."""

    def close(self) -> None:
        """Close the database."""


async def import_sessions(
    source: Source, opened: Opened, tally: Tally, write: bool, reactor: Any
) -> None:
    """Take over all sessions whose accounts are known.

    :param write: ``False`` to count only.
    :raise ConfigError: when the store cannot take sessions over.
    """
    store: Any = opened.store
    if not IImportsSessions.providedBy(store):
        raise ConfigError("token_store.module", "this store cannot take over sessions")
    known = KnownAccounts(opened)
    with progress("access tokens", source.number_of_tokens()) as update:
        for devices in source.devices(PAGE, int(time.time() * 1000)):
            await _import_page(devices, store, known, tally, write)
            update(sum(each.tokens for each in devices))
    for each in source.without_device():
        own = each.tokens - each.puppets
        if own:
            reason = "they are of no device"
            tally.left(WHAT, f"{each.user_id}: {own} access tokens", reason, own)
        if each.puppets:
            reason = "they are an administrator's, who acts as another user"
            tally.left(WHAT, f"{each.user_id}: {each.puppets} access tokens", reason, each.puppets)
    if write and tally.number(WHAT, "taken"):
        # A running server that had none before looks for imported tokens once in this time.
        await deferLater(reactor, LIFETIME)


async def _import_page(
    devices: Sequence[HomeserverDevice],
    store: Any,
    known: KnownAccounts,
    tally: Tally,
    write: bool,
) -> None:
    users = dict.fromkeys(each.user_id for each in devices if each.session is not None)
    problems = await known.problems(list(users))
    wanted = []
    for each in devices:
        problem = each.problem or problems[each.user_id]
        if problem is not None or each.session is None:
            tally.left(WHAT, f"{each.user_id} {each.device_id}", problem or "")
        else:
            wanted.append(each.session)
    outcomes = await store.import_sessions(wanted, write)
    for session, outcome in zip(wanted, outcomes, strict=True):
        if outcome in _LEFT:
            tally.left(WHAT, f"{session.user_id} {session.device_id}", _LEFT[outcome])
        else:
            tally.done(WHAT, _DONE[outcome])
