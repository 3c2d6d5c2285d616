"""A short memory for passwords that a provider accepted."""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from synapse_login_module.model import Account, Identifier, canonical_email, fold

_KEY_SIZE = 32


@dataclass(frozen=True)
class _Entry:
    identifier: Identifier
    account: Account
    expires_at: float

    @property
    def names(self) -> set[str]:
        """What the account may be meant by."""
        addresses = (canonical_email(address) for address in self.account.emails)
        names = (str(self.identifier), self.account.user_id, *filter(None, addresses))
        return {fold(name) for name in names}


class PasswordCache:
    """Remembers for a short while which passwords a provider accepted.

    What is kept is no password and no hash that could be tried against a list of passwords without
    this process' memory: an HMAC-SHA-256 under a key that is made at the start and never written.
    An account's status is never remembered.

    :param lifetime: for how many seconds a password is remembered. So long a password that was
        changed or taken away goes on being good.
    :param entries: how many are remembered; the oldest go first.
    :param clock: a clock that never goes back.
    :param random: makes that many random bytes.
    """

    def __init__(
        self,
        lifetime: float,
        entries: int,
        clock: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._lifetime = lifetime
        self._size = entries
        self._clock = clock
        self._key = random(_KEY_SIZE)
        # In order of their ends. Each account has one, and is found by any of its names.
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._tags: dict[str, bytes] = {}
        self._accounts: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, identifier: Identifier, password: str) -> Account | None:
        """Find the account that a password was accepted for, without its status."""
        entry = self._entries.get(self._tag(identifier, password))
        return entry.account if entry is not None and self._clock() < entry.expires_at else None

    def answered(self, identifier: Identifier, password: str, account: Account | None) -> None:
        """Remember a password that the provider accepted, or evict an account that is gone."""
        if account is None:
            self.evict(identifier)
        else:
            tag = self._tag(identifier, password)
            self._remember(tag, identifier, replace(account, status=None))

    def evict(self, identifier: Identifier) -> None:
        """Evict every account that may be meant, as when its password was rejected."""
        for user_id in tuple(self._accounts.get(fold(str(identifier)), ())):
            self._drop(user_id)

    def _tag(self, identifier: Identifier, password: str) -> bytes:
        name = f"{type(identifier).__name__} {identifier}".encode("utf-8", "surrogatepass")
        message = len(name).to_bytes(8, "big") + name + password.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, message, "sha256")

    def _remember(self, tag: bytes, identifier: Identifier, account: Account) -> None:
        """Keep the newest password of an account, under whatever name it came, and no older one."""
        now = self._clock()
        self._drop(account.user_id)
        if tag in self._entries:
            self._drop(self._entries[tag].account.user_id)
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if len(self._entries) < self._size and now < oldest.expires_at:
                break
            self._drop(oldest.account.user_id)
        entry = _Entry(identifier, account, now + self._lifetime)
        self._entries[tag] = entry
        self._tags[account.user_id] = tag
        for name in entry.names:
            self._accounts.setdefault(name, set()).add(account.user_id)

    def _drop(self, user_id: str) -> None:
        """Forget an account, if it is remembered."""
        tag = self._tags.pop(user_id, None)
        if tag is None:
            return
        for name in self._entries.pop(tag).names:
            accounts = self._accounts[name]
            accounts.discard(user_id)
            if not accounts:
                del self._accounts[name]
