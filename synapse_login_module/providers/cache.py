"""A short memory for passwords that were right."""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier

_KEY_SIZE = 32


@dataclass(frozen=True)
class _Entry:
    identifier: Identifier
    account: Account
    expires_at: float


@implementer(IPasswordProvider)
class PositiveCache:
    """Remembers for a short while whom a provider vouched for, and vouches in its place.

    What is kept is no password and no hash that could be tried against a list of passwords without
    this process' memory: an HMAC-SHA-256 under a key that is made at the start and never written.
    A refusal makes it forget the account; a status is never remembered.

    :param provider: who is asked.
    :param lifetime: for how many seconds a password is remembered. So long a password that was
        changed or taken away goes on being good.
    :param entries: how many are remembered; the oldest go first.
    :param seconds: a clock that never goes back.
    :param random: makes that many random bytes.
    """

    def __init__(
        self,
        provider: IPasswordProvider,
        lifetime: float,
        entries: int,
        seconds: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._provider = provider
        self._lifetime = lifetime
        self._size = entries
        self._seconds = seconds
        self._key = random(_KEY_SIZE)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.name = provider.name

    def __len__(self) -> int:
        return len(self._entries)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Remember, or ask; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        tag = self._tag(identifier, password)
        entry = self._entries.get(tag)
        if entry is not None and self._seconds() < entry.expires_at:
            return succeed(entry.account)

        def vouched(account: Account | None) -> Account | None:
            if account is None:
                self._forget(identifier)
            else:
                self._remember(tag, identifier, replace(account, status=None))
            return account

        def refused(failure: Failure) -> Failure:
            if failure.check(InvalidCredentials):
                self._forget(identifier)
            return failure

        return self._provider.authenticate(identifier, password).addCallbacks(vouched, refused)

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask for a status; it is never remembered."""
        return self._provider.account_status(user_id)

    def _tag(self, identifier: Identifier, password: str) -> bytes:
        name = f"{type(identifier).__name__} {identifier}".encode("utf-8", "surrogatepass")
        message = len(name).to_bytes(8, "big") + name + password.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, message, "sha256")

    def _remember(self, tag: bytes, identifier: Identifier, account: Account) -> None:
        """Keep the newest password of an account, under whatever name it came, and no older one."""
        self._drop(lambda entry: entry.account.user_id == account.user_id)
        while len(self._entries) >= self._size:
            self._entries.popitem(last=False)
        self._entries[tag] = _Entry(identifier, account, self._seconds() + self._lifetime)

    def _forget(self, identifier: Identifier) -> None:
        """Forget whoever may be meant."""
        name = str(identifier).lower()
        accounts = {
            entry.account.user_id
            for entry in self._entries.values()
            if entry.identifier == identifier
            or name == entry.account.user_id.lower()
            or name in (email.lower() for email in entry.account.emails)
        }
        self._drop(lambda entry: entry.account.user_id in accounts)

    def _drop(self, unwanted: Callable[[_Entry], bool]) -> None:
        now = self._seconds()
        for tag, entry in list(self._entries.items()):
            if unwanted(entry) or entry.expires_at <= now:
                del self._entries[tag]
