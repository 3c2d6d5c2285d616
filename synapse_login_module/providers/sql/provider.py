"""Accounts in an SQLite, PostgreSQL, MariaDB or MySQL database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.hashes import Hash, Kind, parse_hash
from synapse_login_module.hashes.common import MostCommon
from synapse_login_module.interfaces import IDiagnosable, IFindsAccounts, IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Finding, Identifier
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.identifiers import (
    Named,
    id_in,
    kind_of,
    names_of,
    names_of_subject,
)
from synapse_login_module.providers.sql.config import (
    NO_SUBJECT,
    SUBJECT_IS_LOST,
    SUBJECT_IS_UNSEEN,
    SQLConfig,
    parse,
)
from synapse_login_module.providers.sql.diagnosis import examine
from synapse_login_module.providers.sql.driver import Rows
from synapse_login_module.providers.sql.rehash import Rehashing
from synapse_login_module.providers.sql.rows import Found, Row, read_row
from synapse_login_module.providers.sql.work import Idle, Work
from synapse_login_module.providers.thread_pool import BoundedPool

_QUEUE = 64


@implementer(IPasswordProvider, IFindsAccounts, IDiagnosable)
@provider(IPluginClass)
class SQLProvider(Service):
    """Checks passwords against hashes that the configured statements find."""

    log = Logger()
    name = "sql"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> SQLConfig:
        """Check the database and the statements; see
        :class:`~synapse_login_module.plugin.IPluginClass`.

        An SQLite file is opened to check that SQLite accepts the statements.
        """
        return parse(config, folder)

    def __init__(self, config: SQLConfig, environment: Environment) -> None:
        self._driver = config.driver
        self._keys = config.keys
        self._by_subject = config.by_subject
        # The first query that returned a subject. With a server that is not known before.
        self._gives_subject: str | None = None
        self._seconds = config.keys.timeout / 1000
        self._reactor = environment.reactor
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        self._kinds = MostCommon[Kind]()
        # Two pools, so that logins that hang do not delay looks at accounts.
        threads = config.keys.connections
        self._for_logins = BoundedPool(environment.reactor, threads, _QUEUE)
        self._for_statuses = BoundedPool(environment.reactor, threads, _QUEUE)
        self._idle = Idle(time.monotonic)
        self._rehashing = self._new_rehashing(config, environment)
        if config.driver.unverified_host is not None:
            self.log.warn(
                "{name}: anyone in between can pose as {host}: {advice}",
                name=self.name,
                host=config.driver.unverified_host,
                advice=config.driver.to_verify,
            )

    def _new_rehashing(self, config: SQLConfig, environment: Environment) -> Rehashing | None:
        """Make what writes new hashes; ``None`` if nothing is to be written."""
        update = config.keys.queries.update
        if update is None or environment.read_only:
            return None

        def write(values: Mapping[str, str]) -> Deferred[int]:
            return self._run(self._for_logins, update, values).addCallback(lambda result: result[1])

        return Rehashing(self.name, config, self._hashing, self._server_name, write)

    def startService(self) -> None:
        """Start the thread pools. Connections are made when they are needed."""
        super().startService()
        self._for_logins.startService()
        self._for_statuses.startService()

    def stopService(self) -> None:
        """End the threads, and close the connections."""
        super().stopService()
        self._for_logins.stopService()
        self._for_statuses.stopService()
        self._idle.close()

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._account_status(subject))

    def find(self, identifier: Identifier) -> Deferred[Account | None]:
        """Find an account; see :class:`~synapse_login_module.interfaces.IFindsAccounts`."""
        return Deferred.fromCoroutine(self._find_account(identifier))

    def diagnose(self) -> Deferred[list[Finding]]:
        """Run each query for nobody; see :class:`~synapse_login_module.interfaces.IDiagnosable`."""

        async def find(query: str, values: Mapping[str, str]) -> bool:
            return await self._find(self._for_statuses, query, values) is not None

        return Deferred.fromCoroutine(examine(self._driver, self._keys.queries, find))

    async def _find_account(self, identifier: Identifier) -> Account | None:
        query = f"by_{kind_of(identifier)}"
        names = names_of(identifier, self._server_name)
        found = None if names is None else await self._find(self._for_statuses, query, names)
        if found is None or found.who.user_id is None:
            return None
        if found.has_subject and not self._by_subject:
            raise ProviderUnavailable(SUBJECT_IS_LOST.format(query=query))
        return self._account(query, found, found.who.user_id)

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        query = f"by_{kind_of(identifier)}"
        names = names_of(identifier, self._server_name)
        if names is None:
            return None
        found = await self._find(self._for_logins, query, names)
        if found is None:
            return None
        row, who = found.row, found.who
        if "password_hash" not in row.model_fields_set:
            raise ProviderUnavailable(f"queries.{query}: it has no column password_hash")
        if found.has_subject and not self._by_subject:
            raise ProviderUnavailable(SUBJECT_IS_LOST.format(query=query))
        password_hash = row.password_hash or ""
        stored = self._parse_hash(password_hash, who)
        if stored is None:
            # The account exists, but no password can be right.
            await self._hashing.decoy(password)
            raise InvalidCredentials("no_usable_hash", who.user_id)
        keys = self._keys
        kind = stored.kind.ruled(keys.normalize, keys.pepper)
        usual = self._kinds.seen(found.subject, kind)
        self._hashing.report_kind(usual, self)
        if not await self._hashing.check(password, password_hash, keys.pepper, keys.normalize):
            raise InvalidCredentials(user_id=who.user_id)
        user_id = who.require_user_id(self.log, self.name)
        if self._rehashing is not None:
            self._rehashing.begin(found.spelled, password, password_hash, stored.kind)
        return self._account(query, found, user_id)

    def _parse_hash(self, password_hash: str, who: Named) -> Hash | None:
        """Parse an account's hash; log why that cannot be done, unless there is none."""
        try:
            return parse_hash(password_hash)
        except ValueError as problem:
            if password_hash:
                self.log.warn(
                    "{name}: {account!r} cannot log in: its hash cannot be used: {problem}",
                    name=self.name,
                    account=who.name,
                    problem=str(problem),
                )
            return None

    def _account(self, query: str, found: Found, user_id: str) -> Account:
        row = found.row
        return Account(
            user_id,
            row.display_name,
            row.emails,
            status=self._status_in(query, row),
            subject=found.subject,
        )

    def _status_in(self, query: str, row: Row) -> AccountStatus | None:
        """Return the status in a login's row; ``None`` if another query may know more."""
        says_all = {"locked", "deactivated"} <= row.model_fields_set
        by_user_alone = query == "by_user" and self._keys.queries.status is None
        return row.status if says_all or by_user_alone else None

    async def _account_status(self, subject: str) -> AccountStatus | None:
        account_id = id_in(subject)
        if account_id is not None:
            return await self._status_by_id(subject, account_id) if self._by_subject else None
        names = names_of_subject(subject, self._server_name)
        return None if names is None else await self._status_by_name(names)

    async def _status_by_id(self, subject: str, account_id: str) -> AccountStatus | None:
        """Look at an account by its id. The names that the statement also gets are empty.

        :param subject: the id with its tag.
        :param account_id: the id.
        """
        values = {"user_id": "", "localpart": "", "subject": account_id}
        found = await self._find(self._for_statuses, "status", values)
        if found is None or (found.has_subject and found.subject != subject):
            return None
        if not (found.has_subject or self._driver.exact):
            raise ProviderUnavailable(SUBJECT_IS_UNSEEN)
        return found.row.status

    async def _status_by_name(self, names: Mapping[str, str]) -> AccountStatus | None:
        """Look at the account whose name has exactly this spelling, as a user ID or a bare name."""
        plain = self._keys.queries.status is None or self._by_subject
        found = await self._find(self._for_statuses, "by_user" if plain else "status", names)
        if found is None or found.spelled != names["user_id"]:
            return None
        if not self._by_subject:
            return found.row.status
        account_id = id_in(found.subject) if found.has_subject else None
        if account_id is not None:
            return await self._status_by_id(found.subject, account_id)
        # Accounts have no ids here, so the name is the subject.
        values = {**names, "subject": found.subject}
        named = await self._find(self._for_statuses, "status", values)
        if named is not None and named.has_subject:
            raise ProviderUnavailable(NO_SUBJECT.format(query="by_user", other="status"))
        return None if named is None else named.row.status

    async def _find(self, pool: BoundedPool, query: str, values: Mapping[str, str]) -> Found | None:
        """Run a query; return the one account that it finds, or ``None``.

        :param pool: the threads to run it on.
        :param query: the name of the query.
        :param values: the values of its parameters.
        """
        statement: str | None = getattr(self._keys.queries, query)
        if statement is None:
            return None
        given, _ = await self._run(pool, statement, values)
        nameless = query == "status" and self._by_subject
        rows = [read_row(query, row, self._server_name, nameless) for row in given]
        wanted = values.get("user_id")
        found = [row for row in rows if row.spelled == wanted] or rows
        if len({row.subject for row in found}) > 1:
            self.log.warn(
                "{name}: queries.{query} finds more than one account for one name: nobody's",
                name=self.name,
                query=query,
            )
            return None
        if not found:
            return None
        if query.startswith("by_"):
            self._check_subject(query, found[0])
        return found[0]

    def _check_subject(self, query: str, found: Found) -> None:
        """Reject a row without an id if another query has returned ids.

        :raise ProviderUnavailable: since the account would have two subjects.
        """
        if found.has_subject:
            self._gives_subject = self._gives_subject or query
        elif self._gives_subject is not None:
            raise ProviderUnavailable(NO_SUBJECT.format(query=query, other=self._gives_subject))

    def _run(
        self, pool: BoundedPool, statement: str, values: Mapping[str, str]
    ) -> Deferred[tuple[Rows, int]]:
        work = Work(self._driver, self._idle, statement, values)

        def too_late(_: Any, seconds: float) -> Failure:
            return Failure(ProviderUnavailable(f"the database did not answer in {seconds} seconds"))

        running = pool.run(work, work.cut)
        return running.addTimeout(self._seconds, self._reactor, onTimeoutCancel=too_late)
