"""Fakes of the environment of providers and stores, and of a provider."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.hashes import Kind, NewHashes
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.interfaces import IHashing, IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier, TokenPolicy
from synapse_login_module.passwords import check_password, make_hash
from synapse_login_module.plugin import Environment
from synapse_login_module.tokens.format import KEY_SIZE, KeyRing

SERVER_NAME = "example.com"


@implementer(IHashing)
class FakeHashing:
    """Hashes at once, on the caller's thread.

    :ivar decoys: the passwords that decoys were requested for.
    :ivar kinds: the kinds that were reported.
    :ivar new: how new hashes are made.
    :ivar failure: while it is set, every Deferred fails with it.
    """

    def __init__(self) -> None:
        self.decoys: list[str] = []
        self.kinds: list[Kind] = []
        self.new: NewHashes = new_hashes(4)
        self.failure: Exception | None = None

    @property
    def kind(self) -> Kind:
        """The kind of new hashes."""
        return self.new.kind

    def check(
        self, password: str, password_hash: str, pepper: str, normalize: bool | None = None
    ) -> Deferred[bool]:
        """Check a password at once."""
        if self.failure is not None:
            return fail(self.failure)
        try:
            return succeed(check_password(password, password_hash, pepper, normalize))
        except ValueError:
            return self.decoy(password).addCallback(lambda _: False)

    def hash(self, password: str, pepper: str, normalize: bool | None = None) -> Deferred[str]:
        """Hash a password at once."""
        if self.failure is not None:
            return fail(self.failure)
        return succeed(make_hash(password, pepper, self.new, normalize))

    def decoy(self, password: str) -> Deferred[None]:
        """Record the password."""
        if self.failure is not None:
            return fail(self.failure)
        self.decoys.append(password)
        return succeed(None)

    def report_kind(self, kind: Kind, source: object = None) -> None:
        """Record the kind."""
        self.kinds.append(kind)


@implementer(IPasswordProvider)
class FakeProvider:
    """A provider of the accounts that a test gives it.

    :param passwords: the passwords by full user ID.
    :ivar statuses: the statuses of accounts that are not active, by full user ID.
    :ivar failure: while it is set, every Deferred fails with it.
    """

    name = "fake"

    def __init__(self, passwords: dict[str, str]) -> None:
        self.passwords = passwords
        self.statuses: dict[str, AccountStatus] = {}
        self.failure: Exception | None = None

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Compare the password."""
        if self.failure is not None:
            return fail(self.failure)
        known_as = str(identifier)
        known = self.passwords.get(known_as)
        if known is None:
            return succeed(None)
        if known != password:
            return fail(InvalidCredentials(user_id=str(identifier)))
        status = self.statuses.get(known_as, AccountStatus.ACTIVE)
        return succeed(Account(known_as, status=status, subject=known_as))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look up the status."""
        if self.failure is not None:
            return fail(self.failure)
        if subject not in self.passwords:
            return succeed(None)
        return succeed(self.statuses.get(subject, AccountStatus.ACTIVE))


def environment(
    reactor: Any = None,
    policy: TokenPolicy | None = None,
    clock: Clock | None = None,
    delegated: bool = False,
) -> Environment:
    """Make an environment for a provider or a store, with a :class:`FakeHashing`.

    :param reactor: the reactor; ``None`` for the clock.
    :param policy: the lifetimes; ``None`` for the defaults.
    :param clock: the clock, which only the test advances; ``None`` for a new one.
    :param delegated: whether a homeserver delegates to the server.
    """
    clock = clock or Clock()
    return Environment(
        server_name=SERVER_NAME,
        reactor=reactor or clock,
        hashing=FakeHashing(),
        clock=clock.seconds,
        random=os.urandom,
        policy=policy or TokenPolicy(),
        keys=KeyRing({1: os.urandom(KEY_SIZE)}),
        delegated=delegated,
    )
