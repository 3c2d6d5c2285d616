"""The configuration of the SQL provider, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from synapse_login_module.config import conninfo
from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.hashes import takes_prefix
from synapse_login_module.providers.identifiers import NAMES
from synapse_login_module.providers.sql.driver import Driver
from synapse_login_module.providers.sql.mysql import MySQLDriver
from synapse_login_module.providers.sql.mysql_server import MySQLKeys, read_server
from synapse_login_module.providers.sql.postgresql import PostgreSQLDriver
from synapse_login_module.providers.sql.sqlite import SQLiteDriver


class _Queries(Strict):
    by_user: str
    by_email: str | None = None
    by_phone: str | None = None
    status: str | None = None
    update: str | None = None


class _Keys(Strict):
    sqlite: FilePath | None = None
    postgresql: str | None = Field(default=None, repr=False)
    mysql: MySQLKeys | None = None
    queries: _Queries
    pepper: str = Field(default="", repr=False)
    normalize: bool | None = None
    new_hash_prefix: str = ""
    timeout: PositiveDuration = 5_000
    connections: Annotated[int, Field(ge=1, le=100)] = 4


_WANTED: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "by_user": (frozenset(), frozenset(NAMES["user"])),
    "by_email": (frozenset(), frozenset(NAMES["email"])),
    "by_phone": (frozenset(), frozenset(NAMES["phone"])),
    "status": (frozenset(), frozenset({*NAMES["user"], "subject"})),
    "update": (frozenset({"new_hash", "old_hash"}), frozenset(NAMES["user"])),
}
"""For each statement, the parameters that it must all use, and those of which it must use one."""

_QUOTED = re.compile(r"""(['"]).*?\1""", re.DOTALL)
"""Text in quotes, in which a parameter is none. MySQL takes double quotes for text, too."""

SUBJECT_IS_LOST = (
    "queries.status: it does not use the parameter subject, which queries.{query} has a column for"
)
NO_FORMAT = "no known format has this before its hashes: see docs/hashes.rst"
SUBJECT_IS_UNSEEN = (
    "queries.status: it has no column subject: this database may find an id in another spelling"
)
NO_SUBJECT = "queries.{query}: it has no column subject, which queries.{other} has given"


@dataclass(frozen=True)
class SQLConfig:
    """The checked configuration of :class:`SQLProvider`.

    :param driver: connects to the database.
    :param keys: the keys of the configuration.
    :param by_subject: whether ``queries.status`` finds accounts by their subject.
    :param not_tried: the servers that were not connected to; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
    """

    driver: Driver
    keys: _Keys
    by_subject: bool
    not_tried: Sequence[str]


def parse(config: Mapping[str, Any], folder: Path) -> SQLConfig:
    """Check a configuration. SQLite parses the statements, if their parameters are right.

    :param folder: the folder that relative paths start from.
    :raise ConfigError: for all mistakes in the statements' parameters together. If there is none,
        for the first error of SQLite.
    """
    keys = validate(_Keys, config)
    if keys.new_hash_prefix and keys.queries.update is None:
        raise ConfigError("new_hash_prefix", "has no effect without queries.update")
    if not takes_prefix(keys.new_hash_prefix):
        raise ConfigError("new_hash_prefix", NO_FORMAT)
    driver, not_tried = _driver(keys, folder)
    statements = {name: text for name, text in keys.queries if text is not None}
    mistakes = Mistakes()
    for name, statement in statements.items():
        with mistakes.gathered():
            _check_parameters(name, statement, driver)
    mistakes.raise_any()
    by_subject = _names_subject(keys.queries.status, driver)
    if keys.sqlite is not None:
        _try_out(driver, folder / keys.sqlite, statements, by_subject)
    return SQLConfig(driver, keys, by_subject, not_tried)


def _driver(keys: _Keys, folder: Path) -> tuple[Driver, Sequence[str]]:
    """Return the driver of the database, and the servers that it is on."""
    given = [each for each in (keys.sqlite, keys.postgresql, keys.mysql) if each is not None]
    if len(given) != 1:
        raise ConfigError("", "takes one of sqlite, postgresql and mysql")
    seconds, writes = keys.timeout / 1000, keys.queries.update is not None
    if keys.sqlite is not None:
        return SQLiteDriver(folder / keys.sqlite, seconds, writes), ()
    if keys.postgresql is not None:
        driver = PostgreSQLDriver(keys.postgresql, seconds, writes)
        return driver, [conninfo.place(driver.key, keys.postgresql)]
    assert keys.mysql is not None
    server = read_server(keys.mysql, folder)
    return MySQLDriver(server, seconds, writes), [server.place]


def _parameters(statement: str, driver: Driver) -> set[str]:
    return set(re.findall(driver.parameter, _QUOTED.sub("", statement)))


def _names_subject(statement: str | None, driver: Driver) -> bool:
    return statement is not None and "subject" in _parameters(statement, driver)


def _check_parameters(name: str, statement: str, driver: Driver) -> None:
    """Reject a statement that uses an unknown parameter, or lacks one that it needs."""
    path = f"queries.{name}"
    all_of, one_of = _WANTED[name]
    named = _parameters(statement, driver)
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


def _try_out(driver: Driver, path: Path, statements: Mapping[str, str], by_subject: bool) -> None:
    """Have SQLite parse the statements without running them, and check their columns.

    :param by_subject: whether ``queries.status`` finds accounts by their subject.
    :raise ConfigError: for the first mistake.
    """
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
        have = {
            name: _has_subject(driver, connection, statement)
            for name, statement in statements.items()
            if name.startswith("by_")
        }
    finally:
        connection.close()
    for name, has_subject in have.items():
        if None not in (has_subject, have["by_user"]) and has_subject != have["by_user"]:
            problem = "the column subject must be in every by_ query, or in none"
            raise ConfigError(f"queries.{name}", problem)
    if have["by_user"] and not by_subject:
        key, _, problem = SUBJECT_IS_LOST.format(query="by_user").partition(": ")
        raise ConfigError(key, problem)


def _has_subject(driver: Driver, connection: Any, statement: str) -> bool | None:
    """Say whether a valid statement returns a column ``subject``; ``None`` if SQLite cannot tell
    without running it.
    """
    values = dict.fromkeys(_parameters(statement, driver), "")
    within = statement.rstrip().rstrip(";")
    try:
        cursor = connection.execute(f"SELECT * FROM ({within}\n) LIMIT 0", values)  # noqa: S608  the operator's own
    except driver.errors:
        return None
    return "subject" in {column[0] for column in cursor.description}
