"""Accounts of an LDAP directory, Active Directory among them."""

from __future__ import annotations

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
    Account,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
    canonical_email,
    fold,
    localpart_from,
)
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.identifiers import (
    Named,
    is_name,
    own_user_id,
    user_id_from,
    without_domain,
)
from synapse_login_module.providers.ldap.config import LDAPConfig, is_distinguished_name, parse
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.filters import (
    ANY,
    PLACEHOLDER,
    both,
    equals,
    filled,
    filled_name,
    for_anybody,
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
from synapse_login_module.providers.ldap.subjects import Subjects, condition

T = TypeVar("T")

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
        base = config.keys.base
        self._subjects = Subjects(config.keys.attributes.subject, searchable=base is not None)
        uid, mail, name = self._attributes.uid, self._attributes.mail, self._attributes.name
        read = dict.fromkeys((uid, mail, name, *self._subjects.attributes))
        self._read = [attribute for attribute in read if attribute is not None]
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
        identifier = without_domain(identifier, self._config.keys.domain)
        return Deferred.fromCoroutine(self._decide(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        wanted = condition(subject)
        if wanted is not None and not subject.startswith("@"):
            return self._in_time(Deferred.fromCoroutine(self._status_by_id(*wanted)))
        user_id = UserId.parse(subject, self._server_name)
        search = self._search_for_user(user_id)
        if search is None:
            return succeed(None)
        exactly = user_id.localpart if subject != str(user_id) else None
        asked = self._status_by_name(search, user_id.localpart, exactly)
        return self._in_time(Deferred.fromCoroutine(asked))

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
        results = await self._directory.search(*self._with_statuses(search))
        found = results[0]
        who = self._who(found, identifier)
        if who is None:
            return None
        entry = found.entries[0]
        # Without a password a bind succeeds, as nobody: it is not to be sent. Nor is one that a
        # server takes for empty which reads up to the first NUL.
        if not password or password.startswith("\0"):
            raise InvalidCredentials(user_id=who.user_id)
        result = await self._directory.bind(self._bind_name(entry, who), password)
        if result.code != SUCCESS:
            await self._refused(result, who, entry)
        names = _texts(entry, self._attributes.name)
        return Account(
            who.require_user_id(self.log, self.name),
            names[0] if names else None,
            _texts(entry, self._attributes.mail),
            status=self._status(results),
            subject=self._subject(entry, who),
        )

    def _subject(self, entry: Entry, who: Named) -> str:
        try:
            return self._subjects.of(entry, who.name)
        except ProviderUnavailable as error:
            self.log.error(
                "{problem} (attributes.subject): {account!r} cannot log in",
                problem=str(error),
                account=who.name,
            )
            raise

    async def _refused(self, result: Result, who: Named, entry: Entry) -> NoReturn:
        """Say what a directory means that does not take a password."""
        if result.code in _REFUSALS:
            raise InvalidCredentials(user_id=who.user_id)
        if result.code in _REFUSALS_OF_THE_LOCKED:
            base = Search(entry.dn, False, self._filtered(ANY), _NO_ATTRIBUTES)
            status = self._status(await self._directory.search(*self._with_statuses(base)))
            if status is not AccountStatus.ACTIVE:
                raise InvalidCredentials(user_id=who.user_id)
        self.log.error(
            "LDAP: the bind of {user_id} is answered with {result}",
            user_id=who.spelled(self._server_name),
            result=result,
        )
        raise ProviderUnavailable(f"LDAP: a bind is answered with {result}")

    async def _status_by_id(self, attribute: str, value: str | bytes) -> AccountStatus | None:
        """Look at the entry that has an id, whatever its name is by now."""
        base, user_filter = self._config.keys.base, self._config.user_filter
        if base is None:
            raise ProviderUnavailable("LDAP: without base no entry is found by its id")
        wanted = equals(attribute, value)
        if user_filter is not None:
            wanted = both(wanted, for_anybody(user_filter))
        search = Search(base, True, self._filtered(wanted), _NO_ATTRIBUTES)
        results = await self._directory.look(*self._with_statuses(search))
        if results[0].several:
            self.log.error("LDAP: several entries have one {attribute}", attribute=attribute)
            raise ProviderUnavailable(f"LDAP: several entries have one {attribute}")
        return self._status(results) if results[0].entries else None

    async def _status_by_name(
        self, search: Search, name: str, exactly: str | None
    ) -> AccountStatus | None:
        """Look at the entry of a name.

        :param exactly: how the entry has to spell it; ``None`` leaves that to the directory.
        """
        results = await self._directory.look(*self._with_statuses(search))
        if not results[0].entries:
            return None
        found = self._name(results[0], name, name)
        # A filter may find an account by more than its own name.
        if found is None or fold(found) != fold(name) or exactly not in (None, found):
            return None
        return self._status(results)

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
        good = all(is_name(value) for value in values)
        if attribute is None or base is None or not good:
            return None
        wanted = one_of([equals(attribute, value) for value in values])
        return Search(base, True, self._filtered(wanted), self._read)

    def _search_for_user(self, user_id: UserId) -> Search | None:
        if own_user_id(str(user_id), self._server_name) is None:
            return None
        keys, names = self._config.keys, self._read
        if self._config.user_filter is not None and keys.base is not None:
            wanted = filled(self._config.user_filter, user_id.localpart)
            return Search(keys.base, True, self._filtered(wanted), names)
        name = filled_name(keys.bind_dn_template or "", user_id.localpart)
        return Search(name, False, self._filtered(ANY), names)

    def _filtered(self, wanted: Any) -> Any:
        """Only accounts of the group."""
        return both(wanted, self._config.group_filter)

    def _bind_name(self, entry: Entry, who: Named) -> str | bytes:
        """The name that the user binds by."""
        template = self._config.keys.bind_dn_template
        if template is None or is_distinguished_name(template):
            return entry.dn
        return template.replace(PLACEHOLDER, fold(who.name))

    def _who(self, found: Result, identifier: Identifier) -> Named | None:
        """Whose the entry is that was found, if there is one that can be used."""
        if not found.entries:
            return None
        typed = identifier.user_id.localpart if isinstance(identifier, UserIdentifier) else ""
        name = self._name(found, str(identifier), typed)
        if name is None:
            return None
        emails = _texts(found.entries[0], self._attributes.mail)
        # Directories pass over some characters: logins that add them would be counted apart.
        if isinstance(identifier, EmailIdentifier) and not _is_among(identifier.address, emails):
            return None
        if typed and localpart_from(typed) is None and fold(typed) != fold(name):
            return None
        return Named(name, user_id_from(name, self._server_name))

    def _name(self, found: Result, asked: str, typed: str) -> str | None:
        """The name of the entry that was found, as it is spelled there, if it can be told.

        :param typed: the local part that was asked for, to choose among several of one entry.
        """
        uid = self._attributes.uid
        values = _texts(found.entries[0], uid)
        same = [value for value in values if fold(value) == fold(typed)]
        problem = None
        if found.several:
            problem = "there are several entries"
        elif not same and len(values) > 1:
            problem = f"its entry has several values of {uid}"
        elif not any(values):
            problem = f"its entry has no {uid}"
        if problem is None:
            return typed if typed in same else (same or list(values))[0]
        self.log.warn("LDAP: {asked} is taken for unknown: {problem}", asked=asked, problem=problem)
        return None


def _texts(entry: Entry, attribute: str | None) -> tuple[str, ...]:
    """The values of an attribute that are text."""
    texts = []
    for value in entry.attributes.get(fold(attribute or ""), ()):
        with suppress(UnicodeDecodeError):
            texts.append(value.decode("utf-8"))
    return tuple(texts)


def _is_among(address: str, emails: Sequence[str]) -> bool:
    return address in (canonical_email(email) for email in emails)
