"""The token store in PostgreSQL, as a configuration names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from zope.interface import implementer, provider

from synapse_login_module.common.daemon_thread import in_daemon_thread
from synapse_login_module.config import conninfo
from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.model import Bucket, Finding
from synapse_login_module.plugin import Environment, IDiagnosableClass, IPluginClass
from synapse_login_module.stores.imported import ImportingTokenStore
from synapse_login_module.stores.postgresql.database import PostgreSQLDatabase
from synapse_login_module.stores.postgresql.diagnosis import examine
from synapse_login_module.stores.postgresql.housekeeping import PostgreSQLHousekeeping
from synapse_login_module.stores.postgresql.imported import PostgreSQLImportedTokens
from synapse_login_module.stores.postgresql.limits import PostgreSQLRateLimits
from synapse_login_module.stores.postgresql.schema import (
    MIGRATIONS,
    migrate,
    require_rights,
    version_of,
)
from synapse_login_module.stores.postgresql.work import PoolLimits
from synapse_login_module.stores.schema_version import require_newest
from synapse_login_module.stores.table_notes import TableNotes

_FILES = ("passfile", "sslcert", "sslcrl", "sslcrldir", "sslkey", "sslrootcert")
_SYSTEM = "system"
_LEAST_CONNECT_TIMEOUT = 2


class PostgreSQLKeys(Strict):
    """The configuration keys of :class:`PostgreSQLTokenStore`."""

    dsn: str
    password_file: FilePath | None = None
    connections: Annotated[int, Field(ge=1, le=100)] = 4
    batch: Annotated[int, Field(ge=1, le=1000)] = 128
    queue: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    timeout: PositiveDuration = 5_000


@dataclass(frozen=True)
class PostgreSQLConfig:
    """The checked configuration of :class:`PostgreSQLTokenStore`.

    :param connect: opens a connection in autocommit mode. Blocks for up to ``connect_timeout``,
        which is ``timeout`` in whole seconds and at least 2, unless ``dsn`` sets it.
    :param pool_limits: the limits of the connection pool.
    :param unverified_host: a server whose certificate is not checked, so that an attacker on the
        network can impersonate it; ``None`` if there is none.
    :param not_tried: see :class:`~synapse_login_module.plugin.IPluginClass`.
    :param place: the server and its database, without secrets.
    """

    connect: Callable[[], Any]
    pool_limits: PoolLimits
    unverified_host: str | None = None
    not_tried: Sequence[str] = ()
    place: str = ""


@implementer(IService, IRateLimits)
@provider(IPluginClass, IDiagnosableClass)
class PostgreSQLTokenStore(ImportingTokenStore, Service):
    """The store of derived tokens in a PostgreSQL database, which counts attempts there too.

    Connections are opened when there is work, until ``stopService``.
    """

    log = Logger()

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> PostgreSQLConfig:
        """Check the configuration, without connecting to the database."""
        keys = validate(PostgreSQLKeys, config)
        parameters = _parameters(keys.dsn, folder)
        password_file = None if keys.password_file is None else folder / keys.password_file
        if password_file is not None:
            if "password" in parameters:
                raise ConfigError("password_file", "dsn holds a password already")
            _read_password(password_file)
        seconds = keys.timeout / 1000
        defaults: dict[str, Any] = {
            "application_name": "synapse-login",
            "connect_timeout": max(_LEAST_CONNECT_TIMEOUT, ceil(seconds)),
            "target_session_attrs": "read-write",
            "tcp_user_timeout": keys.timeout,
        }
        return PostgreSQLConfig(
            _connector({**defaults, **parameters}, password_file),
            PoolLimits(keys.connections, keys.batch, keys.queue, seconds),
            conninfo.unverified_host(parameters),
            [conninfo.place("dsn", keys.dsn)],
            conninfo.database("dsn", keys.dsn),
        )

    @staticmethod
    def describe(config: PostgreSQLConfig) -> str:
        """Return the server and its database; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return config.place

    @staticmethod
    def require_existing(config: PostgreSQLConfig) -> None:
        """Reject a database that no server has used.

        See :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        from psycopg import Error

        try:
            with closing(config.connect()) as connection:
                if not version_of(connection):
                    raise ConfigError("dsn", "this database holds no tables of a server")
        except Error as error:
            raise ConfigError("dsn", f"cannot use the database: {error}") from None

    @staticmethod
    def diagnose(config: PostgreSQLConfig, environment: Environment) -> Deferred[list[Finding]]:
        """Examine the database; see :class:`~synapse_login_module.plugin.IDiagnosableClass`."""
        return in_daemon_thread(
            environment.reactor,
            lambda: examine(config.connect, config.unverified_host, environment),
        )

    def __init__(self, config: PostgreSQLConfig, environment: Environment) -> None:
        if config.unverified_host is not None:
            self.log.warn(
                "token_store: anyone in between can pose as {host}: set sslmode=verify-full in dsn",
                host=config.unverified_host,
            )
        _prepare(config.connect, environment.read_only)
        self._postgresql = PostgreSQLDatabase(
            config.connect, environment.reactor, config.pool_limits, environment.metrics
        )
        self.housekeeping = PostgreSQLHousekeeping(self._postgresql.execute)
        self.imported = PostgreSQLImportedTokens(self._postgresql.execute)
        self.notes = TableNotes(self.housekeeping)
        self._limits = PostgreSQLRateLimits(
            PostgreSQLDatabase(config.connect, environment.reactor, config.pool_limits),
            environment.reactor.seconds,
        )
        super().__init__(
            self._postgresql,
            environment.required_keys,
            environment.policy,
            environment.clock,
            environment.random,
            environment.delegated,
        )

    def consume(
        self,
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> Deferred[None]:
        """Consume tokens; see :class:`~synapse_login_module.interfaces.IRateLimits`."""
        return self._limits.consume(wanted, required, refunded)

    def waits(self, buckets: Sequence[Bucket]) -> Deferred[list[float]]:
        """Read the limits; see :class:`~synapse_login_module.interfaces.IRateLimits`."""
        return self._limits.waits(buckets)

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Refund tokens; see :class:`~synapse_login_module.interfaces.IRateLimits`."""
        return self._limits.refund(consumed)

    def stopService(self) -> Deferred[None]:
        """Run the waiting work and close the connections; fires when that is done."""
        Service.stopService(self)
        stopped = gatherResults([self._postgresql.stop(), self._limits.stop()])
        return stopped.addCallback(lambda _: None)


def _parameters(dsn: str, folder: Path) -> dict[str, Any]:
    """Parse the connection string, and make the paths in it relative to the folder."""
    parameters = conninfo.read("dsn", dsn)
    for name in _FILES:
        if parameters.get(name, _SYSTEM) != _SYSTEM:
            parameters[name] = str(folder / parameters[name])
    return parameters


def _connector(parameters: Mapping[str, Any], password_file: Path | None) -> Callable[[], Any]:
    def connect() -> Any:
        password = {} if password_file is None else {"password": _read_password(password_file)}
        return conninfo.connect(
            "dsn",
            autocommit=True,
            prepare_threshold=None,
            client_encoding="utf8",
            **{**parameters, **password},
        )

    return connect


def _read_password(path: Path) -> str:
    """Read a password from the first line of a file.

    The file is read for each connection, so that the password can be changed.
    """
    try:
        password = path.read_text("utf-8").partition("\n")[0].rstrip("\r")
    except OSError as error:
        raise ConfigError("password_file", f"{path}: cannot read it: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("password_file", f"{path}: it is not UTF-8 text") from None
    if not password or "\0" in password:
        raise ConfigError("password_file", f"{path}: there is no password in its first line")
    return password


def _prepare(connect: Callable[[], Any], read_only: bool) -> None:
    """Migrate the schema, and check that this role may use the tables.

    The connection is closed again, because the process may fork into the background next.

    :param read_only: whether to leave the schema as it is, and only check its version.
    :raise ConfigError: when the database cannot be used, or would have to be migrated.
    """
    from psycopg import Error

    try:
        connection = connect()
        try:
            if read_only:
                require_newest("dsn", version_of(connection), len(MIGRATIONS))
            else:
                migrate(connection)
            require_rights(connection)
        finally:
            connection.close()
    except Error as error:
        raise ConfigError("dsn", f"cannot use the database: {error}") from None
