"""The base class of tests against a real slapd."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.internet import reactor as global_reactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, Identifier, UserId, UserIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.ldap.filters import ANY
from synapse_login_module.providers.ldap.messages import Search
from tests.support.certificates import Certificate
from tests.support.slapd import PEOPLE, READER_DN, READER_PASSWORD, Slapd

T = TypeVar("T")

reactor = cast(Any, global_reactor)

PASSWORDS = {"alice": "wonderland", "bob": "can-we-fix-it"}

NOW = 1_790_000_000.0
"""The time of the tests, in 2026."""

SEARCH = {
    "base": PEOPLE,
    "bind_dn": READER_DN,
    "bind_password": READER_PASSWORD,
    "start_tls": False,
}
"""A configuration for the tree of the tests, less its servers."""

_numbers = itertools.count()


def person(uid: str, password: str | None = None, **more: Any) -> str:
    """An entry of a person.

    :param more: further attributes, each a value or a list of them; ``rdn`` replaces ``uid=``.
    """
    rdn = more.pop("rdn", f"uid={uid}")
    below = more.pop("below", PEOPLE)
    attributes: dict[str, Any] = {
        "objectClass": ["inetOrgPerson", "adLike"],
        "cn": f"The {uid}",
        "sn": uid,
        "uid": uid,
        "userPassword": password if password is not None else PASSWORDS.get(uid, f"pw-{uid}"),
        **more,
    }
    lines = [f"dn: {rdn},{below}"]
    for name, values in attributes.items():
        for value in values if isinstance(values, list) else [values]:
            lines.append(f"{name}: {value}")
    return "\n".join(lines) + "\n\n"


ALICE = person(
    "alice",
    cn="Alice Liddell",
    mail=["Alice@Example.com", "alice@example.org"],
    mobile="+44 7700 900123",
    userPrincipalName="a.liddell@ad.example.com",
    sAMAccountName="Alice",
)


def user(localpart: str, server: str = testing.SERVER_NAME) -> UserIdentifier:
    """The user of that name."""
    return UserIdentifier(UserId(localpart, server))


class LDAPCase(TestCase):
    """A test case that makes slapds and providers, ends them, and reads the log.

    No password is ever in the log; it is looked for after each test.
    """

    timeout = 60

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        self.secrets = {READER_PASSWORD, *PASSWORDS.values()}
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(self._check_log)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def slapd(
        self,
        *people: str,
        certificate: Certificate | None = None,
        anonymous: bool = False,
        start: bool = True,
        overlays: Sequence[str] = (),
    ) -> Slapd:
        """A slapd with these people in its tree, Alice among them."""
        slapd = Slapd(certificate, anonymous, overlays)
        self.addCleanup(slapd.remove)
        slapd.fill("".join([ALICE, *people]))
        if start:
            slapd.start()
        return slapd

    def provider(
        self,
        config: Mapping[str, Any],
        hashing: testing.FakeHashing | None = None,
        **environment_keys: Any,
    ) -> LDAPProvider:
        """A provider of this configuration, that ends with the test.

        It is not started, and so does not look for accounts of its own accord.
        """
        environment = replace(
            testing.environment(reactor=reactor), clock=lambda: NOW, **environment_keys
        )
        if hashing is not None:
            environment = replace(environment, hashing=hashing)
        provider = LDAPProvider(LDAPProvider.parse_config(config, Path()), environment)
        self.addCleanup(provider.stopService)
        return provider

    def searching(self, *slapds: Slapd, **more: Any) -> LDAPProvider:
        """A provider that searches, then binds."""
        return self.provider({**SEARCH, "servers": [each.url for each in slapds], **more})

    @property
    def logged(self) -> list[str]:
        """Return the lines that this project's code has logged."""
        return [
            formatEvent(event)
            for event in self.events
            if str(event.get("log_namespace", "")).startswith("synapse_login_module")
        ]

    async def log_in(
        self, provider: IPasswordProvider, name: str | Identifier, password: str | None = None
    ) -> Account | None:
        """Log in; return the account."""
        identifier = user(name) if isinstance(name, str) else name
        if password is None:
            password = PASSWORDS.get(str(name), f"pw-{name}")
        return await provider.authenticate(identifier, password)

    async def assert_logs_in(
        self,
        provider: IPasswordProvider,
        name: str | Identifier,
        password: str | None = None,
        user_id: str | None = None,
    ) -> Account:
        """Check that a login succeeds, with this user ID."""
        account = await self.log_in(provider, name, password)
        assert account is not None, name
        self.assertEqual(account.user_id, user_id or f"@{name}:{testing.SERVER_NAME}")
        return account

    async def assert_rejected(
        self, provider: IPasswordProvider, name: str | Identifier, password: str = "looking-glass"
    ) -> None:
        """Assert that the provider knows the user and rejects the password."""
        self.secrets.add(password)
        with self.assertRaises(InvalidCredentials):
            await self.log_in(provider, name, password)

    async def entry_uuid(self, provider: LDAPProvider, uid: str) -> str:
        """Read the entryUUID of an entry."""
        search = Search(f"uid={uid},{PEOPLE}", False, ANY, ["entryUUID"])
        (found,) = await provider._directory.look(search)
        return found.entries[0].attributes["entryuuid"][0].decode("ascii")

    async def unavailable(self, provider: IPasswordProvider, name: str = "alice") -> str:
        """Assert that a login is an outage; return its message."""
        with self.assertRaises(ProviderUnavailable) as raised:
            await self.log_in(provider, name)
        message = str(raised.exception)
        self.assertNotIn("\n", message)
        for secret in self.secrets:
            self.assertNotIn(secret, message)
        return message

    def _check_log(self) -> None:
        for event in self.events:
            line = formatEvent(event) + repr(event)
            for secret in self.secrets:
                if secret and secret in line:
                    self.fail(f"the secret {secret!r} was logged: {line}")
