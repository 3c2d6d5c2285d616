"""What is taken over from Synapse's tables: accounts and sessions, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from synapse_login_module.model import (
    DevicelessTokens,
    HomeserverDevice,
    HomeserverUser,
    ImportedSession,
)
from synapse_login_module.synapse.reading import ReadRows
from synapse_login_module.synapse.user_tables import FORMER_AUTH_PROVIDER

_FACTS = (
    "u.is_guest, u.appservice_id, u.password_hash, u.user_type, u.deactivated, u.locked, u.admin"
)
_ACCOUNTS = (
    f"SELECT u.name, {_FACTS}, p.displayname, EXISTS (SELECT 1 FROM user_external_ids AS e"
    f" WHERE e.user_id = u.name AND e.auth_provider <> '{FORMER_AUTH_PROVIDER}') FROM users AS u"
    " LEFT JOIN profiles AS p ON p.full_user_id = u.name"
    " WHERE u.name > ? ORDER BY u.name LIMIT ?"
)
_ADDRESSES = (
    "SELECT user_id, medium, address FROM user_threepids"
    " WHERE user_id >= ? AND user_id <= ? ORDER BY user_id, added_at, address"
)

# After a refresh, the pair before is good until the new one is used: its answer may be lost.
_TOKENS = (
    "SELECT a.user_id, a.device_id, a.token, a.valid_until_ms, a.last_validated,"
    " a.puppets_user_id, r.id, r.token, r.expiry_ts, r.ultimate_session_expiry_ts,"
    " CASE WHEN r.next_token_id IS NULL THEN 1"
    " WHEN n.next_token_id IS NULL AND NOT COALESCE(b.used, false) THEN 1 ELSE 0 END,"
    f" d.display_name, d.last_seen, u.name, {_FACTS}"
    " FROM access_tokens AS a"
    " LEFT JOIN refresh_tokens AS r ON r.id = a.refresh_token_id"
    " LEFT JOIN refresh_tokens AS n ON n.id = r.next_token_id"
    # By the device, whose index there always was; the plus keeps SQLite from making one of its own.
    " LEFT JOIN access_tokens AS b ON b.user_id = a.user_id AND b.device_id = a.device_id"
    " AND +b.refresh_token_id = n.id"
    " LEFT JOIN devices AS d ON d.user_id = a.user_id AND d.device_id = a.device_id"
    " LEFT JOIN users AS u ON u.name = a.user_id"
    " WHERE (a.user_id, a.device_id) > (?, ?) AND a.device_id IS NOT NULL"
    " ORDER BY a.user_id, a.device_id LIMIT ?"
)
_WITHOUT_DEVICE = (
    "SELECT user_id, COUNT(*), COUNT(puppets_user_id) FROM access_tokens WHERE device_id IS NULL"
    " GROUP BY user_id ORDER BY user_id"
)
MAX_DEVICE_ID = 255
"""How long a device ID may be in an answer to Synapse's introspection."""


class _Facts(NamedTuple):
    """What kind of account one is, as the columns of ``users`` say."""

    is_guest: bool
    appservice_id: str | None
    password_hash: str | None
    user_type: str | None
    is_deactivated: bool
    is_locked: bool
    is_admin: bool

    def problem(self, default_user_type: str | None) -> str | None:
        """Return why this is no ordinary account, as words after "its account is", or ``None``.

        :param default_user_type: the ``user_type`` that every new account gets.
        """
        # Application services register accounts with an empty hash. Synapse stores the service's
        # id only for names in an exclusive namespace.
        if self.appservice_id is not None or self.password_hash == "":
            return "an application service's"
        if self.is_guest:
            return "a guest's"
        if self.user_type is not None and self.user_type != default_user_type:
            return f"of the type {self.user_type}"
        return None


def accounts(
    rows: ReadRows, page: int, default_user_type: str | None
) -> Iterator[list[HomeserverUser]]:
    """Read all accounts, in the order of their user IDs.

    :param page: how many to read at once.
    :param default_user_type: the ``user_type`` that every new account gets.
    """
    after = ""
    while found := rows.fetch(_ACCOUNTS, after, page):
        first, after = found[0][0], found[-1][0]
        addresses: dict[str, list[tuple[str, str]]] = {}
        for user_id, medium, address in rows.fetch(_ADDRESSES, first, after):
            addresses.setdefault(user_id, []).append((medium, address))
        yield [_account(row, default_user_type, addresses.get(row[0], ())) for row in found]


def _account(
    row: tuple[Any, ...], default_user_type: str | None, addresses: Sequence[tuple[str, str]]
) -> HomeserverUser:
    name, *columns, display_name, has_sso_id = row
    facts = _facts(columns)
    return HomeserverUser(
        user_id=name,
        problem=facts.problem(default_user_type),
        password_hash=facts.password_hash or None,
        has_sso_id=bool(has_sso_id),
        is_admin=facts.is_admin,
        is_deactivated=facts.is_deactivated,
        is_locked=facts.is_locked,
        display_name=display_name,
        emails=tuple(address for medium, address in addresses if medium == "email"),
        phones=tuple(address for medium, address in addresses if medium == "msisdn"),
    )


def number_of_users(rows: ReadRows) -> int:
    """Count the accounts."""
    count: int = rows.fetch("SELECT COUNT(*) FROM users")[0][0]
    return count


def number_of_tokens(rows: ReadRows) -> int:
    """Count the access tokens of devices."""
    count: int = rows.fetch("SELECT COUNT(device_id) FROM access_tokens")[0][0]
    return count


def without_device(rows: ReadRows) -> list[DevicelessTokens]:
    """Count the access tokens that are of no device, by user."""
    return [DevicelessTokens(*row) for row in rows.fetch(_WITHOUT_DEVICE)]


def sessions(
    rows: ReadRows, page: int, now: int, default_user_type: str | None
) -> Iterator[list[HomeserverDevice]]:
    """Read the tokens of all devices, in the order of users and devices.

    :param page: how many access tokens to read at once.
    :param now: milliseconds since the epoch; tokens that expire earlier are not good.
    :param default_user_type: the ``user_type`` that every new account gets.
    """
    user_id, device_id, size = "", "", page
    while found := rows.fetch(_TOKENS, user_id, device_id, size):
        devices = [list(group) for _, group in groupby(found, key=itemgetter(0, 1))]
        if len(found) == size:  # the last device may have more
            if len(devices) == 1:
                size *= 2
                continue
            devices.pop()
        size = page
        user_id, device_id = devices[-1][0][:2]
        yield [_session(tokens, now, default_user_type) for tokens in devices]


def _session(
    tokens: list[tuple[Any, ...]], now: int, default_user_type: str | None
) -> HomeserverDevice:
    user_id, device_id = tokens[0][:2]
    display_name, last_seen, name, *facts = tokens[0][11:]

    def refused(problem: str) -> HomeserverDevice:
        return HomeserverDevice(user_id, device_id, None, problem, len(tokens))

    if name is None:
        return refused("its account does not exist")
    owner = _facts(facts)
    problem = owner.problem(default_user_type) or ("deactivated" if owner.is_deactivated else None)
    if problem is not None:
        return refused(f"its account is {problem}")
    if not 0 < len(device_id) <= MAX_DEVICE_ID or "\0" in device_id:
        return refused(f"its device ID is longer than {MAX_DEVICE_ID} characters, or has a NUL")
    own = [each for each in tokens if each[5] is None]
    if not own:
        return refused("its tokens are of an administrator who acts as another user")
    good = [each for each in own if each[6] is None or _is_refreshable(each, now)]
    access = [each for each in own if each[10] and (each[3] is None or each[3] > now)]
    refreshable = [each for each in good if each[6] is not None]
    if not access and not refreshable:
        return refused("its tokens have expired")
    # The access token of a session that can be refreshed may have expired.
    expiries = [each[3] for each in access or refreshable]
    known = access + refreshable
    session = ImportedSession(
        user_id,
        device_id,
        None if display_name is None else display_name.replace("\0", ""),
        min(now, max(last_seen or 0, *(each[4] or 0 for each in known)) or now),
        None if None in expiries else max(expiries),
        frozenset(_digest(each[2]) for each in known),
        frozenset(_digest(each[7]) for each in refreshable),
    )
    return HomeserverDevice(user_id, device_id, session, None, len(tokens))


def _is_refreshable(token: tuple[Any, ...], now: int) -> bool:
    """Return whether the refresh token that came with an access token can still be used."""
    expires_at, ends_at, is_current = token[8:11]
    return bool(is_current) and all(each is None or each > now for each in (expires_at, ends_at))


def _facts(row: list[Any]) -> _Facts:
    is_guest, appservice_id, password_hash, user_type, deactivated, locked, admin = row
    return _Facts(
        bool(is_guest),
        appservice_id,
        password_hash,
        user_type,
        bool(deactivated),
        bool(locked),
        bool(admin),
    )


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
