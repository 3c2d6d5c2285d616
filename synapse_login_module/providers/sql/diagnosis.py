"""The diagnosis of a database of accounts: each query that reads, for an account that does
not exist.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import (
    NO_ACCOUNT,
    failed,
    good,
    in_milliseconds,
    on_one_line,
    warning,
)
from synapse_login_module.outbound.examining import advice_on_connecting
from synapse_login_module.providers.identifiers import NAMES
from synapse_login_module.providers.sql.driver import Driver

Find = Callable[[str, Mapping[str, str]], Awaitable[bool]]

_NO_SUCH_ID = "invalid input syntax for type"
_QUERIES = ("by_user", "by_email", "by_phone", "status")

_TO_VERIFY = "correct the server's certificate, or host, sslrootcert and sslmode in postgresql"

_ADVICE: Mapping[str, str] = {
    "to database": "GRANT SELECT on its tables to the user of mysql, or correct database there",
    "Access denied": "correct user, password or password_file in mysql",
    "Unknown database": "create it, or correct database in mysql",
    "is not allowed to connect": "CREATE USER for this machine's address there",
    "command denied": "GRANT SELECT on it to the user of mysql",
    "doesn't exist": "make the table, or correct the query",
    "Unknown column": "correct the query",
    "SSL is required": "set up TLS at the server, or set tls in mysql to false if it is near",
    "password authentication failed": "correct the password in postgresql",
    "no password supplied": "name a passfile in postgresql by its whole path; it counts only if its"
    " owner alone may read it (chmod 600)",
    "root certificate file": "name the authority of the server's certificate in postgresql:"
    " sslrootcert=FILE, by its whole path, or sslrootcert=system",
    "SSL error": _TO_VERIFY,
    "server certificate for": _TO_VERIFY,
    "server does not support SSL": "set up TLS at the server, or leave sslmode out of postgresql if"
    " it is near",
    "no pg_hba.conf entry": "allow this machine in PostgreSQL's pg_hba.conf",
    "no such table": "make the table, or correct the query",
    "no such column": "correct the query",
    "permission denied": "GRANT SELECT on it to the role of postgresql",
    "relation": "make the table, or correct the query",
    "column": "correct the query",
    "syntax": "correct the query",
    "unable to open": "correct sqlite, or let the server's user read the file",
    "does not exist": "create the database and the role, or correct their names in postgresql",
}


async def examine(
    driver: Driver,
    queries: Any,
    find: Find,
) -> list[Finding]:
    """Run the queries, one after the other, until one fails.

    :param queries: the statements; ``None`` for those that are not configured.
    :param find: runs a query with the values of its parameters; tells whether it found an account.
    """
    findings = list(_of_driver(driver))
    for query in _QUERIES:
        if getattr(queries, query) is None:
            continue
        what = f"queries.{query}"
        began = time.perf_counter()
        try:
            is_found = await _finds(find, query)
        except ProviderUnavailable as error:
            text = on_one_line(error)
            return [*findings, failed(what, text, _advice(text, driver.key))]
        took = in_milliseconds(time.perf_counter() - began)
        if is_found:
            found = f"it finds an account that does not exist, in {took}"
            advice = "compare with the parameter in its WHERE clause: every name would be found"
            findings.append(warning(what, found, advice))
        else:
            findings.append(good(what, f"answered in {took}"))
    return findings


def _of_driver(driver: Driver) -> Iterator[Finding]:
    if driver.unverified_host is not None:
        found = f"anyone in between can pose as {driver.unverified_host}"
        yield warning("TLS", found, driver.to_verify)


async def _finds(find: Find, query: str) -> bool:
    """Run a query with values that no account has.

    PostgreSQL refuses text as an id where ids are numbers or UUIDs, before it looks at anything
    else. Such a query is run with a number and with a UUID.
    """
    for account_id in (NO_ACCOUNT, "-1"):
        try:
            return await find(query, _values(query, account_id))
        except ProviderUnavailable as error:
            if query != "status" or _NO_SUCH_ID not in str(error):
                raise
    return await find(query, _values(query, str(UUID(int=0))))


def _values(query: str, account_id: str) -> Mapping[str, str]:
    """Return values that no account has.

    :param account_id: the id, for ``status``.
    """
    kind = query.removeprefix("by_")
    if kind == "status":
        return {**dict.fromkeys(NAMES["user"], NO_ACCOUNT), "subject": account_id}
    return dict.fromkeys(NAMES[kind], NO_ACCOUNT)  # type: ignore[index] # of _QUERIES


def _advice(problem: str, key: str) -> str:
    """Return what to do about a query that fails.

    :param key: the key of the configuration that names the database.
    """
    found = next((each for words, each in _ADVICE.items() if words in problem), None)
    return found or advice_on_connecting(problem, key)
