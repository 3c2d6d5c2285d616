"""A short-lived cache of passwords that a provider accepted."""

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
        """The folded names that a client may identify the account by."""
        addresses = (canonical_email(address) for address in self.account.emails)
        names = (str(self.identifier), self.account.user_id, *filter(None, addresses))
        return {fold(name) for name in names}


class PasswordCache:
    """A short-lived cache of passwords that a provider accepted.

    It holds no password. It holds an HMAC-SHA-256 under a key that is made at the start and never
    written. So passwords can be tried against an entry only with this process' memory. The status
    of an account is never cached, nor whether it is an administrator.

    :param lifetime: how many seconds a password is cached. A password that was changed or removed
        at the provider is accepted until then.
    :param entries: the most accounts that are cached. The oldest entry is evicted first.
    :param clock: a monotonic clock, in seconds.
    :param random: returns the given number of random bytes.
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
        # Sorted by expiry. An account has one entry, its tag, and is found by any of its names.
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._tags: dict[str, bytes] = {}
        self._accounts: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, identifier: Identifier, password: str) -> Account | None:
        """Return the account that the password was accepted for, without its status, if cached."""
        entry = self._entries.get(self._tag(identifier, password))
        return entry.account if entry is not None and self._clock() < entry.expires_at else None

    def update(self, identifier: Identifier, password: str, account: Account | None) -> None:
        """Cache a password that the provider accepted, or evict an account that it does not know.

        :param account: what the provider returned.
        """
        if account is None:
            self.evict(identifier)
        else:
            tag = self._tag(identifier, password)
            self._insert(tag, identifier, replace(account, status=None, admin=None))

    def evict(self, identifier: Identifier) -> None:
        """Evict every account that the identifier may mean, because its password was rejected."""
        for user_id in tuple(self._accounts.get(fold(str(identifier)), ())):
            self._delete(user_id)

    def _tag(self, identifier: Identifier, password: str) -> bytes:
        name = f"{type(identifier).__name__} {identifier}".encode("utf-8", "surrogatepass")
        message = len(name).to_bytes(8, "big") + name + password.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, message, "sha256")

    def _insert(self, tag: bytes, identifier: Identifier, account: Account) -> None:
        """Insert an entry in the place of the account's previous one, whatever name that was under.

        Evict the entries that have expired, and the oldest one if the cache is full.
        """
        now = self._clock()
        self._delete(account.user_id)
        if tag in self._entries:
            self._delete(self._entries[tag].account.user_id)
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if len(self._entries) < self._size and now < oldest.expires_at:
                break
            self._delete(oldest.account.user_id)
        entry = _Entry(identifier, account, now + self._lifetime)
        self._entries[tag] = entry
        self._tags[account.user_id] = tag
        for name in entry.names:
            self._accounts.setdefault(name, set()).add(account.user_id)

    def _delete(self, user_id: str) -> None:
        """Delete the entry of an account, if there is one."""
        tag = self._tags.pop(user_id, None)
        if tag is None:
            return
        for name in self._entries.pop(tag).names:
            accounts = self._accounts[name]
            accounts.discard(user_id)
            if not accounts:
                del self._accounts[name]
