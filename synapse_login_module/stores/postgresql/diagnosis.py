"""The diagnosis of the store in a PostgreSQL database, which changes nothing there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from synapse_login_module.errors import ConfigError
from synapse_login_module.model import Finding, Level, TokenKey
from synapse_login_module.model.findings import (
    CLOCK_SLACK,
    failed,
    good,
    in_milliseconds,
    on_one_line,
    warning,
)
from synapse_login_module.plugin import Environment
from synapse_login_module.stores.diagnosis import (
    SAMPLE,
    SYSTEM,
    Snapshot,
    missing_of,
    names_made,
    of_clock,
    of_keys,
    of_schema,
)
from synapse_login_module.stores.postgresql.schema import MIGRATIONS, require_rights, version_of

_NEWEST = (
    "SELECT max(issued_at) FROM (SELECT issued_at FROM synapse_login_sessions"
    " ORDER BY session_id DESC LIMIT %s) AS sample"
)

_ADVICE: Mapping[str, str] = {
    "password authentication failed": "correct the password in dsn or password_file; ALTER ROLE …"
    " PASSWORD sets it",
    "no password supplied": "write the password into the file of password_file",
    "root certificate file": "name the authority of the server's certificate in dsn:"
    " sslrootcert=FILE, by its whole path, or sslrootcert=system",
    "no pg_hba.conf entry": "allow this machine in PostgreSQL's pg_hba.conf",
    "does not exist": "create the database and the role of dsn, or correct their names there",
    "too many clients": "raise max_connections of PostgreSQL, or lower connections here",
    "remaining connection slots": "raise max_connections of PostgreSQL, or lower connections here",
    "read-only": "name the primary in dsn: this is a standby",
    "certificate": "correct the server's certificate, or sslrootcert and sslmode in dsn",
    "translate host": "correct the host in dsn, or this machine's DNS",
    "refused": "start PostgreSQL, or correct host and port in dsn",
    "timeout": "see whether PostgreSQL hangs, or a firewall lies in between",
}
"""What to do about a message of libpq that has some words in it."""

_OTHERWISE = "see PostgreSQL's log, and dsn in the configuration"


def examine(
    connect: Callable[[], Any], unverified_host: str | None, environment: Environment
) -> list[Finding]:
    """Examine the database. Blocks.

    :param connect: opens a connection in autocommit mode.
    :param unverified_host: the host whose certificate is not checked; ``None`` for none.
    """
    from psycopg import Error

    began = time.perf_counter()
    try:
        with closing(connect()) as connection:
            took = in_milliseconds(time.perf_counter() - began)
            findings = [_of_server(connection, took)]
            if unverified_host is not None:
                findings.append(
                    warning(
                        "TLS",
                        f"anyone in between can pose as {unverified_host}",
                        "set sslmode=verify-full in dsn",
                    )
                )
            try:
                findings += _of_database(connection, environment)
            except Error as error:
                findings.append(_broken(error))
            return findings
    except (Error, ConfigError) as error:
        return [_broken(error)]


def _of_server(connection: Any, took: str) -> Finding:
    info = connection.info
    tls = "TLS" if connection.pgconn.ssl_in_use else "no TLS"
    release = f"PostgreSQL {info.server_version // 10000}.{info.server_version % 10000}"
    where = f"{info.host}, port {info.port}, database {info.dbname}"
    return good(where, f"{release}, connected in {took}, {tls}")


def _of_database(connection: Any, environment: Environment) -> Iterator[Finding]:
    began = time.perf_counter()
    try:
        snapshot = _read(connection)
    except ConfigError as error:
        newer = "install the version of this program that has used the database last"
        yield failed("schema", error.problem, newer)
        return
    took = in_milliseconds(time.perf_counter() - began)
    yield good("a read", f"answered in {took}")
    yield of_schema(snapshot, len(MIGRATIONS))
    if snapshot.version == len(MIGRATIONS) and not snapshot.missing:
        rights = _rights(connection)
        yield rights
        if rights.level is Level.OK:
            yield _write(connection)
    (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    yield good(
        "disk", f"the database has {size >> 20} MiB; how much is free is for PostgreSQL's machine"
    )
    yield from of_keys(environment.keys, snapshot.keys)
    yield from of_clock(environment, snapshot.newest)
    yield from _of_clocks(connection, environment)


def _read(connection: Any) -> Snapshot:
    version = version_of(connection)
    rows = connection.execute(
        "SELECT name FROM unnest(%s::TEXT[]) AS name WHERE to_regclass(name) IS NOT NULL",
        [names_made(MIGRATIONS)],
    )
    there = {name for (name,) in rows}
    missing = missing_of(MIGRATIONS[:version], there)
    if there and not version:
        missing = ["the table synapse_login_schema"]
    keys, newest = [], None
    if "synapse_login_keys" in there:
        rows = connection.execute(
            "SELECT key_id, fingerprint, retired FROM synapse_login_keys ORDER BY key_id"
        )
        keys = [TokenKey(*row) for row in rows]
    if "synapse_login_sessions" in there:
        (newest,) = connection.execute(_NEWEST, [SAMPLE]).fetchone()
    return Snapshot(version, missing, keys, newest)


def _rights(connection: Any) -> Finding:
    try:
        require_rights(connection)
    except ConfigError as error:
        advice = "GRANT SELECT, INSERT, UPDATE, DELETE on the tables to the role of dsn"
        return failed("rights", error.problem, advice)
    return good("rights", "the role may read and write the tables")


def _write(connection: Any) -> Finding:
    """Write in a transaction that is rolled back."""
    from psycopg import Error

    began = time.perf_counter()
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(
                "INSERT INTO synapse_login_leases (name, holder, ends_at)"
                " VALUES ('doctor ' || pg_backend_pid(), 'doctor', 0)"
            )
    except Error as error:
        return _broken(error, "a write")
    took = in_milliseconds(time.perf_counter() - began)
    return good("a write", f"taken in {took}, and rolled back")


def _of_clocks(connection: Any, environment: Environment) -> Iterator[Finding]:
    (theirs,) = connection.execute(
        "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
    ).fetchone()
    apart = abs(theirs - environment.clock())
    if apart > CLOCK_SLACK:
        yield warning(
            "clock",
            f"it differs from PostgreSQL's by {apart:.0f} seconds",
            "keep the clocks of both machines right by NTP",
            SYSTEM,
        )


def _broken(error: Exception, what: str = "PostgreSQL") -> Finding:
    text = on_one_line(error)
    advice = next((each for words, each in _ADVICE.items() if words in text), _OTHERWISE)
    return failed(what, text, advice)
