"""The diagnosis of a Synapse with the module: its release and its database, which it only reads."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from synapse_login_module.errors import ConfigError, StoreUnavailable
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed, good, in_milliseconds, on_one_line, warning
from synapse_login_module.synapse import link_rows, session_rows
from synapse_login_module.synapse.homeserver_files import parse_given, read_given
from synapse_login_module.synapse.reading import ReadRows, open_database
from synapse_login_module.synapse.tables import TOKEN_TABLES
from synapse_login_module.synapse.user_tables import USER_TABLES

__all__ = ["examine_database", "examine_release", "is_local_passwords", "read_given"]

_MADE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
_AWAY = ("refused", "timeout", "translate host", "could not", "connection")


def examine_release() -> Finding:
    """Examine the release of Synapse that is installed here."""
    what = "Synapse"
    try:
        from synapse.util import SYNAPSE_VERSION

        from synapse_login_module.synapse.compat import OLDEST, is_too_old
    except ImportError as error:
        advice = "run this command in the environment that Synapse runs in"
        return failed(what, f"it cannot be imported: {on_one_line(error)}", advice)
    oldest = ".".join(map(str, OLDEST))
    if is_too_old(SYNAPSE_VERSION):
        return failed(what, f"release {SYNAPSE_VERSION}", f"upgrade it to {oldest} or newer")
    return good(what, f"release {SYNAPSE_VERSION}; the module needs {oldest} or newer")


def is_local_passwords(provider: type[Any]) -> bool:
    """Say whether a provider is that of Synapse's own passwords, which needs a running Synapse."""
    try:
        from synapse_login_module.synapse.provider import SynapsePasswordProvider
    except ImportError:
        return False
    return issubclass(provider, SynapsePasswordProvider)


def examine_database(given: Mapping[str, Any], delegated: bool) -> list[Finding]:
    """Read in each table that the module uses. Blocks.

    :param given: Synapse's configuration.
    :param delegated: whether Synapse delegates authentication, and the module has no tables.
    """
    try:
        files = parse_given(given)
    except ConfigError as error:
        return [failed(error.path, error.problem, "correct it in homeserver.yaml")]
    what = str(files.arguments.get("database") or files.arguments.get("dbname") or files.database)
    began = time.perf_counter()
    try:
        with closing(open_database(files)) as rows:
            took = in_milliseconds(time.perf_counter() - began)
            return [good(what, f"opened in {took}"), *_of_tables(rows, delegated)]
    except ConfigError as error:
        return [failed(error.path, error.problem, "install it in Synapse's environment")]
    except StoreUnavailable as error:
        return [failed(what, on_one_line(error), _advice(str(error)))]


def _of_tables(rows: ReadRows, delegated: bool) -> Iterator[Finding]:
    problems = []
    for table, columns in {**TOKEN_TABLES, **USER_TABLES}.items():
        problem = _problem_of(rows, table, ", ".join(columns))
        if problem is not None:
            problems.append(problem)
            yield failed(
                f"table {table}",
                problem,
                "run Synapse once, so that it makes its tables; if it has run, put the database"
                " back from a backup, or see docs/synapse.rst for the releases that are supported",
            )
    if not problems:
        yield good("tables", "those of Synapse that the module uses are there")
    if not delegated:
        yield _of_own_tables(rows)


def _of_own_tables(rows: ReadRows) -> Finding:
    names = [
        match[1]
        for statement in (*session_rows.CREATE, *link_rows.CREATE)
        if (match := _MADE.match(statement))
    ]
    missing = [name for name in names if _problem_of(rows, name, "user_id") is not None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        return warning(
            "tables",
            f"{', '.join(missing)} {verb} not there",
            "Synapse makes the module's tables at its next start; if links were there before, put"
            " them back from a backup",
        )
    return good("tables", "those of the module are there")


def _problem_of(rows: ReadRows, table: str, columns: str) -> str | None:
    """Return why columns cannot be read, or ``None``. All three are constants of this package."""
    try:
        rows.fetch(f"SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608
    except StoreUnavailable as error:
        return on_one_line(error)
    return None


def _advice(problem: str) -> str:
    if "password" in problem:
        return "correct the password in database.args of homeserver.yaml"
    if "there is no" in problem:
        return "run the command in the folder that Synapse runs in"
    if any(each in problem for each in _AWAY):
        return "start PostgreSQL, or correct host and port in database.args of homeserver.yaml"
    return "let the user of this command read the database"
