"""Groups that list their members, and searches that tell whether an account is in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synapse_login_module.model import fold
from synapse_login_module.providers.ldap.filters import (
    ANY,
    equals,
    matches,
    one_of,
)
from synapse_login_module.providers.ldap.messages import Entry, Search
from synapse_login_module.providers.ldap.statuses import NO_ATTRIBUTES

_IN_CHAIN = "1.2.840.113556.1.4.1941"
"""Active Directory's matching rule that follows groups within groups."""

_SID = "objectSid"
_PRIMARY = "primaryGroupID"
_GID = "gidNumber"


def _posix(group: str, entry: Entry, uid: str) -> Sequence[Search]:
    """Search by the name of the account (RFC 2307), and by the number of its primary group."""
    names = entry.attributes.get(fold(uid)) or (b"",)
    numbers = entry.attributes.get(fold(_GID), ())
    wanted = [equals("memberUid", each) for each in names]
    return [_base(group, one_of([*wanted, *(equals(_GID, each) for each in numbers)]))]


def _names(group: str, entry: Entry, uid: str) -> Sequence[Search]:
    """Search by the distinguished name of the entry."""
    return [_base(group, one_of([equals("member", entry.dn), equals("uniqueMember", entry.dn)]))]


def _active_directory(group: str, entry: Entry, uid: str) -> Sequence[Search]:
    """Search in Active Directory, which does not list an account in its primary group.

    So there are two searches: is the entry in the group, and is its primary group the group, or in
    it. The id of the primary group is that of the account with another last number.
    """
    is_within = matches(_IN_CHAIN, "memberOf", group)
    primary = _primary_group(entry)
    return [
        _base(entry.dn, is_within),
        _base(primary, one_of([equals("distinguishedName", group), is_within])),
    ]


def _primary_group(entry: Entry) -> str | bytes:
    sids = entry.attributes.get(fold(_SID), ())
    numbers = entry.attributes.get(fold(_PRIMARY), ())
    if len(sids) != 1 or len(numbers) != 1 or not numbers[0].isdigit():
        return entry.dn  # which is not a group
    sid = sids[0][:-4] + (int(numbers[0]) % 2**32).to_bytes(4, "little")
    return f"<SID={sid.hex()}>"


def _base(name: str | bytes, wanted: Any) -> Search:
    return Search(name, False, wanted, NO_ATTRIBUTES)


KINDS: Mapping[str, Callable[[str, Entry, str], Sequence[Search]]] = {
    "posix": _posix,
    "names": _names,
    "active_directory": _active_directory,
}
"""The values of ``group_type``. Each makes the searches for one group; one result with an entry
says that the account is a member.
"""

_READ: Mapping[str, Sequence[str]] = {
    "posix": (_GID,),
    "names": (),
    "active_directory": (_SID, _PRIMARY),
}


class Groups:
    """The groups of which an account has to be in one.

    :param names: their distinguished names.
    :param kind: a key of :data:`KINDS`.
    :param uid: the attribute with the name of an account.
    :ivar attributes: the attributes that an entry has to be read with.
    """

    def __init__(self, names: Sequence[str], kind: str, uid: str) -> None:
        self.names = names
        self._searches = KINDS[kind]
        self._uid = uid
        self.attributes = (uid, *_READ[kind])

    def searches(self, entry: Entry) -> list[Search]:
        """Return searches, one of which finds an entry if the account is in one of the groups.

        Their number does not depend on the entry.
        """
        return [each for name in self.names for each in self._searches(name, entry, self._uid)]

    def lookups(self) -> list[Search]:
        """Return one search for each of the groups."""
        return [_base(name, ANY) for name in self.names]
