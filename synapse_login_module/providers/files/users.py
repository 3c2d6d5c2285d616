"""The accounts of a ``users:`` mapping, checked and indexed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from synapse_login_module.config.validation import Strict, validate
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import (
    Account,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
)
from synapse_login_module.passwords import cost_of


def _bcrypt_hash(given: str) -> str:
    try:
        cost_of(given)
    except ValueError:
        raise ValueError("not a bcrypt hash: make one with hash-password") from None
    return given


def _localpart(given: str) -> str:
    if not given or len(given) > 255 or set(given) & set(":@") or not given.isprintable():
        raise ValueError("not a local part of a user ID")
    return given


def _msisdn(given: str) -> str:
    if not (given.isascii() and given.isdigit()):
        raise ValueError("not an MSISDN: digits alone, with the country code")
    return given


class User(Strict):
    """One account."""

    password_hash: Annotated[str, AfterValidator(_bcrypt_hash)]
    emails: Annotated[tuple[str, ...], Field(strict=False)] = ()
    phones: Annotated[tuple[Annotated[str, AfterValidator(_msisdn)], ...], Field(strict=False)] = ()
    display_name: str | None = None
    locked: bool = False
    deactivated: bool = False

    @property
    def status(self) -> AccountStatus:
        """What becomes of the account's logins."""
        if self.deactivated:
            return AccountStatus.DEACTIVATED
        return AccountStatus.LOCKED if self.locked else AccountStatus.ACTIVE


class UsersFile(Strict):
    """The top of a users file."""

    users: dict[Annotated[str, AfterValidator(_localpart)], User]


@dataclass(frozen=True)
class Directory:
    """Accounts, found by any of their names.

    :param users: by local part, as stored.
    """

    users: Mapping[str, User]
    by_folded: Mapping[str, str | None]
    by_email: Mapping[str, str]
    by_phone: Mapping[str, str]

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Directory:
        """Check a mapping with the one key ``users``.

        :raise ConfigError: naming the path of the first thing wrong.
        """
        users = validate(UsersFile, given).users
        folded: dict[str, str | None] = {}
        for localpart in users:
            low = localpart.lower()
            folded[low] = None if low in folded else localpart
        return cls(
            users,
            folded,
            _index(users, "emails", lambda user: [each.lower() for each in user.emails]),
            _index(users, "phones", lambda user: list(user.phones)),
        )

    def find(self, identifier: Identifier, server_name: str) -> str | None:
        """The local part, as stored, of the account that an identifier names."""
        if isinstance(identifier, EmailIdentifier):
            return self.by_email.get(identifier.address)
        if isinstance(identifier, PhoneIdentifier):
            return self.by_phone.get(identifier.msisdn)
        return self.find_user(identifier.user_id, server_name)

    def find_user(self, user_id: UserId, server_name: str) -> str | None:
        """The local part as stored: spelled just so, or alone in being so spelled but for case."""
        if user_id.server_name != server_name:
            return None
        if user_id.localpart in self.users:
            return user_id.localpart
        return self.by_folded.get(user_id.localpart.lower())

    def account(self, localpart: str, server_name: str) -> Account:
        """The account of a stored local part."""
        user = self.users[localpart]
        return Account(str(UserId(localpart, server_name)), user.display_name, user.emails)

    @cached_property
    def usual_cost(self) -> int | None:
        """The cost of most of the hashes."""
        costs = Counter(cost_of(user.password_hash) for user in self.users.values())
        return costs.most_common(1)[0][0] if costs else None


def _index(users: Mapping[str, User], field: str, names: Any) -> dict[str, str]:
    index: dict[str, str] = {}
    for localpart, user in users.items():
        for name in names(user):
            if index.setdefault(name, localpart) != localpart:
                raise ConfigError(f"users.{localpart}.{field}", "another user has the same one")
    return index
