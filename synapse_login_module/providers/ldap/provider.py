"""Accounts in an LDAP directory, such as Active Directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable, UnusableAccount
from synapse_login_module.interfaces import IDiagnosable, IFindsAccounts, IPasswordProvider
from synapse_login_module.model import (
    Account,
    AccountStatus,
    EmailIdentifier,
    Finding,
    Identifier,
    UserId,
    UserIdentifier,
    canonical_email,
    fold,
    localpart_from,
)
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.identifiers import (
    Named,
    user_id_from,
    without_domain,
)
from synapse_login_module.providers.ldap.bind_times import BindTimes
from synapse_login_module.providers.ldap.config import LDAPConfig, parse
from synapse_login_module.providers.ldap.diagnosis import DirectoryDiagnosis
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.filters import ANY
from synapse_login_module.providers.ldap.messages import Entry, Result, Search, can_be_sent
from synapse_login_module.providers.ldap.names import filled_name
from synapse_login_module.providers.ldap.result_codes import (
    INVALID_CREDENTIALS,
    Bind,
    meaning_of_bind,
)
from synapse_login_module.providers.ldap.searches import Searches
from synapse_login_module.providers.ldap.statuses import NO_ATTRIBUTES, Statuses
from synapse_login_module.providers.ldap.subjects import Subjects, condition

T = TypeVar("T")


@implementer(IPasswordProvider, IFindsAccounts, IDiagnosable)
@provider(IPluginClass)
class LDAPProvider(Service):
    """Finds the entry of an account in a directory, and binds as it with the password.

    :ivar looking: fires when the search for accounts at the start has ended. Set by the start.
    """

    looking: Deferred[None]
    log = Logger()
    name = "ldap"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> LDAPConfig:
        """Check ``servers``, ``base``, ``bind_dn_template`` and all else; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return parse(config, folder)

    def __init__(self, config: LDAPConfig, environment: Environment) -> None:
        self._config = config
        self._attributes = config.keys.attributes
        base = config.keys.base
        self._template = config.keys.bind_dn_template or ""
        self._clock = environment.clock
        self._statuses = Statuses(config.statuses, environment.clock)
        # A name that no entry has, for a search and a bind in the place of those of an account.
        self._unknown = f"nobody-{environment.random(16).hex()}"
        self._unknown_dn = (
            f"cn={self._unknown},{base}"
            if config.template is None
            else filled_name(self._template, self._unknown)
        )
        self._subjects = Subjects(
            config.keys.attributes.subject, searchable=config.keys.base is not None
        )
        uid, mail, name = self._attributes.uid, self._attributes.mail, self._attributes.name
        read = dict.fromkeys((uid, mail, name, *self._subjects.attributes))
        self._server_name = environment.server_name
        self._searches = Searches(
            config, self._server_name, [each for each in read if each is not None]
        )
        self._hashing = environment.hashing
        self._reactor = environment.reactor
        self._bind_times = BindTimes(environment.reactor, environment.random)
        self._directory = Directory(
            config.settings, environment.reactor, environment.one_time_codes
        )
        if not config.keys.verify_certificate:
            self.log.warn("LDAP: certificates are not checked (verify_certificate: false)")
        if self._template and config.template is None:
            self.log.warn(
                "LDAP: bind_dn_template makes no distinguished name and is not used: users bind by"
                " the name of the entry that is found"
            )

    def startService(self) -> None:
        """Start, and check in the background that some account can be found."""
        super().startService()
        self._directory.startService()
        self.looking = Deferred.fromCoroutine(self._look_for_accounts())
        self.looking.addErrback(self._cannot_look)

    def stopService(self) -> Deferred[None]:
        """Close the connections."""
        super().stopService()
        return self._directory.stopService()

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        identifier = without_domain(identifier, self._config.keys.domain)
        return Deferred.fromCoroutine(self._decide(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        wanted = condition(subject)
        if wanted is not None and not subject.startswith("@"):
            return self._in_time(Deferred.fromCoroutine(self._status_by_id(*wanted)))
        user_id = UserId.parse(subject, self._server_name)
        search = self._searches.for_user_id(user_id)
        if search is None:
            return succeed(None)
        exactly = user_id.localpart if subject != str(user_id) else None
        asked = self._status_by_name(search, user_id.localpart, exactly)
        return self._in_time(Deferred.fromCoroutine(asked))

    def find(self, identifier: Identifier) -> Deferred[Account | None]:
        """Find an account; see :class:`~synapse_login_module.interfaces.IFindsAccounts`."""
        identifier = without_domain(identifier, self._config.keys.domain)
        return self._in_time(Deferred.fromCoroutine(self._find(identifier)))

    def diagnose(self) -> Deferred[list[Finding]]:
        """Examine each server; see :class:`~synapse_login_module.interfaces.IDiagnosable`."""
        settings = self._config.settings
        diagnosis = DirectoryDiagnosis(
            settings,
            self._config.keys.base,
            self._searches.for_any_account(),
            self._reactor,
            self._clock,
        )
        return Deferred.fromCoroutine(diagnosis.of_all())

    def _in_time(self, asked: Deferred[T]) -> Deferred[T]:
        """Cancel the work after ``timeout``, and fail with ``ProviderUnavailable``."""

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
            # Take as long as for an unknown user, for whom the provider chain hashes a decoy.
            await self._hashing.decoy(password)
            raise

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        """Search for the entry and bind as it.

        If no account is found, an unknown entry is searched for or bound in its place, so that the
        time does not tell.
        """
        search = self._searches.for_identifier(identifier)
        if search is None:
            # It is no user of this server, even if the directory is unavailable.
            search_for_unknown = self._searches.for_localpart(self._unknown)
            with suppress(ProviderUnavailable):
                await self._directory.search(*self._statuses.searches(search_for_unknown))
                await self._bind_unknown(password)
            return None
        results = await self._directory.search(*self._statuses.searches(search))
        found = results[0]
        who = self._who(found, identifier)
        if who is None:
            await self._bind_unknown(password)
            return None
        entry = found.entries[0]
        if not can_be_sent(password):
            raise InvalidCredentials(user_id=who.user_id)
        # Bind by the DN of the entry that was found: another name could mean another entry.
        began = self._bind_times.now()
        result = await self._directory.bind(entry.dn, password)
        if not self._accepts(result, who.spelled(self._server_name)):
            if result.code == INVALID_CREDENTIALS:
                self._bind_times.saw(began)
            else:
                # Some servers refuse a locked account before they check the password.
                await self._bind_times.wait(began)
            raise InvalidCredentials(user_id=who.user_id)
        user_id = who.require_user_id(self.log, self.name)
        status = await self._status_after_bind(entry, self._statuses.status(results))
        return self._account(entry, who, user_id, status)

    async def _find(self, identifier: Identifier) -> Account | None:
        """Search for the entry of an account."""
        search = self._searches.for_identifier(identifier)
        if search is None:
            return None
        results = await self._directory.look(*self._statuses.searches(search))
        who = self._who(results[0], identifier)
        if who is None or who.user_id is None:
            return None
        status = self._statuses.status(results)
        return self._account(results[0].entries[0], who, who.user_id, status)

    def _account(self, entry: Entry, who: Named, user_id: str, status: AccountStatus) -> Account:
        names = _texts(entry, self._attributes.name)
        return Account(
            user_id,
            names[0] if names else None,
            _texts(entry, self._attributes.mail),
            status=status,
            subject=self._subject(entry, who),
        )

    async def _bind_unknown(self, password: str) -> None:
        """Bind as an entry that does not exist, and take as long as for one that does."""
        if can_be_sent(password):
            began = self._bind_times.now()
            result = await self._directory.bind(self._unknown_dn, password)
            self._accepts(result, "an unknown user")
            await self._bind_times.wait(began)

    def _accepts(self, result: Result, account: str) -> bool:
        """Say whether the directory accepted a password.

        :param result: the result of the bind.
        :param account: the name of the account, for the log.
        :raise ProviderUnavailable: when the directory did not decide.
        """
        meaning = meaning_of_bind(result.code)
        if meaning is Bind.ACCEPTED:
            return True
        line = "LDAP: the bind of {account} is answered with {result}"
        if meaning is Bind.REFUSED:
            if result.code != INVALID_CREDENTIALS:
                self.log.info(line, account=account, result=result)
            return False
        self.log.error(line, account=account, result=result)
        raise ProviderUnavailable(f"LDAP: a bind is answered with {result}")

    async def _status_after_bind(self, entry: Entry, status: AccountStatus) -> AccountStatus:
        """Return the status of an account after its password was right.

        A right password may end a lock, so the status of a locked account is searched for again.

        :param status: the status before the bind.
        """
        if status is not AccountStatus.LOCKED:
            return status
        search = Search(entry.dn, False, ANY, NO_ATTRIBUTES)
        results = await self._directory.search(*self._statuses.searches(search))
        return self._statuses.status(results)

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

    async def _status_by_id(self, attribute: str, value: str | bytes) -> AccountStatus | None:
        """Look at the entry with an id, whatever its name is now."""
        search = self._searches.for_id(attribute, value)
        if search is None:
            raise ProviderUnavailable("LDAP: base is needed to find an entry by its id")
        results = await self._directory.look(*self._statuses.searches(search))
        if results[0].several:
            self.log.error("LDAP: several entries have one {attribute}", attribute=attribute)
            raise UnusableAccount(f"LDAP: several entries have one {attribute}")
        return self._statuses.status(results) if results[0].entries else None

    async def _status_by_name(
        self, search: Search, name: str, exactly: str | None
    ) -> AccountStatus | None:
        """Look at the entry of a name.

        :param exactly: the spelling that the entry must have; ``None`` to ignore case.
        """
        results = await self._directory.look(*self._statuses.searches(search))
        if not results[0].entries:
            return None
        found = self._name(results[0], name, name)
        # A filter may find an account by more than its own name.
        if found is None or fold(found) != fold(name) or exactly not in (None, found):
            return None
        return self._statuses.status(results)

    async def _look_for_accounts(self) -> None:
        """Warn when no account can be found: all logins fail then, and all accounts look gone."""
        search = self._searches.for_any_account()
        if search is None:
            return
        (found,) = await self._directory.look(search)
        if not found.entries:
            self.log.warn(
                "LDAP: {account} sees no account below {base}: every account is unknown until it"
                " may read there (or is filter, attributes.uid or base mistyped?)",
                account=self._config.settings.bind_dn or "a search without bind_dn",
                base=search.base,
            )

    def _cannot_look(self, failure: Failure) -> None:
        """Log an error in the code. An outage has its own line, and a cancellation needs none."""
        if failure.check(ProviderUnavailable, CancelledError) is None:
            self.log.failure("LDAP: looking for accounts failed", failure)

    def _who(self, found: Result, identifier: Identifier) -> Named | None:
        """Tell whose entry was found; return ``None`` if none was, or none that can be used.

        :param found: the result of the search.
        :param identifier: what was searched for.
        """
        if not found.entries:
            return None
        typed = identifier.user_id.localpart if isinstance(identifier, UserIdentifier) else ""
        name = self._name(found, str(identifier), typed)
        if name is None:
            return None
        template = self._config.template
        if template is not None and not typed and not template.makes(found.entries[0].dn):
            problem = "its entry has a name that bind_dn_template does not make"
            self._taken_for_unknown(identifier, problem)
            return None
        emails = _texts(found.entries[0], self._attributes.mail)
        # Directories ignore some characters. Names with these would have rate limits of their own.
        if isinstance(identifier, EmailIdentifier) and not _is_among(identifier.address, emails):
            return None
        if typed and localpart_from(typed) is None and fold(typed) != fold(name):
            return None
        return Named(name, user_id_from(name, self._server_name))

    def _name(self, found: Result, asked: str, typed: str) -> str | None:
        """Read the name of the entry that was found; return ``None`` if it is not clear.

        :param found: the result of the search.
        :param asked: what was searched for, for the log.
        :param typed: the local part that was searched for, which chooses among several names of one
            entry.
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
        self._taken_for_unknown(asked, problem)
        return None

    def _taken_for_unknown(self, asked: object, problem: str) -> None:
        self.log.warn(
            "LDAP: {who} is taken for unknown: {problem}", who=str(asked), problem=problem
        )


def _texts(entry: Entry, attribute: str | None) -> tuple[str, ...]:
    """Return the values of an attribute that are text."""
    texts = []
    for value in entry.attributes.get(fold(attribute or ""), ()):
        with suppress(UnicodeDecodeError):
            texts.append(value.decode("utf-8"))
    return tuple(texts)


def _is_among(address: str, emails: Sequence[str]) -> bool:
    return address in (canonical_email(email) for email in emails)
