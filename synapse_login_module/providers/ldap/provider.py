"""Accounts in an LDAP directory, such as Active Directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from synapse_login_module.providers.ldap.addresses import emails_of
from synapse_login_module.providers.ldap.administrators import Administrators
from synapse_login_module.providers.ldap.binding import UserBinds
from synapse_login_module.providers.ldap.config import LDAPConfig, parse
from synapse_login_module.providers.ldap.diagnosis import DirectoryDiagnosis
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.entries import Entries
from synapse_login_module.providers.ldap.messages import Entry, Search, octets, texts
from synapse_login_module.providers.ldap.names import filled_name
from synapse_login_module.providers.ldap.naming import Naming
from synapse_login_module.providers.ldap.searches import Searches
from synapse_login_module.providers.ldap.statuses import Statuses
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
        # A name that no entry has, for a search and a bind in the place of those of an account.
        self._unknown = f"nobody-{environment.random(16).hex()}"
        unknown_dn = (
            f"cn={self._unknown},{base}"
            if config.template is None
            else filled_name(self._template, self._unknown)
        )
        self._server_name = environment.server_name
        self._naming = Naming(config, self._server_name)
        mail, name = self._attributes.mail, self._attributes.name
        groups = () if config.groups is None else config.groups.attributes
        read = dict.fromkeys((*self._naming.attributes, mail, name, *groups))
        self._searches = Searches(
            config, self._server_name, [each for each in read if each is not None]
        )
        self._hashing = environment.hashing
        self._reactor = environment.reactor
        self._directory = Directory(
            config.settings, environment.reactor, environment.one_time_codes
        )
        self.names_administrators = config.admin_group is not None
        self._administrators = Administrators(
            config.admin_group,
            self._directory,
            self._searches.for_any_account(),
            environment.clock,
        )
        nobody = octets(self._unknown)
        self._entries = Entries(
            self._directory,
            Statuses(config.statuses, environment.clock),
            config.groups,
            self._administrators,
            Entry(octets(unknown_dn), {fold(self._attributes.uid): (nobody,)}),
        )
        self._binds = UserBinds(
            self._directory,
            unknown_dn,
            self._server_name,
            environment.reactor,
            environment.random,
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
        if wanted is not None:
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
        if wanted is None:
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
            self._group_lookups(),
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
                await self._entries.search(search_for_unknown)
                await self._binds.as_unknown(password)
            return None
        found = await self._entries.search(search, self._searches.for_made_name(identifier))
        who = self._naming.who(found.result, identifier)
        if who is None:
            await self._binds.as_unknown(password)
            return None
        entry, status = found.result.entries[0], found.status
        proven = await self._binds.as_entry(entry, who, password)
        user_id = who.require_user_id(self.log, self.name)
        if status is not AccountStatus.DEACTIVATED:
            is_locked = status is AccountStatus.LOCKED and proven is AccountStatus.ACTIVE
            # A right password may end a lock, so the status of a locked account is read again.
            status = await self._entries.status_of(entry) if is_locked else proven
        account = self._account(entry, who, user_id, status)
        return replace(account, admin=await self._administrators.confirm(found.admin))

    async def _find(self, identifier: Identifier) -> Account | None:
        """Search for the entry of an account."""
        search = self._searches.for_identifier(identifier)
        if search is None:
            return None
        found, status, _ = await self._entries.look(search)
        who = self._naming.who(found, identifier)
        if who is None or who.user_id is None:
            return None
        return self._account(found.entries[0], who, who.user_id, status)

    def _account(self, entry: Entry, who: Named, user_id: str, status: AccountStatus) -> Account:
        names = texts(entry, self._attributes.name)
        return Account(
            user_id,
            names[0] if names else None,
            emails_of(entry, self._attributes.mail),
            status=status,
            subject=self._naming.subject(entry, who),
        )

    async def _status_by_id(self, attribute: str, value: str | bytes) -> AccountStatus | None:
        """Look at the entry with an id, whatever its name is now."""
        search = self._searches.for_id(attribute, value)
        if search is None:
            raise ProviderUnavailable("LDAP: base is needed to find an entry by its id")
        found, status, _ = await self._entries.look(search)
        if found.entries and found.several:
            self.log.error("LDAP: several entries have one {attribute}", attribute=attribute)
            raise UnusableAccount(f"LDAP: several entries have one {attribute}")
        return status if found.entries else None

    async def _status_by_name(
        self, search: Search, name: str, exactly: str | None
    ) -> AccountStatus | None:
        """Look at the entry of a name.

        :param exactly: the spelling that the entry must have; ``None`` to ignore case.
        """
        found, status, _ = await self._entries.look(search)
        if not found.entries:
            return None
        if found.several:
            raise UnusableAccount(f"LDAP: several entries have the name {name}")
        own = self._naming.name(found, name, name)
        # A filter may find an account by more than its own name.
        if own is None or fold(own) != fold(name) or exactly not in (None, own):
            return None
        return status

    async def _look_for_accounts(self) -> None:
        """Warn when no account can be found: all logins fail then, and all accounts look gone."""
        search = self._searches.for_any_account()
        if search is None:
            return
        lookups = self._group_lookups()
        found, *of_groups = await self._directory.look(search, *lookups)
        for group, result in zip(lookups, of_groups, strict=True):
            if not result.entries:
                self.log.warn(
                    "LDAP: there is no group {group}, or the search account may not see it",
                    group=group.base,
                )
        await self._administrators.check()
        if not found.entries:
            self.log.warn(
                "LDAP: {account} sees no account below {base}: every account is unknown until it"
                " may read there (or is filter, attributes.uid, localpart or base mistyped?)",
                account=self._config.settings.bind_dn or "a search without bind_dn",
                base=search.base,
            )

    def _group_lookups(self) -> Sequence[Search]:
        groups = self._config.groups
        return () if groups is None else groups.lookups()

    def _cannot_look(self, failure: Failure) -> None:
        """Log an error in the code. An outage has its own line, and a cancellation needs none."""
        if failure.check(ProviderUnavailable, CancelledError) is None:
            self.log.failure("LDAP: looking for accounts failed", failure)
