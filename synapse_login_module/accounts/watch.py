"""What watching over linked accounts needs beside the links: who is asked, and what is done."""

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
        """Whether the whole account ends with it, and with that all that hangs on it."""
        return self in _OF_ACCOUNTS


_OF_ACCOUNTS = frozenset(
    (EndReason.GONE, EndReason.DEACTIVATED, EndReason.UNLINKED, EndReason.RELINKED)
)


class Endings(Protocol):
    """What can be done to an account at the homeserver."""

    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        """End all sessions of a user; fires with how many there were."""

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        """Tell the homeserver that a user is locked, or is no longer."""


class Providers(Protocol):
    """Who is asked about accounts."""

    def account_status(self, provider: str, subject: str) -> Deferred[AccountStatus | None]:
        """Ask the provider of this name, or former name."""

    def status_by_name(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask all providers about an account that is linked to none."""


class SweepMeter(NamedTuple):
    """Where the sweep is seen.

    :param lag: called with how many seconds it is behind.
    :param brake: called with whether the brake holds anybody.
    :param links: called with a provider's name and how many links it has.
    """

    lag: Callable[[float], None]
    brake: Callable[[bool], None]
    links: Callable[[str, int], None]


def in_milliseconds(seconds: float) -> int:
    """A moment of a clock, as the links keep it."""
    return int(seconds * 1000)
