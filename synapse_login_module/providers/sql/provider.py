"""Accounts in a table of an SQLite or a PostgreSQL database."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict, first_problem, validate
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    Overloaded,
    ProviderUnavailable,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier, UserId, UserIdentifier
from synapse_login_module.passwords import UsualCost, cost_of
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.identifiers import NAMES, kind_of, names_of, own_user_id
from synapse_login_module.providers.sql.drivers import (
    Driver,
    Idle,
    PostgreSQLDriver,
    Rows,
    SQLiteDriver,
    Work,
)
from synapse_login_module.providers.thread_pool import BoundedPool

_QUEUE = 64


class _Queries(Strict):
    by_user: str
    by_email: str | None = None
    by_phone: str | None = None
    status: str | None = None
    update: str | None = None


class _Keys(Strict):
    sqlite: FilePath | None = None
    postgresql: str | None = Field(default=None, repr=False)
    queries: _Queries
    pepper: str = Field(default="", repr=False)
    timeout: PositiveDuration = 5_000
    connections: Annotated[int, Field(ge=1, le=100)] = 4


_WANTED: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "by_user": (frozenset(), frozenset(NAMES["user"])),
    "by_email": (frozenset(), frozenset(NAMES["email"])),
    "by_phone": (frozenset(), frozenset(NAMES["phone"])),
    "status": (frozenset(), frozenset(NAMES["user"])),
    "update": (frozenset({"new_hash", "old_hash"}), frozenset(NAMES["user"])),
}
"""For each statement the parameters that it must have all of, and those it must have one of."""


@dataclass(frozen=True)
class SQLConfig:
    """The checked configuration of :class:`SQLProvider`."""

    driver: Driver
    keys: _Keys


@implementer(IPasswordProvider)
@provider(IPluginClass)
class SQLProvider(Service):
    """Looks up bcrypt hashes, Synapse's, by statements that the configuration gives."""

    log = Logger()
    name = "sql"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> SQLConfig:
        """Take a database and statements; see :class:`~synapse_login_module.plugin.IPluginClass`.

        An SQLite file is opened to see whether it understands the statements.
        """
        keys = validate(_Keys, config)
        if (keys.sqlite is None) == (keys.postgresql is None):
            raise ConfigError("", "takes either sqlite or postgresql")
        writes = keys.queries.update is not None
        driver: Driver
        if keys.sqlite is not None:
            path = folder / keys.sqlite
            driver = SQLiteDriver(path, keys.timeout / 1000, writes)
        else:
            driver = PostgreSQLDriver(keys.postgresql or "", keys.timeout / 1000, writes)
        statements = {name: text for name, text in keys.queries if text is not None}
        for name, statement in statements.items():
            _check_parameters(name, statement, driver)
        if keys.sqlite is not None:
            _try_out(driver, path, statements)
        return SQLConfig(driver, keys)

    def __init__(self, config: SQLConfig, environment: Environment) -> None:
        self._driver = config.driver
        self._keys = config.keys
        self._seconds = config.keys.timeout / 1000
        self._reactor = environment.reactor
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        self._costs = UsualCost()
        # Logins that hang leave room to look at accounts.
        threads = config.keys.connections
        self._for_logins = BoundedPool(environment.reactor, threads, _QUEUE)
        self._for_statuses = BoundedPool(environment.reactor, threads, _QUEUE)
        self._idle = Idle(time.monotonic)
        self._rehashing: set[str] = set()

    def startService(self) -> None:
        """Start the threads; connections are made when they are needed."""
        super().startService()
        self._for_logins.startService()
        self._for_statuses.startService()

    def stopService(self) -> None:
        """End the threads and the connections."""
        super().stopService()
        self._for_logins.stopService()
        self._for_statuses.stopService()
        self._idle.close()

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._account_status(user_id))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        query = f"by_{kind_of(identifier)}"
        found = await self._find(self._for_logins, query, identifier)
        if found is None:
            return None
        user_id, row = found
        if "password_hash" not in row.model_fields_set:
            raise ProviderUnavailable(f"queries.{query}: it has no column password_hash")
        try:
            cost = cost_of(row.password_hash or "")
        except ValueError:
            # The account is there, and no password can be right.
            await self._hashing.decoy(password)
            raise InvalidCredentials("no_usable_hash", user_id) from None
        assert row.password_hash is not None
        self._hashing.expect_cost(self._costs.seen(user_id, cost), self)
        if not await self._hashing.check(password, row.password_hash, self._keys.pepper):
            raise InvalidCredentials(user_id=user_id)
        if self._keys.queries.update is not None and cost < self._hashing.cost:
            self._begin_rehash(user_id, password, row.password_hash)
        return Account(user_id, row.display_name, row.emails)

    async def _account_status(self, user_id: str) -> AccountStatus | None:
        identifier = UserIdentifier(UserId.parse(user_id, self._server_name))
        query = "by_user" if self._keys.queries.status is None else "status"
        found = await self._find(self._for_statuses, query, identifier)
        if found is None or found[0] != user_id:
            return None
        if found[1].deactivated:
            return AccountStatus.DEACTIVATED
        return AccountStatus.LOCKED if found[1].locked else AccountStatus.ACTIVE

    async def _find(
        self, pool: BoundedPool, query: str, identifier: Identifier
    ) -> tuple[str, _Row] | None:
        """The one row that a query finds, and whose it is."""
        statement: str | None = getattr(self._keys.queries, query)
        names = names_of(identifier, self._server_name)
        if statement is None or names is None:
            return None
        given, _ = await self._run(pool, statement, names)
        rows = [self._read(query, row) for row in given]
        wanted = names.get("user_id")
        found = [row for row in rows if row[0] == wanted] or rows
        if len({user_id for user_id, _ in found}) > 1:
            self.log.warn(
                "{name}: queries.{query} finds more than one account for one name: nobody's",
                name=self.name,
                query=query,
            )
            return None
        return found[0] if found else None

    def _read(self, query: str, given: Mapping[str, Any]) -> tuple[str, _Row]:
        try:
            row = _Row.model_validate(given)
        except ValidationError as error:
            raise ProviderUnavailable(
                f"queries.{query}: {': '.join(first_problem(error))}"
            ) from None
        user_id = own_user_id(row.user_id or row.localpart, self._server_name)
        if user_id is None:
            problem = "localpart or user_id is none of this server"
            raise ProviderUnavailable(f"queries.{query}: {problem}")
        return user_id, row

    def _run(
        self, pool: BoundedPool, statement: str, values: Mapping[str, str]
    ) -> Deferred[tuple[Rows, int]]:
        work = Work(self._driver, self._idle, statement, values)

        def too_late(_: Any, seconds: float) -> Failure:
            return Failure(ProviderUnavailable(f"the database did not answer in {seconds} seconds"))

        running = pool.run(work, work.cut)
        return running.addTimeout(self._seconds, self._reactor, onTimeoutCancel=too_late)

    def _begin_rehash(self, user_id: str, password: str, old_hash: str) -> None:
        """Bring the hash up to today's cost, while the login goes on."""
        if user_id in self._rehashing:
            return
        self._rehashing.add(user_id)

        def failed(failure: Failure) -> None:
            self.log.warn(
                "{name}: the hash of {user_id} was not renewed: {problem}",
                name=self.name,
                user_id=user_id,
                problem=failure.getErrorMessage(),
            )

        def done(_: Any) -> None:
            self._rehashing.discard(user_id)

        work = Deferred.fromCoroutine(self._rehash(user_id, password, old_hash))
        work.addErrback(failed).addBoth(done)

    async def _rehash(self, user_id: str, password: str, old_hash: str) -> None:
        statement = self._keys.queries.update
        assert statement is not None
        try:
            new_hash = await self._hashing.hash(password, self._keys.pepper)
        except Overloaded:
            return
        localpart = UserId.parse(user_id, self._server_name).localpart
        names = {"user_id": user_id, "localpart": localpart}
        values = {**names, "old_hash": old_hash, "new_hash": new_hash}
        _, count = await self._run(self._for_logins, statement, values)
        self.log.info(
            "{name}: the hash of {user_id} is renewed in {count} rows",
            name=self.name,
            user_id=user_id,
            count=count,
        )


def _flag(given: object) -> bool:
    if given is None or given in (0, 1):
        return bool(given)
    raise ValueError("not true, false, 1, 0 or NULL")


def _addresses(given: object) -> object:
    if given is None:
        return ()
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list) or not all(isinstance(each, str) for each in parts):
        raise ValueError("neither text nor an array of texts")
    return tuple(each.strip() for each in parts if each.strip())


_Flag = Annotated[bool, BeforeValidator(_flag)]


class _Row(BaseModel):
    """One account, as a query gives it; other columns are left alone."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    user_id: str | None = None
    localpart: str | None = None
    password_hash: str | None = None
    display_name: str | None = None
    emails: Annotated[tuple[str, ...], BeforeValidator(_addresses)] = ()
    locked: _Flag = False
    deactivated: _Flag = False


def _check_parameters(name: str, statement: str, driver: Driver) -> None:
    """Refuse a statement that names a parameter which is not given, or misses one."""
    path = f"queries.{name}"
    all_of, one_of = _WANTED[name]
    named = set(re.findall(driver.parameter, re.sub(r"'[^']*'", "", statement)))
    if driver.stray is not None and re.search(driver.stray, statement.replace("%%", "")):
        raise ConfigError(path, "a percent sign that begins no parameter is written %%")
    for stranger in sorted(named - all_of - one_of):
        known = ", ".join(sorted(all_of | one_of))
        raise ConfigError(path, f"there is no parameter {stranger}, but {known}")
    for missing in sorted(all_of - named):
        raise ConfigError(path, f"it does not use the parameter {missing}")
    if not named & one_of:
        choice = " or ".join(sorted(one_of))
        raise ConfigError(path, f"it does not use the parameter {choice}")


def _try_out(driver: Driver, path: Path, statements: Mapping[str, str]) -> None:
    """Have SQLite read the statements without running them."""
    try:
        connection = driver.connect()
    except driver.errors as error:
        raise ConfigError("sqlite", f"{path}: cannot open it: {error}") from None
    try:
        for name, statement in statements.items():
            all_of, one_of = _WANTED[name]
            try:
                driver.run(connection, f"EXPLAIN {statement}", dict.fromkeys(all_of | one_of, ""))
            except driver.errors as error:
                raise ConfigError(f"queries.{name}", str(error)) from None
    finally:
        connection.close()
