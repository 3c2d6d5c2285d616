"""Accounts of an LDAP directory, Active Directory among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import (
    MAX_USER_ID,
    Account,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
)
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.ldap.config import LDAPConfig, is_distinguished_name, parse
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.filters import (
    ANY,
    PLACEHOLDER,
    both,
    equals,
    filled,
    filled_name,
    one_of,
)
from synapse_login_module.providers.ldap.messages import (
    CONSTRAINT_VIOLATION,
    INAPPROPRIATE_AUTHENTICATION,
    INVALID_CREDENTIALS,
    NO_SUCH_OBJECT,
    SUCCESS,
    UNWILLING_TO_PERFORM,
    Entry,
    Result,
    Search,
)

T = TypeVar("T")

# Matrix specification, Appendices, "User Identifiers"; capitals are taken for small letters.
_LOCALPART = re.compile(r"[a-zA-Z0-9._=/+-]{1,255}", re.ASCII)
_NO_ATTRIBUTES = ("1.1",)

_REFUSALS = (INVALID_CREDENTIALS, INAPPROPRIATE_AUTHENTICATION, NO_SUCH_OBJECT)
"""What a directory says of a password that it does not take."""

_REFUSALS_OF_THE_LOCKED = (CONSTRAINT_VIOLATION, UNWILLING_TO_PERFORM)
"""What some say of a locked account, before they look at the password."""


@implementer(IPasswordProvider)
@provider(IPluginClass)
class LDAPProvider(Service):
    """Looks an account up in a directory, and binds as it with the password."""

    log = Logger()
    name = "ldap"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> LDAPConfig:
        """Take ``servers``, and ``base`` or ``bind_dn_template``; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return parse(config, folder)

    def __init__(self, config: LDAPConfig, environment: Environment) -> None:
        self._config = config
        self._attributes = config.keys.attributes
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        self._reactor = environment.reactor
        self._directory = Directory(config.settings, environment.reactor)
        if not config.keys.verify_certificate:
            self.log.warn("LDAP: certificates are not checked (verify_certificate: false)")

    def startService(self) -> None:
        """Be ready."""
        super().startService()
        self._directory.startService()

    def stopService(self) -> Deferred[None]:
        """Close the connections."""
        super().stopService()
        return self._directory.stopService()

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._decide(identifier, password))

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        wanted = UserId.parse(user_id, self._server_name)
        search = self._search_for_user(wanted)
        if search is None:
            return succeed(None)
        return self._in_time(Deferred.fromCoroutine(self._account_status(search, wanted)))

    def _in_time(self, asked: Deferred[T]) -> Deferred[T]:
        def too_late(_: Any, seconds: float) -> Failure:
            problem = f"LDAP: no answer within {seconds:g} seconds"
            self.log.warn("{problem}", problem=problem)
            return Failure(ProviderUnavailable(problem))

        seconds = self._config.keys.timeout / 1000
        return asked.addTimeout(seconds, self._reactor, onTimeoutCancel=too_late)

    async def _decide(self, identifier: Identifier, password: str) -> Account | None:
        asked = Deferred.fromCoroutine(self._authenticate(identifier, password))
        try:
            return await self._in_time(asked)
        except InvalidCredentials:
            # In the time that an unknown user takes.
            await self._hashing.decoy(password)
            raise

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        search = self._search_for(identifier)
        if search is None:
            return None
        found = (await self._directory.search(search))[0]
        account = self._account(found, identifier)
        if account is None:
            return None
        entry = found.entries[0]
        # Without a password a bind succeeds, as nobody: it is not to be sent. Nor is one that a
        # server takes for empty which reads up to the first NUL.
        if not password or password.startswith("\0"):
            raise InvalidCredentials(user_id=account.user_id)
        result = await self._directory.bind(self._bind_name(entry, account), password)
        if result.code != SUCCESS:
            await self._refused(result, account, entry)
        return account

    async def _refused(self, result: Result, account: Account, entry: Entry) -> NoReturn:
        """Say what a directory means that does not take a password."""
        if result.code in _REFUSALS:
            raise InvalidCredentials(user_id=account.user_id)
        if result.code in _REFUSALS_OF_THE_LOCKED:
            base = Search(entry.dn, False, self._filtered(ANY), _NO_ATTRIBUTES)
            status = self._status(await self._directory.search(*self._with_statuses(base)))
            if status is not AccountStatus.ACTIVE:
                raise InvalidCredentials(user_id=account.user_id)
        self.log.error(
            "LDAP: the bind of {user_id} is answered with {result}",
            user_id=account.user_id,
            result=result,
        )
        raise ProviderUnavailable(f"LDAP: a bind is answered with {result}")

    async def _account_status(self, search: Search, wanted: UserId) -> AccountStatus | None:
        results = await self._directory.look(*self._with_statuses(search))
        if not results[0].entries:
            return None
        user_id = self._user_id(results[0], str(wanted), wanted.localpart)
        # A filter may find an account by more than its own name.
        own = user_id == str(UserId(wanted.localpart.lower(), self._server_name))
        return self._status(results) if own else None

    def _with_statuses(self, search: Search) -> list[Search]:
        """A search, and the same for each status that an account may have instead of active."""
        return [
            search,
            *(
                Search(
                    search.base,
                    search.whole_tree,
                    both(search.filter, each),
                    _NO_ATTRIBUTES,
                )
                for _, each in self._config.statuses
            ),
        ]

    def _status(self, results: Sequence[Result]) -> AccountStatus:
        for (status, _), result in zip(self._config.statuses, results[1:], strict=True):
            if result.entries:
                return status
        return AccountStatus.ACTIVE

    def _search_for(self, identifier: Identifier) -> Search | None:
        """The search for whom a client names; ``None`` when nobody of ours can be meant."""
        if isinstance(identifier, EmailIdentifier):
            return self._search_by(self._attributes.mail, identifier.address)
        if isinstance(identifier, PhoneIdentifier):
            number = identifier.msisdn
            return self._search_by(self._attributes.phone, number, f"+{number}")
        return self._search_for_user(identifier.user_id)

    def _search_by(self, attribute: str | None, *values: str) -> Search | None:
        base = self._config.keys.base
        good = all(value and value.isprintable() for value in values)
        if attribute is None or base is None or not good:
            return None
        wanted = one_of([equals(attribute, value) for value in values])
        return Search(base, True, self._filtered(wanted), self._attributes.names)

    def _search_for_user(self, user_id: UserId) -> Search | None:
        if user_id.server_name != self._server_name or not _is_localpart(user_id.localpart):
            return None
        keys, names = self._config.keys, self._attributes.names
        if self._config.user_filter is not None and keys.base is not None:
            wanted = filled(self._config.user_filter, user_id.localpart)
            return Search(keys.base, True, self._filtered(wanted), names)
        name = filled_name(keys.bind_dn_template or "", user_id.localpart)
        return Search(name, False, self._filtered(ANY), names)

    def _filtered(self, wanted: Any) -> Any:
        """Only accounts of the group."""
        return both(wanted, self._config.group_filter)

    def _bind_name(self, entry: Entry, account: Account) -> str | bytes:
        """The name that the user binds by."""
        template = self._config.keys.bind_dn_template
        if template is None or is_distinguished_name(template):
            return entry.dn
        localpart = UserId.parse(account.user_id, self._server_name).localpart
        return template.replace(PLACEHOLDER, localpart)

    def _account(self, found: Result, identifier: Identifier) -> Account | None:
        """The account that was found, if there is one that can be used."""
        if not found.entries:
            return None
        typed = identifier.user_id.localpart if isinstance(identifier, UserIdentifier) else ""
        user_id = self._user_id(found, str(identifier), typed)
        if user_id is None:
            return None
        entry, attributes = found.entries[0], self._attributes
        emails = _texts(entry, attributes.mail)
        if isinstance(identifier, EmailIdentifier) and not _is_among(identifier.address, emails):
            # Directories pass over some characters: whoever adds them would be counted apart.
            return None
        names = _texts(entry, attributes.name)
        return Account(user_id, names[0] if names else None, emails)

    def _user_id(self, found: Result, asked: str, typed: str) -> str | None:
        """The full user ID of the entry that was found, if it can have one.

        :param typed: the local part that was asked for, to choose among several of one entry.
        """
        uid = self._attributes.uid
        values = [value.lower() for value in _texts(found.entries[0], uid)]
        localpart = typed.lower() if typed.lower() in values else values[0] if values else ""
        user_id = str(UserId(localpart, self._server_name))
        problem = None
        if found.several:
            problem = "there are several entries"
        elif localpart != typed.lower() and len(values) > 1:
            problem = f"its entry has several values of {uid}"
        elif not _is_localpart(localpart) or len(user_id.encode("utf-8")) > MAX_USER_ID:
            problem = f"{uid} of its entry cannot be in a user ID"
        if problem is None:
            return user_id
        self.log.warn("LDAP: {asked} is taken for unknown: {problem}", asked=asked, problem=problem)
        return None


def _texts(entry: Entry, attribute: str | None) -> tuple[str, ...]:
    """The values of an attribute that are text."""
    texts = []
    for value in entry.attributes.get((attribute or "").lower(), ()):
        with suppress(UnicodeDecodeError):
            texts.append(value.decode("utf-8"))
    return tuple(texts)


def _is_among(address: str, emails: Sequence[str]) -> bool:
    return address in (email.lower() for email in emails)


def _is_localpart(text: str) -> bool:
    return _LOCALPART.fullmatch(text) is not None
