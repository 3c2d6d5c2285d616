"""The steps of a login that is walked through."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from synapse_login_module.errors import AccountNotLinked
from synapse_login_module.model import Account

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Step(NamedTuple):
    """One step.

    :param name: what it is about: ``name``, ``limit``, ``provider``, ``account``, ``link``,
        ``homeserver`` or ``unseen``.
    :param text: what happened, for people.
    :param milliseconds: how long it took; ``None`` where that does not matter.
    :param facts: the same for programs; each value is text, a number, a truth value or ``None``.
    """

    name: str
    text: str
    milliseconds: float | None = None
    facts: Mapping[str, Any] = _NOTHING


class Trace:
    """Collects the steps of a login.

    :ivar steps: the steps so far.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, name: str, text: str, seconds: float | None = None, **facts: Any) -> None:
        """Add a step; see :class:`Step`.

        :param seconds: how long it took.
        """
        milliseconds = None if seconds is None else round(seconds * 1000, 1)
        self.steps.append(Step(name, text, milliseconds, facts))

    def has(self, name: str) -> bool:
        """Say whether there is a step of a name."""
        return any(step.name == name for step in self.steps)


def tell_link(trace: Trace, user_id: str, account: Account, is_new: bool) -> None:
    """Add the step of a login that is linked, or would be now."""
    whose = f"{account.subject} of {account.provider}"
    said = "is not linked yet: this login would link it to" if is_new else "is linked to"
    trace.add("link", f"{whose} {said} {user_id}", user_id=user_id, linked=not is_new)


def tell_refused_link(trace: Trace, error: AccountNotLinked) -> None:
    """Add the step of a login that may not be linked."""
    trace.add(
        "link",
        f"{error.user_id} is not linked to it: {error.problem} (to link it: {error.setting})",
        user_id=error.user_id,
        linked=False,
        problem=error.problem,
        setting=error.setting,
    )
