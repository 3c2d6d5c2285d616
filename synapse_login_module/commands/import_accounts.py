"""The accounts that ``import-synapse`` takes over: as a file for BcryptProvider, or as SQL."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import yaml

from synapse_login_module.commands.import_report import Tally
from synapse_login_module.config import yaml_loader
from synapse_login_module.config.files import read_bytes
from synapse_login_module.config.validation import validate
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import HomeserverUser, canonical_email, fold
from synapse_login_module.providers.files.users import UserIndex, UsersFile

WHAT = "accounts"

_HEADER = (
    "# Written by synapse-login-module import-synapse. While the digest below is right, it writes\n"
    "# this file anew. After you have changed the file, it only adds accounts to it.\n"
    "# sha256: "
)
_PAGE = 1000
_MSISDN = re.compile(r"[1-9][0-9]{0,14}")
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

SQL_TABLE = (
    "-- CREATE TABLE accounts (localpart TEXT PRIMARY KEY, password_hash TEXT NOT NULL,\n"
    "--     display_name TEXT, emails TEXT, phones TEXT, locked BOOLEAN NOT NULL,\n"
    "--     deactivated BOOLEAN NOT NULL);"
)
_INSERT = (
    "INSERT INTO accounts (localpart, password_hash, display_name, emails, phones, locked,"
    " deactivated) VALUES"
)


class Accounts:
    """Selects the accounts that have a password, and makes BcryptProvider's entries of them.

    :param tally: counts what is left out.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._names: dict[str, str] = {}
        self._addresses: set[str] = set()

    def entries(self, users: Iterable[HomeserverUser]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Make the entries of accounts, by local part."""
        for user in users:
            problem = self._problem(user)
            if problem is not None:
                self._tally.left(WHAT, user.user_id, problem)
                continue
            localpart = localpart_of(user)
            entry = self._entry(user)
            try:
                validate(UsersFile, {"users": {localpart: entry}})
            except ConfigError as error:
                self._tally.left(WHAT, user.user_id, f"it is not usable: {error.problem}")
                continue
            other = self._names.setdefault(fold(localpart), localpart)
            if other != localpart:
                self._tally.left(WHAT, user.user_id, "its name differs from another in case alone")
                continue
            yield localpart, entry

    @staticmethod
    def _problem(user: HomeserverUser) -> str | None:
        if user.problem is not None:
            return f"it is {user.problem}"
        if user.password_hash is None:
            return "it is deactivated" if user.is_deactivated else "it has no password"
        return None

    def _entry(self, user: HomeserverUser) -> dict[str, Any]:
        emails = [each for each in user.emails if self._is_new(canonical_email(each))]
        phones = [each for each in user.phones if _MSISDN.fullmatch(each) and self._is_new(each)]
        entry = {
            "password_hash": user.password_hash,
            "display_name": user.display_name or None,
            "emails": emails,
            "phones": phones,
            "locked": user.is_locked,
            "deactivated": user.is_deactivated,
        }
        return {key: value for key, value in entry.items() if value}

    def _is_new(self, address: str | None) -> bool:
        if address is None or address in self._addresses:
            return False
        self._addresses.add(address)
        return True


def require_folder(path: Path) -> None:
    """Check that a file can be written, before its content is read from the database.

    :raise ConfigError: when its folder does not exist, or no file can be made in it.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError("", f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("", f"cannot make a file in {folder}")


def write_accounts(
    path: Path,
    accounts: Mapping[str, Mapping[str, Any]],
    gone: Iterable[str],
    tally: Tally,
    write: bool,
) -> None:
    """Write accounts into a file, or add them to a file that this command wrote before.

    If the file is as it was written, entries follow Synapse, and accounts that are deactivated
    there are deactivated. If it was changed by hand, accounts are only added to it.

    :param gone: the local parts of accounts that are deactivated at Synapse.
    :param write: ``False`` to count only.
    :raise ConfigError: when the file was written by something else, or cannot be used.
    """
    there, is_ours = _read(path)
    done: Counter[str] = Counter()
    merged: dict[str, Mapping[str, Any]] = dict(there)
    by_folded = {fold(name): name for name in there}
    for name, entry in accounts.items():
        before = by_folded.get(fold(name))
        if before is None:
            merged[name] = entry
            done["taken"] += 1
        elif there[before] == entry:
            done["there already"] += 1
        elif is_ours:
            merged[before] = entry
            done["renewed"] += 1
        else:
            tally.left(WHAT, name, f"{path} was changed by hand and has it with other content")
    for name in gone if is_ours else ():
        if name in merged and not merged[name].get("deactivated"):
            merged[name] = {**merged[name], "deactivated": True}
            done["deactivated"] += 1
    if not write or merged == there:
        pass
    elif is_ours:
        content = _entries(merged, "users:\n")
        _replace(path, _head(content) + b"\n\n" + content)
    else:
        added = {name: entry for name, entry in merged.items() if name not in there}
        _replace(path, _entries(added, read_bytes(path).decode().rstrip("\n") + "\n"))
    for outcome, number in done.items():
        tally.done(WHAT, outcome, number)


def print_accounts(entries: Iterable[tuple[str, Mapping[str, Any]]], tally: Tally) -> None:
    """Print accounts as rows of SQL, for SQLProvider."""
    for name, entry in entries:
        values = (
            name,
            entry["password_hash"],
            entry.get("display_name"),
            ", ".join(entry.get("emails", ())) or None,
            ", ".join(entry.get("phones", ())) or None,
        )
        flags = (entry.get(flag, False) for flag in ("locked", "deactivated"))
        literals = [*map(_literal, values), *(str(flag).upper() for flag in flags)]
        click.echo(f"{_INSERT} ({', '.join(literals)}) ON CONFLICT DO NOTHING;")
        tally.done(WHAT, "printed")


def deactivated(users: Iterable[HomeserverUser]) -> list[str]:
    """Return the local parts of accounts that are deactivated and have no password any more."""
    return [localpart_of(user) for user in users if user.is_deactivated and not user.password_hash]


def localpart_of(user: HomeserverUser) -> str:
    """Return the local part of an account's user ID."""
    return user.user_id[1:].partition(":")[0]


def _literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def _read(path: Path) -> tuple[dict[str, Mapping[str, Any]], bool]:
    """Read the file; return its entries, and whether it is as this command wrote it.

    :raise ConfigError: when this command did not write it.
    """
    if not path.exists():
        return {}, True
    document = read_bytes(path)
    header, _, rest = document.partition(b"\n\n")
    if not header.startswith(_HEADER.encode()):
        raise ConfigError("", "it exists, and this command did not write it: name another file")
    users = yaml_loader.parse(document).get("users") or {}
    return users, header == _head(rest)


def _head(content: bytes) -> bytes:
    return f"{_HEADER}{sha256(content).hexdigest()}".encode()


def _entries(users: Mapping[str, Mapping[str, Any]], before: str) -> bytes:
    """Format entries, behind the lines that stand before them."""
    parts = [before]
    items = list(users.items())
    for start in range(0, len(items), _PAGE):
        page = {name: dict(entry) for name, entry in items[start : start + _PAGE]}
        text = yaml.dump(
            {"users": page}, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=1 << 16
        )
        parts.append(text.partition("\n")[2])
    return "".join(parts).encode()


def _replace(path: Path, document: bytes) -> None:
    """Write a file that only its owner may read, all at once.

    :raise ConfigError: when BcryptProvider would not accept it; then nothing is written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        UserIndex.read(yaml_loader.parse(document))
        _keep_owner(path, Path(name))
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _keep_owner(path: Path, fresh: Path) -> None:
    """Give a file the owner and the mode of the file that it replaces."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(fresh, status.st_uid, status.st_gid)
    os.chmod(fresh, status.st_mode & 0o640)
