"""A password provider with subjects of its own. The Synapse under test loads it, no test does.

Its file, YAML, is read at each request: names, exactly as they are to be given, and for each of
them ``password``, and perhaps ``subject``, ``user_id`` (full), ``emails``, ``display_name``,
``status`` and ``admin``. A name that begins with ``*`` stands for any spelling of the rest in upper
and lower case; such an account has no spelling of its own, so that the folded name is its subject.

While there is a file ``no-directory`` beside it, nothing can be known about administrators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer, provider

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import INamesAdministrators, IPasswordProvider
from synapse_login_module.model import (
    Account,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    UserId,
    UserIdentifier,
    fold,
    localpart_from,
)
from synapse_login_module.plugin import Environment, IPluginClass
from tests.synapse import whole_log  # noqa: F401


@implementer(IPasswordProvider, INamesAdministrators)
@provider(IPluginClass)
class PeopleProvider:
    """See above."""

    name = "people"
    names_administrators = True

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        return folder / str(config["path"])

    def __init__(self, config: Path, environment: Environment) -> None:
        self._path = config
        self._server = environment.server_name

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        for name, account, right in self._people():
            if _is_named(name, account, identifier):
                if right != password:
                    return fail(InvalidCredentials(user_id=account.user_id))
                return succeed(account)
        return succeed(None)

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        localpart = subject[1:].partition(":")[0] if subject.startswith("@") else None
        for name, account, _ in self._people():
            if subject == account.subject or localpart == name:
                return succeed(account.status)
        return succeed(None)

    def is_administrator(self, subject: str) -> Deferred[bool | None]:
        if (self._path.parent / "no-directory").exists():
            return fail(ProviderUnavailable("there is no directory"))
        found = [account for _, account, _ in self._people() if account.subject == subject]
        return succeed(found[0].admin if found else None)

    def _people(self) -> Iterator[tuple[str, Account, str]]:
        people = yaml.safe_load(self._path.read_text()) if self._path.exists() else {}
        for name, person in (people or {}).items():
            spelled = name.lstrip("*")
            made = UserId(localpart_from(spelled) or spelled, self._server)
            account = Account(
                person.get("user_id", str(made)),
                display_name=person.get("display_name"),
                emails=tuple(person.get("emails", ())),
                status=AccountStatus(person.get("status", "active")),
                subject=person.get("subject", spelled),
                admin=person.get("admin"),
            )
            yield name, account, person["password"]


def _is_named(name: str, account: Account, identifier: Identifier) -> bool:
    if isinstance(identifier, EmailIdentifier):
        return identifier.address in account.emails
    if not isinstance(identifier, UserIdentifier):
        return False
    typed = identifier.user_id.localpart
    return fold(typed) == name[1:] if name.startswith("*") else typed == name
