"""Synapse beyond its public ModuleApi: configuration, accounts, devices and logging contexts.

Each use says why the ModuleApi will not do, here and in the modules beside it that take
:attr:`Homeserver.hs`; :mod:`~synapse_login_module.synapse.compat` looks whether they are all there.

Synapse follows rules for its logging contexts; the rest of this package knows nothing of them. So
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
"""How often it is looked whether the tables are there yet."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The token lifetimes of homeserver.yaml, in milliseconds; ``None`` is for ever."""

    refreshable_access_token: int | None
    nonrefreshable_access_token: int | None
    refresh_token: int | None
    session: int | None


class Homeserver:
    """Synapse, as the store, the provider and the module need it.

    :param api: the module's ModuleApi.
    :ivar hs: Synapse's HomeServer, for what stands in the place of one of its parts.
    :ivar has_tried_tables: whether it was tried to make the module's tables.
    """

    def __init__(self, api: ModuleApi) -> None:
        self.api = api
        # ModuleApi: has no way to the handlers and the store below.
        self.hs = api._hs
        self._store = self.hs.get_datastores().main
        self.server_name: str = api.server_name
        self.is_main: bool = api.worker_app is None
        # Synapse's processes reach one another through Redis alone.
        self._alone = not self.hs.config.redis.redis_enabled
        self.has_tried_tables = False

    def now(self) -> int:
        """The time by Synapse's clock, in milliseconds since the epoch."""
        return int(self.api.get_current_time_msec())

    # Configuration. ModuleApi: shows nothing of homeserver.yaml but the server's name.

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
        """``password_config.enabled``: whether Synapse's own ``/login`` takes passwords."""
        return bool(self.hs.config.auth.password_enabled_for_login)

    @property
    def local_passwords_count(self) -> bool:
        """Whether ``password_config`` lets Synapse's own passwords count for what is asked here."""
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
        """``macaroon_secret_key``, which Synapse keeps secret and always has."""
        return bytes(self.hs.config.key.macaroon_secret_key)

    @property
    def notes(self) -> LoginNotes:
        """The notes on the login that is being served."""
        context = serving.get()
        return LoginNotes() if context is None else context.notes

    # Crossings. ModuleApi: its two functions are for coroutines that follow Synapse's rules; to
    # put a context aside and take it up again, PreserveLoggingContext is needed.

    def call_synapse(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> Deferred[T]:
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

        with self.logging_context():
            entered: Deferred[T] = run_in_background(inside)
        waiting: Deferred[T] = Deferred()
        entered.chainDeferred(waiting)
        return waiting

    def call_in_background(
        self, function: Callable[..., Awaitable[T]], *arguments: Any
    ) -> Deferred[T]:
        """From this package into Synapse, for no request: what is done belongs to a background
        process of its own, also when it began within a request.

        :param function: a coroutine function that follows Synapse's rules.
        :return: a Deferred that does not. Fails as that of :meth:`call_synapse` does.
        """
        outcome: list[T | Failure] = []

        async def inside() -> None:
            try:
                outcome.append(await function(*arguments))
            except (self._store.database_engine.module.Error, ConnectionLost) as error:
                outcome.append(Failure(StoreUnavailable(str(error))))
            except Exception:  # Synapse would log it, and say nothing
                outcome.append(Failure())

        done: Deferred[T] = Deferred()
        with PreserveLoggingContext():
            running = self.api.run_as_background_process("synapse_login_background", inside)
            running.addCallback(lambda _: done.callback(outcome[0]))
        return done

    async def call_module(self, function: Callable[..., Deferred[T]], *arguments: Any) -> T:
        """From Synapse into this package.

        :param function: returns a Deferred that follows no rules.
        """
        left = self.call_module_in(
            self.request_context(), lambda: maybeDeferred(function, *arguments)
        )
        result: T = await make_deferred_yieldable(left)
        return result

    def call_module_in(self, context: RequestContext, function: Callable[[], T]) -> T:
        """Call something of this package for a request."""
        token = serving.set(context)
        try:
            with PreserveLoggingContext():
                return function()
        finally:
            serving.reset(token)

    @staticmethod
    def logging_context() -> AbstractContextManager[None]:
        """Be in the logging context of the request that is being served."""
        context = serving.get()
        return PreserveLoggingContext(current_context() if context is None else context.context)

    def request_context(self) -> RequestContext:
        """The request that Synapse serves here. ModuleApi: tells a callback nothing of it."""
        context = current_context()
        request = context.request
        if request is None:
            return RequestContext(context)
        path = urlsplit(request.url).path
        return RequestContext(context, request.ip_address, request.user_agent, path)

    @property
    def is_login(self) -> bool:
        """Whether what is being served is a login, which alone links and makes accounts."""
        context = serving.get()
        return context is not None and context.is_login

    @property
    def registration_is_open(self) -> bool:
        """``enable_registration``: whether anybody may have an account."""
        return bool(self.hs.config.registration.enable_registration)

    @property
    def default_user_type(self) -> str | None:
        """The ``user_type`` that every new account gets."""
        found: str | None = self.hs.config.user_types.default_user_type
        return found

    @staticmethod
    def request_key() -> int:
        """What tells the request that Synapse serves here from the others under way."""
        return id(current_context().request)

    # Callbacks. ModuleApi: does not say who registered what, and keeps the order of registering.

    def is_last_checker(self, checker: object, guard: Any) -> bool:
        """Whether no other module is asked for a password after this callback, but for the guard,
        which comes after all others from now on.
        """
        checkers = self.hs.get_password_auth_provider().auth_checker_callbacks["m.login.password"]
        if checkers[-1] != guard:
            # Modules register after this one, and Synapse may be walking along the list: whom it
            # has asked stands before the guard and stays where it is.
            checkers.remove(guard)
            checkers.append(guard)
        return bool(checkers[-2] == checker)

    def is_last_address_checker(self, checker: object) -> bool:
        """Whether no other module is asked about an address after this callback."""
        modules = self.hs.get_password_auth_provider()
        return bool(modules.check_3pid_auth_callbacks[-1] == checker)

    # Accounts.

    async def account_status(self, user_id: str) -> AccountStatus | None:
        """Whether the homeserver lets an account log in; ``None`` when it has none of the name."""
        info = await self.api.get_userinfo_by_id(user_id)
        if info is None:
            return None
        if info.is_deactivated:
            return AccountStatus.DEACTIVATED
        return AccountStatus.LOCKED if info.locked else AccountStatus.ACTIVE

    def is_reserved(self, user_id: str) -> bool:
        """Whether a user ID is an application service's alone, or that of server notices.

        ModuleApi: only makes accounts, or fails to.
        """
        try:
            self.hs.get_registration_handler().check_user_id_not_appservice_exclusive(user_id)
        except SynapseError:
            return True
        return False

    async def is_administrator(self, user_id: str) -> bool:
        """Whether an account is a server administrator's. Remembered by Synapse."""
        info = await self.api.get_userinfo_by_id(user_id)
        return info is not None and info.is_admin

    async def require_open(self, user_id: str) -> None:
        """Refuse whom the homeserver has no room for, as Synapse does where it makes a token.

        ModuleApi: cannot be asked. Source: ``hs_disabled`` and ``limit_usage_by_mau``.
        """
        config = self.hs.config.server
        # Without either there is nothing to ask, and asking costs a transaction.
        if config.hs_disabled or config.limit_usage_by_mau:
            try:
                await self.hs.get_auth_blocking().check_auth_blocking(user_id)
            except SynapseError as error:
                raise refused(error) from None

    async def user_with_threepid(self, medium: str, address: str) -> str | None:
        """Who has an e-mail address or telephone number. ModuleApi: only the other way round."""
        found: str | None = await self._store.get_user_id_by_threepid(medium, address)
        return found

    async def tell_bound(self, user_id: str, medium: str, address: str) -> None:
        """Tell other modules that a user has got an address. ModuleApi: only listens to that."""
        rules = self.hs.get_module_api_callbacks().third_party_event_rules
        await rules.on_add_user_third_party_identifier(user_id, medium, address)
        await rules.on_threepid_bind(user_id, medium, address)

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
        """Pass the gates of Synapse's own ``/login``: approval, and modules against spam.

        ModuleApi: neither can be asked.
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
        """Use up a login token of a user, and note whom it is from. ModuleApi: only makes them."""
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
        """Two unused ids of ``refresh_tokens`` and one of ``access_tokens``.

        ModuleApi: knows nothing of them. They are counted in the main process alone.
        """
        refresh, access = self._store._refresh_tokens_id_gen, self._store._access_tokens_id_gen
        return refresh.get_next(), refresh.get_next(), access.get_next()

    async def transaction(
        self, name: str, work: Callable[[TokenRows], T], makes_tables: bool = False
    ) -> T:
        """Do some work in one transaction; it may be done more than once.

        Requests that come as Synapse starts wait for a moment until the tables have been made, or
        could not be.

        ModuleApi: ``run_db_interaction`` is public, the tables and the cache are not.
        """
        for _ in range(0 if makes_tables else _LONGEST_START):
            if self.has_tried_tables:
                break
            await self.api.sleep(_START_POLL)

        def interaction(transaction: Any) -> T:
            return work(TokenRows(transaction, self._store, self._alone))

        return await self.api.run_db_interaction(name, interaction)


def refused(error: SynapseError) -> AccountRefused:
    """What Synapse would answer, as an error of ours."""
    said = error.error_dict(None)
    return AccountRefused(error.code, said.pop("errcode"), said.pop("error"), said)
