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
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    canonical_email,
    fold,
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

    :param users: by name, as stored.
    :param by_folded: the names as stored, by what :func:`~synapse_login_module.model.fold` makes of
        them.
    """

    users: Mapping[str, User]
    by_folded: Mapping[str, str]
    by_email: Mapping[str, str]
    by_phone: Mapping[str, str]

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Directory:
        """Check a mapping with the one key ``users``.

        :raise ConfigError: naming the path of the first thing wrong.
        """
        users = validate(UsersFile, given).users
        folded: dict[str, str] = {}
        for name in users:
            other = folded.setdefault(fold(name), name)
            if other != name:
                raise ConfigError(f"users.{name}", same_user_id(name, other))
        return cls(
            users,
            folded,
            _index(users, "emails", lambda user: _canonical(user.emails)),
            _index(users, "phones", lambda user: user.phones),
        )

    def find(self, identifier: Identifier, server_name: str) -> str | None:
        """The name, as stored, of the account that an identifier names."""
        if isinstance(identifier, EmailIdentifier):
            return self.by_email.get(identifier.address)
        if isinstance(identifier, PhoneIdentifier):
            return self.by_phone.get(identifier.msisdn)
        return self.find_user(identifier.user_id, server_name)

    def find_user(self, user_id: UserId, server_name: str) -> str | None:
        """The name as stored, in whatever case it is asked for."""
        if user_id.server_name != server_name:
            return None
        return self.by_folded.get(fold(user_id.localpart))

    @cached_property
    def usual_cost(self) -> int | None:
        """The cost of most of the hashes."""
        costs = Counter(cost_of(user.password_hash) for user in self.users.values())
        return costs.most_common(1)[0][0] if costs else None


def same_user_id(name: str, other: str) -> str:
    """What is wrong with a name that makes the same user ID as another does."""
    return f"{name} differs from {other} in case alone: both would be one user ID"


def _canonical(addresses: tuple[str, ...]) -> list[str]:
    """Those that are e-mail addresses, as they are compared."""
    canonical = [canonical_email(address) for address in addresses]
    return [address for address in canonical if address is not None]


def _index(users: Mapping[str, User], field: str, names: Any) -> dict[str, str]:
    index: dict[str, str] = {}
    for localpart, user in users.items():
        for name in names(user):
            if index.setdefault(name, localpart) != localpart:
                raise ConfigError(f"users.{localpart}.{field}", "another user has the same one")
    return index
