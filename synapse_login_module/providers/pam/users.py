"""The users of the system that may be accounts. All calls may block."""

from __future__ import annotations

import pwd
from collections.abc import Callable, Collection
from dataclasses import dataclass

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model import fold
from synapse_login_module.providers.identifiers import id_in, with_tag
from synapse_login_module.providers.pam import nss
from synapse_login_module.providers.pam.nss import UnixUser

_NOBODY = 65534
"""The number of the user who owns nothing. Linux also shows it for numbers that it cannot show."""

_MOST = 2**32 - 2
"""The highest number of a user."""


@dataclass(frozen=True)
class UnixUsers:
    """The users that may be accounts.

    :param min_uid: the lowest number; the superuser is never an account.
    :param groups: the groups of which a user has to be in one; empty for no such condition.
    :param by_name: finds the user of a name.
    :param by_uid: finds the user of a number.
    """

    min_uid: int
    groups: Collection[str] = ()
    by_name: Callable[[str], UnixUser | None] = nss.user_named
    by_uid: Callable[[int], UnixUser | None] = nss.user_numbered

    def typed(self, name: str) -> UnixUser | None:
        """Find the user of a name that a person typed; if there is none, in lower case."""
        low = fold(name)
        return self.named(name) or (None if low == name else self.named(low))

    def named(self, name: str) -> UnixUser | None:
        """Find the user of a name; return ``None`` if there is none, or none that is allowed."""
        return None if "\0" in name else self._allowed(self.by_name(name))

    def of_subject(self, subject: str) -> UnixUser | None:
        """Find the user of a subject, whatever kind of :func:`subject_of` it is."""
        given = id_in(subject)
        if given is None:
            return self.named(subject)
        number, colon, name = given.partition(":")
        if not (number.isascii() and number.isdecimal() and int(number) <= _MOST):
            return None
        user = self.named(name) if colon else self._allowed(self.by_uid(int(number)))
        return user if user is not None and user.uid == int(number) else None

    def example(self) -> UnixUser | None:
        """Return one user of those that the name service lists; it may list none."""
        names = (entry.pw_name for entry in pwd.getpwall() if entry.pw_uid >= self.min_uid)
        return next(filter(None, map(self.named, names)), None)

    def _allowed(self, user: UnixUser | None) -> UnixUser | None:
        if user is None or user.uid < max(self.min_uid, 1) or user.uid == _NOBODY:
            return None
        if not self.groups:
            return user
        numbers = {nss.number_of_group(group) for group in self.groups} - {None}
        if not numbers:
            raise ProviderUnavailable(f"there is no group {' or '.join(self.groups)}")
        if numbers & nss.groups_of(user):
            return user
        nss.require_groups()
        return None


def subject_of(user: UnixUser, kind: str) -> str:
    """Return the subject of a user.

    :param kind: ``uid``, ``name``, or ``both`` for the number and the name.
    """
    if kind == "name":
        return user.name
    return with_tag(str(user.uid) if kind == "uid" else f"{user.uid}:{user.name}")
