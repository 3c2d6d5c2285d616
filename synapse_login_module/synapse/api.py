"""Synapse beyond its public ModuleApi: configuration, accounts, devices and logging contexts.

Each use says why the ModuleApi does not suffice, in a sentence that begins with "ModuleApi:". So do
the modules beside this one that use :attr:`Homeserver.hs`. At the start,
:mod:`~synapse_login_module.synapse.compat` checks that everything used exists.

Synapse's coroutines follow its rules for logging contexts; the rest of this package does not. So
all of this package runs outside any context, and there are two crossings:
:meth:`Homeserver.call_synapse` into Synapse, and :meth:`Homeserver.call_module` out of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from synapse.api.constants import ApprovalNoticeMedium
from synapse.api.errors import NotApprovedError, SynapseError
from synapse.logging.context import PreserveLoggingContext, current_context
from synapse.module_api import ModuleApi, make_deferred_yieldable, run_in_background
from twisted.enterprise.adbapi import ConnectionLost
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from synapse_login_module.errors import AccountRefused, StoreUnavailable, UnknownToken
from synapse_login_module.model import AccountStatus
from synapse_login_module.synapse.request_context import LoginNotes, RequestContext, serving
from synapse_login_module.synapse.tables import TokenRows

T = TypeVar("T")

_START_POLL = 0.05
_LONGEST_START = 100
"""How often a transaction looks whether the tables have been made before it goes on without."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The token lifetimes of homeserver.yaml, in milliseconds; ``None`` is unlimited."""

    refreshable_access_token: int | None
    nonrefreshable_access_token: int | None
    refresh_token: int | None
    session: int | None


class Homeserver:
    """The part of Synapse that this package uses.

    :param api: the module's ModuleApi.
    :ivar hs: Synapse's ``HomeServer``, for the modules beside this one.
    :ivar has_tried_tables: whether making the module's tables has been tried, with success or not.
    """

    def __init__(self, api: ModuleApi) -> None:
        self.api = api
        # ModuleApi: does not give access to the handlers and the store below.
        self.hs = api._hs
        self._store = self.hs.get_datastores().main
        self.server_name: str = api.server_name
        self.is_main: bool = api.worker_app is None
        # Synapse's processes reach one another only through Redis.
        self._alone = not self.hs.config.redis.redis_enabled
        self.has_tried_tables = False

    def now(self) -> int:
        """Return the time of Synapse's clock, in milliseconds since the epoch."""
        return int(self.api.get_current_time_msec())

    # Configuration. ModuleApi: shows none of these values of homeserver.yaml.

    @property
    def lifetimes(self) -> Lifetimes:
        """The token lifetimes of homeserver.yaml."""
        config = self.hs.config.registration
        return Lifetimes(
            config.refreshable_access_token_lifetime,
            config.nonrefreshable_access_token_lifetime,
            config.refresh_token_lifetime,
            config.session_lifetime,
        )

    @property
    def passwords_enabled(self) -> bool:
        """``password_config.enabled``: whether Synapse's own ``/login`` accepts passwords."""
        return bool(self.hs.config.auth.password_enabled_for_login)

    @property
    def local_passwords_count(self) -> bool:
        """Whether ``password_config`` lets local passwords count for the request being served."""
        config, context = self.hs.config.auth, serving.get()
        if context is None or context.is_login:
            enabled = config.password_enabled_for_login
        else:
            enabled = config.password_enabled_for_reauth
        return bool(enabled and config.password_localdb_enabled)

    @property
    def pepper(self) -> str:
        """``password_config.pepper``."""
        return str(self.hs.config.auth.password_pepper)

    @property
    def secret(self) -> bytes:
        """``macaroon_secret_key``: a secret that every Synapse has."""
        return bytes(self.hs.config.key.macaroon_secret_key)

    @property
    def notes(self) -> LoginNotes:
        """The notes on the login being served; new ones where no request is."""
        context = serving.get()
        return LoginNotes() if context is None else context.notes

    # Crossings. ModuleApi: its two functions are for coroutines that follow Synapse's rules. To
    # leave a context and return to it, PreserveLoggingContext is needed.

    def call_synapse(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> Deferred[T]:
        """Call Synapse from this package, in the logging context of the request being served.

        :param function: a coroutine function that follows Synapse's rules.
        :return: a Deferred that does not follow them. Cancelling it only stops the waiting: Synapse
            finishes what it has begun, since it does not expect cancellation. Fails with
            ``StoreUnavailable`` for any database error.
        """

        async def inside() -> T:
            try:
                return await function(*arguments)
            except (self._store.database_engine.module.Error, ConnectionLost) as error:
                raise StoreUnavailable(str(error)) from None

        with self.logging_context():
            entered: Deferred[T] = run_in_background(inside)
        waiting: Deferred[T] = Deferred()
        entered.chainDeferred(waiting)
        return waiting

    def call_in_background(
        self, function: Callable[..., Awaitable[T]], *arguments: Any
    ) -> Deferred[T]:
        """Call Synapse from this package, in a background process of its own: the work belongs to
        no request, even when it begins within one.

        :param function: a coroutine function that follows Synapse's rules.
        :return: a Deferred that does not follow them. Fails as that of :meth:`call_synapse` does.
        """
        outcome: list[T | Failure] = []

        async def inside() -> None:
            try:
                outcome.append(await function(*arguments))
            except (self._store.database_engine.module.Error, ConnectionLost) as error:
                outcome.append(Failure(StoreUnavailable(str(error))))
            except Exception:  # Synapse would log it and drop it
                outcome.append(Failure())

        done: Deferred[T] = Deferred()
        with PreserveLoggingContext():
            running = self.api.run_as_background_process("synapse_login_background", inside)
            running.addCallback(lambda _: done.callback(outcome[0]))
        return done

    async def call_module(self, function: Callable[..., Deferred[T]], *arguments: Any) -> T:
        """Call this package from Synapse.

        :param function: returns a Deferred, which need not follow Synapse's rules.
        """
        left = self.call_module_in(
            self.request_context(), lambda: maybeDeferred(function, *arguments)
        )
        result: T = await make_deferred_yieldable(left)
        return result

    def call_module_in(self, context: RequestContext, function: Callable[[], T]) -> T:
        """Call a function of this package for a request, outside Synapse's logging contexts."""
        token = serving.set(context)
        try:
            with PreserveLoggingContext():
                return function()
        finally:
            serving.reset(token)

    @staticmethod
    def logging_context() -> AbstractContextManager[None]:
        """Return a context manager that enters the logging context of the request being served."""
        context = serving.get()
        return PreserveLoggingContext(current_context() if context is None else context.context)

    def request_context(self) -> RequestContext:
        """Return the request that Synapse is serving. ModuleApi: gives callbacks nothing of it."""
        context = current_context()
        request = context.request
        if request is None:
            return RequestContext(context)
        path = urlsplit(request.url).path
        return RequestContext(context, request.ip_address, request.user_agent, path)

    @property
    def is_login(self) -> bool:
        """Whether a login is being served. Only a login links and registers accounts."""
        context = serving.get()
        return context is not None and context.is_login

    @property
    def registration_is_open(self) -> bool:
        """``enable_registration``: whether anyone may register an account."""
        return bool(self.hs.config.registration.enable_registration)

    @property
    def default_user_type(self) -> str | None:
        """The ``user_type`` that every new account gets."""
        found: str | None = self.hs.config.user_types.default_user_type
        return found

    @staticmethod
    def request_key() -> int:
        """Return a key that differs for every request that Synapse is serving."""
        return id(current_context().request)

    # Callbacks. ModuleApi: does not show which module registered a callback, and offers no order
    # but that of registration.

    def is_last_checker(self, checker: object, guard: Any) -> bool:
        """Move the guard behind all other password callbacks, and say whether ``checker`` is the
        last one before it.
        """
        checkers = self.hs.get_password_auth_provider().auth_checker_callbacks["m.login.password"]
        if checkers[-1] != guard:
            # Other modules may register after this one. Synapse may be iterating over the list now;
            # the callbacks that it has called stand before the guard and keep their positions.
            checkers.remove(guard)
            checkers.append(guard)
        return bool(checkers[-2] == checker)

    def is_last_address_checker(self, checker: object) -> bool:
        """Say whether ``checker`` is the last callback for passwords with an address."""
        modules = self.hs.get_password_auth_provider()
        return bool(modules.check_3pid_auth_callbacks[-1] == checker)

    # Accounts.

    async def account_status(self, user_id: str) -> AccountStatus | None:
        """Return the status of an account at the homeserver; ``None`` when there is no account."""
        info = await self.api.get_userinfo_by_id(user_id)
        if info is None:
            return None
        if info.is_deactivated:
            return AccountStatus.DEACTIVATED
        return AccountStatus.LOCKED if info.locked else AccountStatus.ACTIVE

    def is_reserved(self, user_id: str) -> bool:
        """Say whether a user ID is in an exclusive namespace of an application service, or is that
        of server notices.

        ModuleApi: shows this only when it fails to register the account.
        """
        try:
            self.hs.get_registration_handler().check_user_id_not_appservice_exclusive(user_id)
        except SynapseError:
            return True
        return False

    async def is_administrator(self, user_id: str) -> bool:
        """Say whether an account is a server administrator. Synapse caches the answer."""
        info = await self.api.get_userinfo_by_id(user_id)
        return info is not None and info.is_admin

    async def set_administrator(self, user_id: str, is_admin: bool) -> None:
        """Make an account a server administrator, or take that away."""
        await self.api.set_user_admin(user_id, is_admin)

    async def require_open(self, user_id: str) -> None:
        """Refuse a user whom ``hs_disabled`` or ``limit_usage_by_mau`` keep out. Synapse checks the
        same before it makes a token.

        ModuleApi: has no such check.
        """
        config = self.hs.config.server
        # The check costs a transaction, also where neither is set.
        if config.hs_disabled or config.limit_usage_by_mau:
            try:
                await self.hs.get_auth_blocking().check_auth_blocking(user_id)
            except SynapseError as error:
                raise refused(error) from None

    async def user_with_threepid(self, medium: str, address: str) -> str | None:
        """Find the user that an address is bound to. ModuleApi: has only the reverse look-up."""
        found: str | None = await self._store.get_user_id_by_threepid(medium, address)
        return found

    async def tell_bound(self, user_id: str, medium: str, address: str) -> None:
        """Call other modules' callbacks for a new address. ModuleApi: only registers callbacks."""
        rules = self.hs.get_module_api_callbacks().third_party_event_rules
        await rules.on_add_user_third_party_identifier(user_id, medium, address)
        await rules.on_threepid_bind(user_id, medium, address)

    # Tokens.

    async def register_device(
        self, user_id: str, device_id: str | None, display_name: str | None, refreshable: bool
    ) -> tuple[str, str, int | None, str | None]:
        """Make a device with tokens.

        ModuleApi: its ``register_device`` never issues a refresh token.

        :return: the device's id; the access token; when that expires, in milliseconds since the
            epoch, or ``None`` for never; the refresh token, or ``None`` unless ``refreshable``.
        """
        await self._require_welcome(user_id, device_id, display_name)
        try:
            made: tuple[
                str, str, int | None, str | None
            ] = await self.hs.get_registration_handler().register_device(
                user_id,
                device_id,
                display_name,
                should_issue_refresh_token=refreshable,
                auth_provider_id=self.notes.auth_provider_id,
                auth_provider_session_id=self.notes.auth_provider_session_id,
            )
        except SynapseError as error:
            raise refused(error) from None
        return made

    async def _require_welcome(
        self, user_id: str, device_id: str | None, display_name: str | None
    ) -> None:
        """Apply two checks of Synapse's own ``/login``: approval, and spam-checker modules.

        ModuleApi: has neither.
        """
        needs_approval = self.hs.config.experimental.msc3866.require_approval_for_new_accounts
        if needs_approval and not await self.hs.get_auth_handler().is_user_approved(user_id):
            raise refused(
                NotApprovedError("This account needs to be approved", ApprovalNoticeMedium.NONE)
            )
        checker = self.hs.get_module_api_callbacks().spam_checker
        context = serving.get()
        info = [] if context is None else [(context.user_agent, context.address)]
        verdict = await checker.check_login_for_spam(
            user_id,
            device_id,
            display_name,
            request_info=info,
            auth_provider_id=self.notes.auth_provider_id,
        )
        if verdict != checker.NOT_SPAM:
            code, more = verdict
            raise AccountRefused(403, code, "Login was blocked by the server", more)

    async def consume_login_token(self, token: str, user_id: str) -> None:
        """Use up a user's login token, and note where it came from. ModuleApi: only makes them."""
        handler: Any = self.hs.get_auth_handler()
        notes = self.notes
        try:
            used = await handler.consume_login_token(token)
        except SynapseError:
            raise UnknownToken from None
        if used.user_id != user_id:
            raise UnknownToken
        notes.auth_provider_id = used.auth_provider_id
        notes.auth_provider_session_id = used.auth_provider_session_id
        notes.on_login = handler._sso_login_callback

    def new_ids(self) -> tuple[int, int, int]:
        """Return two unused ids of ``refresh_tokens`` and one of ``access_tokens``.

        ModuleApi: does not make them. Only the main process does.
        """
        refresh, access = self._store._refresh_tokens_id_gen, self._store._access_tokens_id_gen
        return refresh.get_next(), refresh.get_next(), access.get_next()

    async def transaction(
        self, name: str, work: Callable[[TokenRows], T], makes_tables: bool = False
    ) -> T:
        """Do some work in one transaction. Synapse may call ``work`` more than once.

        While Synapse starts, transactions wait a few seconds until making the tables has been
        tried.

        ModuleApi: ``run_db_interaction`` is public; the tables and the caches are not.

        :param name: the transaction's name in Synapse's log and metrics.
        :param makes_tables: whether this is the transaction that makes the tables.
        """
        for _ in range(0 if makes_tables else _LONGEST_START):
            if self.has_tried_tables:
                break
            await self.api.sleep(_START_POLL)

        def interaction(transaction: Any) -> T:
            return work(TokenRows(transaction, self._store, self._alone))

        return await self.api.run_db_interaction(name, interaction)


def refused(error: SynapseError) -> AccountRefused:
    """Return an error of Synapse's as one of this package, which is answered the same."""
    said = error.error_dict(None)
    return AccountRefused(error.code, said.pop("errcode"), said.pop("error"), said)
