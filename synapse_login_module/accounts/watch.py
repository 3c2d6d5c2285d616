"""Interfaces of the sweep and the judge, besides the links: how sessions end, and metrics."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from synapse_login_module.model import AccountStatus


class EndReason(enum.Enum):
    """Why a session ends. The values are labels of a metric."""

    REVOKED = "revoked"
    REPLACED = "replaced"
    REUSED = "reused"
    GONE = "gone"
    DEACTIVATED = "deactivated"
    UNLINKED = "unlinked"
    RELINKED = "relinked"

    @property
    def is_of_account(self) -> bool:
        """Whether all sessions, login tokens and pushers of the account end."""
        return self in _OF_ACCOUNTS


_OF_ACCOUNTS = frozenset(
    (EndReason.GONE, EndReason.DEACTIVATED, EndReason.UNLINKED, EndReason.RELINKED)
)


class Endings(Protocol):
    """Ends sessions and locks users at the homeserver, or at the token store."""

    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        """End all sessions of a user; fires with how many there were."""

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        """Tell the homeserver whether a user is locked."""


class Providers(Protocol):
    """All providers together, as the watch asks them."""

    def account_status(self, provider: str, subject: str) -> Deferred[AccountStatus | None]:
        """Ask the provider that has this name, or had it once."""

    def status_by_name(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask all providers about a user without a link."""


class SweepMeter(NamedTuple):
    """Receives the metrics of the sweep.

    :param lag: called with the seconds by which the sweep is behind.
    :param held: called with how many accounts the brake holds.
    :param links: called with a provider's name and how many of its linked accounts are not gone.
    """

    lag: Callable[[float], None]
    held: Callable[[int], None]
    links: Callable[[str, int], None]


def in_milliseconds(seconds: float) -> int:
    """Convert a clock's seconds to the whole milliseconds that the links store."""
    return int(seconds * 1000)
