"""What the diagnosis of a store looks at, whatever its database."""

from __future__ import annotations

import re
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from synapse_login_module.model import Finding, TokenKey
from synapse_login_module.model.findings import CLOCK_SLACK, failed, good, in_units, warning
from synapse_login_module.plugin import Environment
from synapse_login_module.stores.keys import find_problems
from synapse_login_module.tokens.format import KeyRing

KEYS, SYSTEM = "keys", "system"
"""The areas of findings that are not about the store itself."""

_MADE = re.compile(r"CREATE (TABLE|(?:UNIQUE )?INDEX) (\w+)(?:\s+ON (\w+))?")
SAMPLE = 100_000
"""How many sessions are read to find the newest one: those that began last.

Older sessions may have been refreshed since. They are left out, since a table of millions of rows
would have to be read whole.
"""


@dataclass(frozen=True)
class Snapshot:
    """What was read in a store's database.

    :param version: the version of its schema; 0 when it has none.
    :param missing: the tables and indexes of that version that are missing.
    :param keys: the fingerprints of the token keys; empty if the table is missing.
    :param newest: when the newest of the :data:`SAMPLE` last sessions began or was refreshed, in
        milliseconds since the epoch; ``None`` if there is none.
    """

    version: int
    missing: Sequence[str]
    keys: Sequence[TokenKey]
    newest: int | None


def names_made(migrations: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of the tables and indexes that migrations make."""
    return [match[2] for match in _made(migrations)]


def missing_of(migrations: Sequence[Sequence[str]], there: Container[str]) -> list[str]:
    """List what migrations made and is missing. A table that is missing stands for its indexes.

    :param there: the names of the tables and indexes that are there.
    """
    missing = []
    for match in _made(migrations):
        kind = "table" if match[1] == "TABLE" else "index"
        if match[2] not in there and (kind == "table" or match[3] in there):
            missing.append(f"the {kind} {match[2]}")
    return missing


def _made(migrations: Sequence[Sequence[str]]) -> Iterator[re.Match[str]]:
    for migration in migrations:
        for statement in migration:
            yield from _MADE.finditer(statement)


def of_schema(snapshot: Snapshot, known: int) -> Finding:
    """Judge the schema.

    :param known: the version that this program makes.
    """
    if snapshot.missing:
        names = ", ".join(snapshot.missing)
        verb = "is" if len(snapshot.missing) == 1 else "are"
        return failed(
            "schema",
            f"{names} {verb} missing",
            "stop the server, put the database back from a backup and start the server",
        )
    if snapshot.version == 0:
        return warning(
            "schema",
            "there are no tables yet",
            "the server makes them at its first start; if it has run before, this is another"
            " database than it uses",
        )
    if snapshot.version < known:
        return good("schema", f"version {snapshot.version}; the next start makes it {known}")
    return good("schema", f"version {snapshot.version}, all tables are there")


def of_keys(ring: KeyRing | None, keys: Sequence[TokenKey]) -> Iterator[Finding]:
    """Compare the keys of this machine with those in the store."""
    if ring is None:
        if any(not each.retired for each in keys):
            yield failed(
                "fingerprints",
                "the store has keys in use, and there is no key file here",
                "put the key file back from a backup, or copy it from another machine",
                KEYS,
            )
        return
    problems = find_problems(ring, keys)
    for problem in problems:
        yield failed("fingerprints", problem.found, problem.advice, KEYS)
    if not problems:
        waiting = sorted(set(ring.fingerprints) - set(ring.in_use))
        more = f"; key {waiting[-1]} waits for activate-key" if waiting else ""
        known = f"{len(keys)} in the store match" if keys else "the store has none yet"
        yield good("fingerprints", f"key {ring.newest} signs; {known}{more}", KEYS)


def of_clock(environment: Environment, newest: int | None) -> Iterator[Finding]:
    """Check that this machine's clock is not behind the newest session."""
    if newest is None:
        return
    ahead = newest / 1000 - environment.clock()
    if ahead > CLOCK_SLACK:
        yield failed(
            "clock",
            f"it is {in_units(ahead)} behind the newest session in the store",
            "set the clock, of this machine or of the one that wrote the session, and keep it right"
            " by NTP",
            SYSTEM,
        )
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(environment.clock()))
        yield good("clock", f"{when}, not before the newest session", SYSTEM)
