"""Accounts in an LDAP directory, such as Active Directory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable, UnusableAccount
from synapse_login_module.interfaces import (
    IDiagnosable,
    IFindsAccounts,
    INamesAdministrators,
    IPasswordProvider,
)
from synapse_login_module.model import (
    Account,
    AccountStatus,
    Finding,
    Identifier,
    UserId,
    fold,
)
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.identifiers import Named, without_domain
from synapse_login_module.providers.ldap.administrators import Administrators
from synapse_login_module.providers.ldap.bind_times import BindTimes
from synapse_login_module.providers.ldap.config import LDAPConfig, parse
from synapse_login_module.providers.ldap.diagnosis import DirectoryDiagnosis
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.filters import ANY
from synapse_login_module.providers.ldap.localparts import texts
from synapse_login_module.providers.ldap.messages import Entry, Result, Search, can_be_sent
from synapse_login_module.providers.ldap.names import filled_name
from synapse_login_module.providers.ldap.naming import Naming
from synapse_login_module.providers.ldap.result_codes import (
    INVALID_CREDENTIALS,
    Bind,
    meaning_of_bind,
)
from synapse_login_module.providers.ldap.searches import Searches
from synapse_login_module.providers.ldap.statuses import NO_ATTRIBUTES, Statuses
from synapse_login_module.providers.ldap.subjects import condition

T = TypeVar("T")


@implementer(IPasswordProvider, IFindsAccounts, IDiagnosable, INamesAdministrators)
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
        self._server_name = environment.server_name
        self._naming = Naming(config, self._server_name)
        mail, name = self._attributes.mail, self._attributes.name
        read = dict.fromkeys((*self._naming.attributes, mail, name))
        self._searches = Searches(
            config, self._server_name, [each for each in read if each is not None]
        )
        self._hashing = environment.hashing
        self._reactor = environment.reactor
        self._bind_times = BindTimes(environment.reactor, environment.random)
        self._directory = Directory(config.settings, environment.reactor)
        self.names_administrators = config.admin_group is not None
        self._administrators = Administrators(
            config.admin_group,
            self._directory,
            self._searches.for_any_account(),
            environment.clock,
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
        self._administrators.announce()
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

    def is_administrator(self, subject: str) -> Deferred[bool | None]:
        """Look at ``admin_group``; see
        :class:`~synapse_login_module.interfaces.INamesAdministrators`.
        """
        wanted = condition(subject)
        if wanted is None or subject.startswith("@"):
            return succeed(None)
        asked = self._administrators.look(self._searches.for_id(*wanted))
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
            self._config.admin_group,
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
            search_for_unknown = self._searches.for_nobody(self._unknown)
            with suppress(ProviderUnavailable):
                await self._directory.search(*self._login_searches(search_for_unknown))
                await self._bind_unknown(password)
            return None
        results = await self._find_for_login(search, self._searches.for_made_name(identifier))
        is_member = self._administrators.take(results)
        found = results[0]
        who = self._naming.who(found, identifier)
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
        account = self._account(entry, who, user_id, status)
        return replace(account, admin=await self._administrators.confirm(is_member))

    def _login_searches(self, search: Search) -> list[Search]:
        return [*self._statuses.searches(search), *self._administrators.searches(search)]

    async def _find_for_login(self, search: Search, other: Search | None) -> list[Result]:
        """Search for the entry of a login.

        :param other: a search that counts if the first one finds nothing.
        """
        if other is None:
            return await self._directory.search(*self._login_searches(search))
        searches = self._login_searches(search), self._login_searches(other)
        results = await self._directory.search(*searches[0], *searches[1])
        middle = len(searches[0])
        return results[:middle] if results[0].entries else results[middle:]

    async def _find(self, identifier: Identifier) -> Account | None:
        """Search for the entry of an account."""
        search = self._searches.for_identifier(identifier)
        if search is None:
            return None
        results = await self._directory.look(*self._statuses.searches(search))
        who = self._naming.who(results[0], identifier)
        if who is None or who.user_id is None:
            return None
        status = self._statuses.status(results)
        return self._account(results[0].entries[0], who, who.user_id, status)

    def _account(self, entry: Entry, who: Named, user_id: str, status: AccountStatus) -> Account:
        names = texts(entry, self._attributes.name)
        return Account(
            user_id,
            names[0] if names else None,
            texts(entry, self._attributes.mail),
            status=status,
            subject=self._naming.subject(entry, who),
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
        found = self._naming.name(results[0], name, name)
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
        await self._administrators.check()
        if not found.entries:
            self.log.warn(
                "LDAP: {account} sees no account below {base}: every account is unknown until it"
                " may read there (or is filter, attributes.uid, localpart or base mistyped?)",
                account=self._config.settings.bind_dn or "a search without bind_dn",
                base=search.base,
            )

    def _cannot_look(self, failure: Failure) -> None:
        """Log an error in the code. An outage has its own line, and a cancellation needs none."""
        if failure.check(ProviderUnavailable, CancelledError) is None:
            self.log.failure("LDAP: looking for accounts failed", failure)
