"""The accounts of a ``users:`` mapping, checked and indexed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from synapse_login_module.config.validation import Strict, validate
from synapse_login_module.errors import Mistakes
from synapse_login_module.hashes import Kind, parse_hash
from synapse_login_module.model import (
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    canonical_email,
    fold,
    localpart_from,
)

_LONGEST_MSISDN = 15


def _usable_hash(given: str) -> str:
    try:
        parse_hash(given)
    except ValueError as error:
        raise ValueError(f"{error} (hash-password makes a new one)") from None
    return given


def _localpart(given: str) -> str:
    if given.startswith("@") and ":" in given:
        raise ValueError("a full user ID: write what stands between the @ and the colon")
    if len(given) > 255 or localpart_from(given) is None:
        raise ValueError("not a local part of a user ID: ASCII letters, digits, . _ = - / +")
    return given


def _msisdn(given: str) -> str:
    if not (given.isascii() and given.isdigit()):
        raise ValueError("digits alone, with the country code: 447700900123")
    if given.startswith("0") or len(given) > _LONGEST_MSISDN:
        raise ValueError("not with the country code, without a 0 before it: 447700900123")
    return given


def _email(given: str) -> str:
    if canonical_email(given) is None or given.strip().startswith("@") or given[-1:] == "@":
        raise ValueError("not an e-mail address")
    return given


class User(Strict):
    """One account."""

    hints: ClassVar[Mapping[str, str]] = {
        "password": "write password_hash, and in it what synapse-login-module hash-password prints"
    }

    password_hash: Annotated[str, AfterValidator(_usable_hash)]
    emails: Annotated[tuple[Annotated[str, AfterValidator(_email)], ...], Field(strict=False)] = ()
    phones: Annotated[tuple[Annotated[str, AfterValidator(_msisdn)], ...], Field(strict=False)] = ()
    display_name: str | None = None
    locked: bool = False
    deactivated: bool = False

    @property
    def status(self) -> AccountStatus:
        """The status of the account."""
        if self.deactivated:
            return AccountStatus.DEACTIVATED
        return AccountStatus.LOCKED if self.locked else AccountStatus.ACTIVE


class UsersFile(Strict):
    """The top of a users file."""

    users: dict[Annotated[str, AfterValidator(_localpart)], User]


@dataclass(frozen=True)
class UserIndex:
    """An index of accounts by all of their names.

    :param users: the accounts, by name as stored.
    :param by_folded: the names as stored, by the name that
        :func:`~synapse_login_module.model.fold` makes of each.
    :param by_email: the names as stored, by canonical e-mail address.
    :param by_phone: the names as stored, by telephone number.
    :param kinds: how many hashes there are of each kind. They are counted with the reading, which
        is done on a thread when the file has changed.
    """

    users: Mapping[str, User]
    by_folded: Mapping[str, str]
    by_email: Mapping[str, str]
    by_phone: Mapping[str, str]
    kinds: Counter[Kind]

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> UserIndex:
        """Check and index a mapping with the one key ``users``.

        :raise ConfigError: names the path of every mistake.
        """
        users = validate(UsersFile, given).users
        folded: dict[str, str] = {}
        mistakes = Mistakes()
        for name in users:
            other = folded.setdefault(fold(name), name)
            if other != name:
                mistakes.add(f"users.{name}", same_user_id(name, other))
        read = cls(
            users,
            folded,
            _index(mistakes, users, "emails", lambda user: _canonical(user.emails)),
            _index(mistakes, users, "phones", lambda user: user.phones),
            Counter(parse_hash(user.password_hash).kind for user in users.values()),
        )
        mistakes.raise_any()
        return read

    def find(self, identifier: Identifier, server_name: str) -> str | None:
        """Find the account of an identifier; return its name as stored, or ``None``."""
        if isinstance(identifier, EmailIdentifier):
            return self.by_email.get(identifier.address)
        if isinstance(identifier, PhoneIdentifier):
            return self.by_phone.get(identifier.msisdn)
        return self.find_user(identifier.user_id, server_name)

    def find_user(self, user_id: UserId, server_name: str) -> str | None:
        """Find the account of a user ID, in any case; return its name as stored, or ``None``."""
        if user_id.server_name != server_name:
            return None
        return self.by_folded.get(fold(user_id.localpart))


def same_user_id(name: str, other: str) -> str:
    """Describe the problem of two names that make the same user ID."""
    return f"{name} differs from {other} in case alone: both would be one user ID"


def _canonical(addresses: tuple[str, ...]) -> list[str]:
    """Return the valid e-mail addresses in canonical form."""
    canonical = [canonical_email(address) for address in addresses]
    return [address for address in canonical if address is not None]


def _index(mistakes: Mistakes, users: Mapping[str, User], field: str, names: Any) -> dict[str, str]:
    index: dict[str, str] = {}
    for localpart, user in users.items():
        for name in names(user):
            other = index.setdefault(name, localpart)
            if other != localpart:
                mistakes.add(f"users.{localpart}.{field}", f"{other} has the same one")
    return index
