"""Everything of Synapse that its public ModuleApi does not offer. No other file reaches past it.

Each use says why the ModuleApi will not do. :func:`missing` looks whether they are all there, so
that a release of Synapse that changes one stops the start with a sentence, and no request with a
traceback. Tested with Synapse 1.154 and 1.163.

Synapse follows rules for its logging contexts; the rest of this package knows nothing of them. So
all of this package runs outside any context, and there are two crossings:
:meth:`Homeserver.enter` into Synapse, and :meth:`Homeserver.leave` out of it.
"""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit
from zlib import crc32

from synapse.api.constants import ApprovalNoticeMedium
from synapse.api.errors import LoginError, NotApprovedError, SynapseError
from synapse.logging.context import ContextRequest, PreserveLoggingContext, current_context
from synapse.module_api import ModuleApi, make_deferred_yieldable, run_in_background
from synapse.util import SYNAPSE_VERSION
from twisted.enterprise.adbapi import ConnectionLost
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred

from synapse_login_module.errors import AccountRefused, StoreUnavailable, UnknownToken

T = TypeVar("T")

OLDEST = 1, 154
"""Before this release, Synapse deleted refresh tokens before access tokens: those of a session that
was logged out it went on taking for as long as it remembered them (element-hq/synapse#19483)."""

_TABLES = {
    "access_tokens": (
        *("id", "user_id", "device_id", "token", "valid_until_ms", "last_validated"),
        *("refresh_token_id", "used"),
    ),
    "refresh_tokens": (
        *("id", "user_id", "device_id", "token", "next_token_id", "expiry_ts"),
        "ultimate_session_expiry_ts",
    ),
    "login_tokens": ("token", "user_id", "expiry_ts", "used_ts"),
}
_ONE_MILLISECOND = 1
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class FinalReject(LoginError, CancelledError):
    """Raised from a password callback: the login is refused, and no local password is tried.

    ModuleApi: a callback can only say yes or pass. Synapse swallows whatever else one raises, but
    for ``CancelledError``; and it answers a ``SynapseError`` as what it says, whatever else it is.
    """


class Interruption(SynapseError, CancelledError):
    """Raised from a password callback: this answer, and no attempt is counted. See FinalReject."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that is being served.

    :param context: Synapse's logging context of it.
    :param address: where it comes from; ``-`` where that is not known.
    :param user_agent: what the client says that it is.
    :param path: what it asks for.
    """

    context: Any
    address: str = "-"
    user_agent: str | None = None
    path: str = ""

    @property
    def is_login(self) -> bool:
        """Whether it is a login, and not somebody who is logged in and gives a password again."""
        return self.path.rstrip("/").endswith("/login")


_visit: ContextVar[Visit | None] = ContextVar("synapse_login_visit", default=None)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The token lifetimes of homeserver.yaml, in milliseconds; ``None`` is for ever."""

    refreshable_access_token: int | None
    nonrefreshable_access_token: int | None
    refresh_token: int | None
    session: int | None


@dataclass(frozen=True, slots=True)
class AccessRow:
    """A row of ``access_tokens``."""

    row_id: int
    token: str
    expires_at: int | None
    used: bool
    issued_at: int


@dataclass(frozen=True, slots=True)
class Link:
    """A row of ``refresh_tokens`` with its access token; one generation of a session."""

    row_id: int
    token: str
    expires_at: int | None
    access: AccessRow | None


@dataclass(frozen=True, slots=True)
class Chain:
    """A presented refresh token, and what came after it.

    :param next: the generation after the presented one, if there is one.
    :param older: whether there are more after that.
    :param ends_at: when the session ends, whatever happens.
    """

    user_id: str
    device_id: str
    presented: Link
    next: Link | None
    older: bool
    ends_at: int | None


def is_too_old(release: str = SYNAPSE_VERSION) -> bool:
    """Whether a release of Synapse, as ``1.154.0``, is older than :data:`OLDEST`.

    ModuleApi: does not tell the release.
    """
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST


def missing(api: ModuleApi) -> str | None:
    """What this file needs of Synapse and does not find, or ``None``."""
    try:
        needed = _needed(api)
    except AttributeError as error:
        return str(error)
    for name, owner, attribute, parameters in needed:
        if not hasattr(owner, attribute):
            return f"{name}.{attribute}"
        found = getattr(owner, attribute)
        known = inspect.signature(getattr(found, "orig", found)).parameters if parameters else {}
        for parameter in parameters:
            if parameter not in known:
                return f"the parameter {parameter} of {name}.{attribute}"
    return None


def _needed(api: ModuleApi) -> list[tuple[str, object, str, tuple[str, ...]]]:
    """Names, whose they are, and the parameters that they must take."""
    homeserver = api._hs
    config = homeserver.config
    store = homeserver.get_datastores().main
    auth = homeserver.get_auth_handler()
    registration = homeserver.get_registration_handler()
    blocking = homeserver.get_auth_blocking()
    providers = homeserver.get_password_auth_provider()
    checker = homeserver.get_module_api_callbacks().spam_checker
    needed: list[tuple[str, object, str, tuple[str, ...]]] = [
        ("RegistrationHandler", registration, "register_device", ("should_issue_refresh_token",)),
        ("AuthHandler", auth, "consume_login_token", ("login_token",)),
        ("AuthHandler", auth, "add_threepid", ("user_id", "medium", "address", "validated_at")),
        ("AuthHandler", auth, "is_user_approved", ("user_id",)),
        ("AuthBlocking", blocking, "check_auth_blocking", ("user_id",)),
        ("PasswordAuthProvider", providers, "auth_checker_callbacks", ()),
        ("PasswordAuthProvider", providers, "check_3pid_auth_callbacks", ()),
        ("spam_checker", checker, "check_login_for_spam", ("request_info",)),
        ("spam_checker", checker, "NOT_SPAM", ()),
        ("config.experimental", config.experimental, "msc3866", ()),
        ("DataStore", store, "get_user_by_access_token", ("token",)),
        ("DataStore", store, "_invalidate_cache_and_stream_bulk", ("txn", "cache_func")),
        ("DataStore", store, "get_users_by_id_case_insensitive", ("user_id",)),
        ("DataStore", store, "get_user_id_by_threepid", ("medium", "address")),
        ("DataStore", store, "get_external_ids_by_user", ("mxid",)),
        ("DataStore", store, "remove_user_external_id", ("auth_provider", "user_id")),
        ("DataStore.database_engine", store.database_engine, "module", ()),
        ("config.registration", config.registration, "refreshable_access_token_lifetime", ()),
        ("config.registration", config.registration, "nonrefreshable_access_token_lifetime", ()),
        ("config.registration", config.registration, "refresh_token_lifetime", ()),
        ("config.registration", config.registration, "session_lifetime", ()),
        ("config.auth", config.auth, "password_enabled_for_login", ()),
        ("config.auth", config.auth, "password_enabled_for_reauth", ()),
        ("config.auth", config.auth, "password_localdb_enabled", ()),
        ("config.auth", config.auth, "password_pepper", ()),
        ("config.key", config.key, "macaroon_secret_key", ()),
        ("config.redis", config.redis, "redis_enabled", ()),
        ("config.server", config.server, "hs_disabled", ()),
        ("config.server", config.server, "limit_usage_by_mau", ()),
        ("ContextRequest", ContextRequest, "ip_address", ()),
        ("ContextRequest", ContextRequest, "user_agent", ()),
        ("ContextRequest", ContextRequest, "url", ()),
    ]
    if api.worker_app is None:
        needed += [
            ("DataStore", store, "_access_tokens_id_gen", ()),
            ("DataStore", store, "_refresh_tokens_id_gen", ()),
        ]
    return needed


class Homeserver:
    """Synapse, as the store, the provider and the module need it.

    :param api: the module's ModuleApi.
    """

    def __init__(self, api: ModuleApi) -> None:
        self.api = api
        # ModuleApi: has no way to the handlers and the store below.
        self._hs = api._hs
        self._store = self._hs.get_datastores().main
        self.server_name: str = api.server_name
        self.is_main: bool = api.worker_app is None
        # Synapse's processes reach one another through Redis alone.
        self._alone = not self._hs.config.redis.redis_enabled

    # Configuration. ModuleApi: shows nothing of homeserver.yaml but the server's name.

    @property
    def lifetimes(self) -> Lifetimes:
        """The token lifetimes of homeserver.yaml."""
        config = self._hs.config.registration
        return Lifetimes(
            config.refreshable_access_token_lifetime,
            config.nonrefreshable_access_token_lifetime,
            config.refresh_token_lifetime,
            config.session_lifetime,
        )

    @property
    def passwords_enabled(self) -> bool:
        """``password_config.enabled``: whether Synapse's own ``/login`` takes passwords."""
        return bool(self._hs.config.auth.password_enabled_for_login)

    @property
    def local_passwords_count(self) -> bool:
        """Whether ``password_config`` lets Synapse's own passwords count for what is asked here."""
        config, visit = self._hs.config.auth, _visit.get()
        if visit is None or visit.is_login:
            enabled = config.password_enabled_for_login
        else:
            enabled = config.password_enabled_for_reauth
        return bool(enabled and config.password_localdb_enabled)

    @property
    def pepper(self) -> str:
        """``password_config.pepper``."""
        return str(self._hs.config.auth.password_pepper)

    @property
    def secret(self) -> bytes:
        """``macaroon_secret_key``, which Synapse keeps secret and always has."""
        return bytes(self._hs.config.key.macaroon_secret_key)

    # Crossings. ModuleApi: its two functions are for coroutines that follow Synapse's rules; to
    # put a context aside and take it up again, PreserveLoggingContext is needed.

    def enter(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> Deferred[T]:
        """From this package into Synapse, in the context of the request that is being served.

        :param function: a coroutine function that follows Synapse's rules.
        :return: a Deferred that does not. Cancelling it gives up waiting: what Synapse has begun,
            it finishes, since it expects no cancellation. Fails with ``StoreUnavailable`` for any
            error of the database's.
        """

        async def inside() -> T:
            try:
                return await function(*arguments)
            except (self._store.database_engine.module.Error, ConnectionLost) as error:
                raise StoreUnavailable(str(error)) from None

        visit = _visit.get()
        with PreserveLoggingContext(current_context() if visit is None else visit.context):
            entered: Deferred[T] = run_in_background(inside)
        waiting: Deferred[T] = Deferred()
        entered.chainDeferred(waiting)
        return waiting

    async def leave(self, function: Callable[..., Deferred[T]], *arguments: Any) -> T:
        """From Synapse into this package.

        :param function: returns a Deferred that follows no rules.
        """
        left = self.leave_for(self.visit(), lambda: maybeDeferred(function, *arguments))
        result: T = await make_deferred_yieldable(left)
        return result

    def leave_for(self, visit: Visit, function: Callable[[], T]) -> T:
        """Call something of this package for a request."""
        token = _visit.set(visit)
        try:
            with PreserveLoggingContext():
                return function()
        finally:
            _visit.reset(token)

    def visit(self) -> Visit:
        """The request that Synapse serves here. ModuleApi: tells a callback nothing of it."""
        context = current_context()
        request = context.request
        if request is None:
            return Visit(context)
        path = urlsplit(request.url).path
        return Visit(context, request.ip_address, request.user_agent, path)

    # Callbacks.

    def is_last(self, callback: object) -> bool:
        """Whether no other module is asked for a password after this callback.

        ModuleApi: does not say who registered what.
        """
        modules = self._hs.get_password_auth_provider()
        last = modules.auth_checker_callbacks["m.login.password"][-1]
        return callback in (last, modules.check_3pid_auth_callbacks[-1])

    # Accounts.

    async def local_password_hashes(self, user_id: str) -> dict[str, str]:
        """The password hashes of users so named, whatever the case, by user ID.

        ModuleApi: checks no passwords and shows no hashes; AuthHandler's check hashes in the
        reactor's own thread pool.
        """
        found: dict[str, str] = await self._store.get_users_by_id_case_insensitive(user_id)
        return {name: password_hash for name, password_hash in found.items() if password_hash}

    async def user_with_threepid(self, medium: str, address: str) -> str | None:
        """Who has an e-mail address or telephone number. ModuleApi: only the other way round."""
        found: str | None = await self._store.get_user_id_by_threepid(medium, address)
        return found

    async def external_ids(self, user_id: str) -> list[tuple[str, str]]:
        """Who vouched for a user: ``(auth_provider, external_id)``. ModuleApi: only writes them."""
        return list(await self._store.get_external_ids_by_user(user_id))

    async def forget_external_id(self, auth_provider: str, user_id: str) -> None:
        """Forget that somebody vouched for a user. ModuleApi: cannot."""
        for name, external_id in await self.external_ids(user_id):
            if name == auth_provider:
                await self._store.remove_user_external_id(name, external_id, user_id)

    async def require_open(self, user_id: str) -> None:
        """Refuse whom the homeserver has no room for, as Synapse does where it makes a token.

        ModuleApi: cannot be asked. Source: ``hs_disabled`` and ``limit_usage_by_mau``.
        """
        config = self._hs.config.server
        # Without either there is nothing to ask, and asking costs a transaction.
        if config.hs_disabled or config.limit_usage_by_mau:
            try:
                await self._hs.get_auth_blocking().check_auth_blocking(user_id)
            except SynapseError as error:
                raise _refused(error) from None

    async def add_email(self, user_id: str, address: str) -> None:
        """Bind a validated e-mail address. ModuleApi: only at registration."""
        now = self.api.get_current_time_msec()
        await self._hs.get_auth_handler().add_threepid(user_id, "email", address, now)

    # Tokens.

    async def register_device(
        self, user_id: str, device_id: str | None, display_name: str | None, refreshable: bool
    ) -> tuple[str, str, int | None, str | None]:
        """Make a device with tokens: its id, access token, expiry, refresh token.

        ModuleApi: its ``register_device`` never issues a refresh token.
        """
        await self._require_welcome(user_id, device_id, display_name)
        try:
            made: tuple[
                str, str, int | None, str | None
            ] = await self._hs.get_registration_handler().register_device(
                user_id, device_id, display_name, should_issue_refresh_token=refreshable
            )
        except SynapseError as error:
            raise _refused(error) from None
        return made

    async def _require_welcome(
        self, user_id: str, device_id: str | None, display_name: str | None
    ) -> None:
        """Pass the gates of Synapse's own ``/login``: approval, and modules against spam.

        ModuleApi: neither can be asked.
        """
        needs_approval = self._hs.config.experimental.msc3866.require_approval_for_new_accounts
        if needs_approval and not await self._hs.get_auth_handler().is_user_approved(user_id):
            raise _refused(
                NotApprovedError("This account needs to be approved", ApprovalNoticeMedium.NONE)
            )
        checker = self._hs.get_module_api_callbacks().spam_checker
        visit = _visit.get()
        info = [] if visit is None else [(visit.user_agent, visit.address)]
        verdict = await checker.check_login_for_spam(
            user_id, device_id, display_name, request_info=info
        )
        if verdict != checker.NOT_SPAM:
            code, more = verdict
            raise AccountRefused(403, code, "Login was blocked by the server", more)

    async def consume_login_token(self, token: str, user_id: str) -> None:
        """Use up a login token of a user. ModuleApi: only makes them."""
        try:
            used = await self._hs.get_auth_handler().consume_login_token(token)
        except SynapseError:
            raise UnknownToken from None
        if used.user_id != user_id:
            raise UnknownToken

    def new_ids(self) -> tuple[int, int, int]:
        """Two unused ids of ``refresh_tokens`` and one of ``access_tokens``.

        ModuleApi: knows nothing of them. They are counted in the main process alone.
        """
        refresh, access = self._store._refresh_tokens_id_gen, self._store._access_tokens_id_gen
        return refresh.get_next(), refresh.get_next(), access.get_next()

    async def transaction(self, name: str, work: Callable[[TokenRows], T]) -> T:
        """Do some work in one transaction; it may be done more than once.

        ModuleApi: ``run_db_interaction`` is public, the tables and the cache are not.
        """

        def interaction(transaction: Any) -> T:
            return work(TokenRows(transaction, self._store, self._alone))

        return await self.api.run_db_interaction(name, interaction)


class TokenRows:
    """Synapse's token tables, inside one transaction.

    ModuleApi: has no rotation, and Synapse's own is made of four transactions that leave the old
    access token alive.

    :param alone: whether this is Synapse's only process.
    """

    def __init__(self, transaction: Any, store: Any, alone: bool) -> None:
        self._transaction = transaction
        self._store = store
        self._alone = alone

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query."""
        self._transaction.execute(sql, values)
        return list(self._transaction.fetchall())

    def write(self, sql: str, *values: object) -> int:
        """Run a statement; say how many rows it touched."""
        self._transaction.execute(sql, values)
        return int(self._transaction.rowcount)

    def missing_column(self) -> str | None:
        """A column that is needed here and is not in the database, or ``None``."""
        for table, columns in _TABLES.items():
            self._transaction.execute(f"SELECT * FROM {table} LIMIT 0")
            there = {column[0] for column in self._transaction.description}
            for column in columns:
                if column not in there:
                    return f"the column {column} of {table}"
        return None

    def chain(self, refresh_token: str) -> Chain | None:
        """Find a refresh token and its generation, and the one after it."""
        rows = self.fetch(
            "SELECT r.user_id, r.device_id, r.ultimate_session_expiry_ts, n.next_token_id,"
            " r.id, r.token, r.expiry_ts,"
            " a.id, a.token, a.valid_until_ms, a.used, a.last_validated,"
            " n.id, n.token, n.expiry_ts,"
            " b.id, b.token, b.valid_until_ms, b.used, b.last_validated"
            " FROM refresh_tokens AS r"
            " LEFT JOIN access_tokens AS a ON a.refresh_token_id = r.id"
            " LEFT JOIN refresh_tokens AS n ON n.id = r.next_token_id"
            " LEFT JOIN access_tokens AS b ON b.refresh_token_id = n.id"
            " WHERE r.token = ?",
            refresh_token,
        )
        if not rows:
            return None
        row = rows[0]
        return Chain(
            user_id=row[0],
            device_id=row[1],
            ends_at=row[2],
            older=row[3] is not None,
            presented=_link(row[4:12]),
            next=None if row[12] is None else _link(row[12:20]),
        )

    def login_token_owner(self, token: str, now: int) -> str | None:
        """The user of a login token that is neither used nor expired."""
        rows = self.fetch(
            "SELECT user_id FROM login_tokens"
            " WHERE token = ? AND used_ts IS NULL AND expiry_ts >= ?",
            token,
            now,
        )
        return str(rows[0][0]) if rows else None

    def owner(self, access_token: str) -> tuple[str, str] | None:
        """The user and the device of an access token, expired or not."""
        rows = self.fetch(
            "SELECT user_id, device_id FROM access_tokens WHERE token = ?", access_token
        )
        return None if not rows else (rows[0][0], rows[0][1])

    def rotate_strictly(
        self, chain: Chain, ids: tuple[int, int, int], pair: Link, now: int
    ) -> bool:
        """Put a new pair in the place of the presented one, which is dead at once.

        The row of the access token keeps its id and gets the new token, so that pushers and
        transaction ids stay with it; it counts as used, so that Synapse's own ``/refresh`` refuses
        the old refresh token too. The old refresh token moves to a new id, out of the way of a
        ``/refresh`` of Synapse that is under way; and the old access token to an expired row, since
        for a row that is gone Synapse would not say ``soft_logout``.

        :param ids: fresh ids: of the new refresh row, of the old one, of the old access row.
        :return: ``False`` when another refresh was faster, or the access token is gone.
        """
        refresh_id, old_refresh_id, old_access_id = ids
        old, access = chain.presented, chain.presented.access
        assert pair.access is not None
        if access is None:
            return False
        self._insert_refresh(refresh_id, chain, pair)
        if not self.write(
            "UPDATE access_tokens SET token = ?, valid_until_ms = ?, last_validated = ?,"
            " refresh_token_id = ?, used = ? WHERE id = ? AND token = ?",
            pair.access.token,
            pair.access.expires_at,
            now,
            refresh_id,
            True,
            access.row_id,
            access.token,
        ):
            return False
        dead = [access.token, *self._drop_predecessor(old.row_id)]
        if not self.write(
            "UPDATE refresh_tokens SET id = ?, next_token_id = ?"
            " WHERE id = ? AND token = ? AND next_token_id IS NULL",
            old_refresh_id,
            refresh_id,
            old.row_id,
            old.token,
        ):
            return False
        self._insert_access(
            old_access_id, chain, access.token, now - _ONE_MILLISECOND, now, old_refresh_id, True
        )
        self._forget(dead)
        return True

    def rotate_leniently(
        self, chain: Chain, ids: tuple[int, int, int], pair: Link, now: int
    ) -> bool:
        """Put a new pair behind the presented one, which lives on until the new one is used.

        :return: ``False`` when another refresh was faster.
        """
        refresh_id, _, access_id = ids
        old = chain.presented
        assert pair.access is not None
        self._insert_refresh(refresh_id, chain, pair)
        dead = self._drop_predecessor(old.row_id)
        if not self.write(
            "UPDATE refresh_tokens SET next_token_id = ?"
            " WHERE id = ? AND token = ? AND next_token_id IS NULL",
            refresh_id,
            old.row_id,
            old.token,
        ):
            return False
        access = pair.access
        self._insert_access(
            access_id, chain, access.token, access.expires_at, now, refresh_id, False
        )
        self._forget(dead)
        return True

    def hand_out_again(self, chain: Chain, expires_at: int | None, strict: bool, now: int) -> None:
        """Let the pair after the presented one begin anew; where strict, the presented one ends."""
        assert chain.next is not None
        assert chain.next.access is not None
        changed = [chain.next.access.token]
        self.write(
            "UPDATE access_tokens SET valid_until_ms = ?, last_validated = ?, used = ?"
            " WHERE id = ?",
            expires_at,
            now,
            strict,
            chain.next.access.row_id,
        )
        if strict and chain.presented.access is not None:
            self.write(
                "UPDATE access_tokens SET valid_until_ms = ? WHERE id = ?",
                now - _ONE_MILLISECOND,
                chain.presented.access.row_id,
            )
            changed.append(chain.presented.access.token)
        self._forget(changed)

    def set_expiry(self, access_token: str, expires_at: int | None) -> None:
        """Change when an access token ends that nobody holds yet."""
        self.write(
            "UPDATE access_tokens SET valid_until_ms = ? WHERE token = ?", expires_at, access_token
        )

    def end(self, user_id: str, device_id: str | None, now: int) -> int:
        """End the refreshable sessions of a device, or of all; say how many access tokens ended.

        The access tokens expire, rather than go, so that clients are told ``soft_logout`` and keep
        their encryption keys. The device stays.
        """
        where = "user_id = ? AND refresh_token_id IS NOT NULL"
        values: tuple[object, ...] = (user_id,)
        if device_id is not None:
            where, values = f"{where} AND device_id = ?", (user_id, device_id)
        rows = self.fetch(
            f"SELECT token, refresh_token_id FROM access_tokens WHERE {where}", *values
        )
        self.write(
            f"UPDATE access_tokens SET valid_until_ms = ?, refresh_token_id = NULL WHERE {where}",
            now - _ONE_MILLISECOND,
            *values,
        )
        for _, refresh_id in rows:
            self.write("DELETE FROM refresh_tokens WHERE id = ?", refresh_id)
        self._forget(token for token, _ in rows)
        return len(rows)

    def end_earlier(self, user_id: str, device_id: str, access_token: str) -> None:
        """End whatever sessions a device had before the one of this access token.

        Ids grow, so that of several logins at once the last one is left.
        """
        rows = self.fetch(
            "SELECT id, token, refresh_token_id FROM access_tokens"
            " WHERE user_id = ? AND device_id = ?"
            " AND id < (SELECT id FROM access_tokens WHERE token = ?)",
            user_id,
            device_id,
            access_token,
        )
        for row_id, _, refresh_id in rows:
            self.write("DELETE FROM access_tokens WHERE id = ?", row_id)
            if refresh_id is not None:
                self.write("DELETE FROM refresh_tokens WHERE id = ?", refresh_id)
        self._forget(token for _, token, _ in rows)

    def is_chained(self, user_id: str, device_id: str) -> bool:
        """Whether a device has a session that can be refreshed."""
        return bool(
            self.fetch(
                "SELECT 1 FROM access_tokens WHERE user_id = ? AND device_id = ?"
                " AND refresh_token_id IS NOT NULL LIMIT 1",
                user_id,
                device_id,
            )
        )

    def devices(self, user_id: str | None) -> list[tuple[str, str, int]]:
        """The devices that have access tokens: user, device, and when one was last issued."""
        where, values = ("", ()) if user_id is None else ("AND user_id = ?", (user_id,))
        return [
            (user, device, issued or 0)
            for user, device, issued in self.fetch(
                "SELECT user_id, device_id, MAX(last_validated) FROM access_tokens"
                f" WHERE device_id IS NOT NULL {where} GROUP BY user_id, device_id"
                " ORDER BY user_id, device_id",
                *values,
            )
        ]

    def _insert_refresh(self, row_id: int, chain: Chain, pair: Link) -> None:
        self.write(
            "INSERT INTO refresh_tokens (id, user_id, device_id, token, next_token_id, expiry_ts,"
            " ultimate_session_expiry_ts) VALUES (?, ?, ?, ?, NULL, ?, ?)",
            row_id,
            chain.user_id,
            chain.device_id,
            pair.token,
            pair.expires_at,
            chain.ends_at,
        )

    def _insert_access(
        self,
        row_id: int,
        chain: Chain,
        token: str,
        expires_at: int | None,
        now: int,
        refresh_id: int,
        used: bool,
    ) -> None:
        self.write(
            "INSERT INTO access_tokens (id, user_id, device_id, token, valid_until_ms,"
            " last_validated, refresh_token_id, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row_id,
            chain.user_id,
            chain.device_id,
            token,
            expires_at,
            now,
            refresh_id,
            used,
        )

    def _drop_predecessor(self, refresh_id: int) -> list[str]:
        """Delete the generation before one, with its access token, which is returned."""
        rows = self.fetch(
            "SELECT r.id, a.token FROM refresh_tokens AS r"
            " LEFT JOIN access_tokens AS a ON a.refresh_token_id = r.id WHERE r.next_token_id = ?",
            refresh_id,
        )
        if rows:
            self.write("DELETE FROM refresh_tokens WHERE next_token_id = ?", refresh_id)
        return [token for _, token in rows if token is not None]

    def _forget(self, access_tokens: Iterable[str]) -> None:
        """Have every process forget what it knows of access tokens, once this is committed.

        To tell others wakes much of Synapse up, whether there are any or not.
        """
        keys = [(token,) for token in access_tokens]
        if self._alone:
            for key in keys:
                self._transaction.call_after(self._store.get_user_by_access_token.invalidate, key)
        elif keys:
            self._store._invalidate_cache_and_stream_bulk(
                self._transaction, self._store.get_user_by_access_token, keys
            )


def _refused(error: SynapseError) -> AccountRefused:
    """What Synapse would answer, as an error of ours."""
    said = error.error_dict(None)
    return AccountRefused(error.code, said.pop("errcode"), said.pop("error"), said)


def _link(row: tuple[Any, ...]) -> Link:
    row_id, token, expires_at, access_id, access_token, access_expires, used, issued = row
    access = None
    if access_id is not None:
        access = AccessRow(access_id, access_token, access_expires, bool(used), issued or 0)
    return Link(row_id, token, expires_at, access)


# The form of Synapse's tokens, which its own /refresh checks: prefix, local part, random part, CRC.


def access_token(user_id: str, random: bytes) -> str:
    """An access token as Synapse makes them."""
    return _token("syt", user_id, random)


def refresh_token(user_id: str, random: bytes) -> str:
    """A refresh token as Synapse makes them."""
    return _token("syr", user_id, random)


def random_part(token: str, size: int) -> tuple[str, bytes] | None:
    """The local part and the random part, ``size`` bytes, of a token, if it has such."""
    parts = token.split("_")
    if len(parts) != 4 or not token.isascii() or len(token) > 1024:
        return None
    number = 0
    for letter in parts[2]:
        digit = _BASE62.find(letter)
        if digit < 0:
            return None
        number = number * 62 + digit
    try:
        localpart = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode("utf-8")
        return localpart, number.to_bytes(size, "big")
    except (ValueError, OverflowError):
        return None


def _token(kind: str, user_id: str, random: bytes) -> str:
    localpart = user_id[1:].partition(":")[0].encode("utf-8")
    name = base64.b64encode(localpart).decode("ascii").rstrip("=")
    body = f"{kind}_{name}_{_base62(int.from_bytes(random, 'big'), 1)}"
    return f"{body}_{_base62(crc32(body.encode('ascii')), 6)}"


def _base62(number: int, width: int) -> str:
    letters = ""
    while number:
        number, digit = divmod(number, 62)
        letters = _BASE62[digit] + letters
    return letters.rjust(width, "0")
