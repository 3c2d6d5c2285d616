"""The use cases: logging in, refreshing, logging out. No HTTP, no YAML, no SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred

from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import (
    AccountNotLinked,
    ExpiredToken,
    InvalidCredentials,
    RateLimited,
    RefreshRefused,
    ReusedToken,
    SessionMismatch,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import IAccounts, IHashing, ITokenStore
from synapse_login_module.limits.admitted import (
    AdmittedAttempt,
    AuditFields,
    counted_name,
    settle,
)
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.model import (
    Account,
    Client,
    Login,
    LoginRequest,
    LoginToken,
    PasswordLogin,
    SessionInfo,
    TokenLogin,
    TokenPair,
)
from synapse_login_module.passwords import call_hashing_for

Issue = Callable[[str, "str | None"], "Deferred[Login]"]
"""Begins a session of a user ID on a device, or on a new one (``None``)."""


class SessionHost(Protocol):
    """The homeserver that sessions are used at, as far as this service has to deal with it."""

    async def begin(
        self, account: Account, device_id: str | None, display_name: str | None, issue: Issue
    ) -> Login:
        """Prepare the account and the device at the homeserver, and begin the session.

        Raises ``AccountNotLinked``, ``AccountDeactivated``, ``AccountRefused``,
        ``HomeserverUnavailable`` or what ``issue`` fails with; then no session has begun.

        :param account: an account whose password was right.
        :param display_name: that of the device.
        """

    def ended(self) -> None:
        """Have the devices deleted of the sessions that have just ended for good."""

    async def refreshed(self, session: SessionInfo) -> None:
        """Have the homeserver forget the access tokens that a strict refresh has replaced."""


class NoHomeserver:
    """The :class:`SessionHost` of a service whose sessions no other server knows."""

    async def begin(
        self, account: Account, device_id: str | None, display_name: str | None, issue: Issue
    ) -> Login:
        """Begin the session."""
        return await issue(account.user_id, device_id)

    def ended(self) -> None:
        """Do nothing."""

    async def refreshed(self, session: SessionInfo) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class LoginService:
    """The use cases behind the HTTP handlers, as coroutines.

    :param accounts: all accounts that may log in.
    :param store: the token store.
    :param hashing: the pool that hashes a decoy when a login token is not valid.
    :param limits: the rate limits of logins and refreshes.
    :param audit: the audit log.
    :param always_refresh_token: whether to give a refresh token to clients that did not ask for
        one.
    :param looks: looks at the accounts of sessions that are used.
    :param host: the homeserver that the sessions are used at.
    """

    accounts: IAccounts
    store: ITokenStore
    hashing: IHashing
    limits: LoginLimits
    audit: AuditLog
    always_refresh_token: bool
    looks: AccountLooks
    host: SessionHost = field(default_factory=NoHomeserver)

    async def login(self, request: LoginRequest, client: Client) -> Login:
        """Log a user in.

        :return: the session that has begun. Raises ``InvalidCredentials``, ``AccountLocked``,
            ``AccountDeactivated``, ``AccountNotLinked``, ``RateLimited``, ``Overloaded``,
            ``ProviderUnavailable`` or ``StoreUnavailable``.
        """
        credentials = request.credentials
        async with self._attempt("login", credentials, client, AuditFields()) as attempt:
            account = await self._authenticate(credentials, attempt)
            attempt.fields.user = account.user_id
            await attempt.require_active(account)
            await attempt.counted.succeeded(attempt.charged, account.user_id)
            login = await self._issue(account, request)
            attempt.fields.user, attempt.fields.device = login.user_id, login.device_id
        self.looks.saw_active(login.user_id)
        return login

    async def get_token(
        self, session: SessionInfo, password: PasswordLogin, client: Client
    ) -> LoginToken:
        """Issue a login token to a user who is logged in and enters the password again.

        :return: the login token. Raises what :meth:`login` raises.
        """
        fields = AuditFields(session.user_id, session.device_id)
        async with self._attempt("get_token", password, client, fields) as attempt:
            account = await self._authenticate(password, attempt)
            await attempt.require_active(account)
            if await self.accounts.user_id_of(account) != session.user_id:
                await attempt.counted.charge_account(attempt.charged)
                raise InvalidCredentials("other_user")
            await attempt.counted.succeeded(attempt.charged)
            return await self.store.make_login_token(session.user_id)

    async def check_password(
        self,
        event: str,
        password: PasswordLogin,
        client: Client,
        user_of: Callable[[Account], Awaitable[str]],
    ) -> str:
        """Check a password for another purpose than a session.

        :param event: the event in the audit log.
        :param user_of: returns the user ID of the account, or raises.
        :return: that user ID. Raises what :meth:`login` raises, and what ``user_of`` does.
        """
        async with self._attempt(event, password, client, AuditFields()) as attempt:
            account = await self._authenticate(password, attempt)
            attempt.fields.user = account.user_id
            await attempt.require_active(account)
            await attempt.counted.succeeded(attempt.charged)
            attempt.fields.user = await user_of(account)
        return attempt.fields.user

    @asynccontextmanager
    async def _attempt(
        self,
        event: str,
        credentials: PasswordLogin | TokenLogin,
        client: Client,
        fields: AuditFields,
    ) -> AsyncIterator[AdmittedAttempt]:
        """Count an attempt against the rate limits, and write its outcome to the audit log.

        :param event: the event in the audit log.
        :param fields: what is known of the user so far; the body of the ``with`` adds to it.
        """
        subject = counted_name(credentials)
        fields.user = fields.user or subject or ""
        try:
            counted = await self.limits.attempt(client, subject)
            try:
                yield AdmittedAttempt(counted, fields)
            except Exception as error:
                settle(counted, error)
                raise
        except Exception as error:
            self.audit.failed(
                event,
                error,
                client,
                user=fields.user,
                device=fields.device,
                provider=fields.provider,
            )
            raise
        self.audit.record(
            event,
            "ok",
            credentials.kind,
            client,
            user=fields.user,
            device=fields.device,
            provider=fields.provider,
        )

    async def _authenticate(
        self, credentials: PasswordLogin | TokenLogin, attempt: AdmittedAttempt
    ) -> Account:
        """Check the credentials, and return their account, whatever its status.

        A login token is not consumed yet.
        """
        if isinstance(credentials, TokenLogin):
            try:
                owner = await self.store.login_token_owner(credentials.token)
            except UnknownToken:
                raise await self._bad_login_token() from None
            return Account(owner, status=await self.accounts.account_status(owner, None))
        try:
            account = await call_hashing_for(
                attempt.counted.known_as,
                self.accounts.authenticate,
                credentials.identifier,
                credentials.password,
            )
        except InvalidCredentials as error:
            await attempt.counted.charge_account(error.user_id)
            raise
        except AccountNotLinked as error:
            await attempt.counted.succeeded(error.user_id)
            raise
        if account is None:
            await attempt.counted.charge_account(None)
            raise InvalidCredentials("unknown_user")
        attempt.fields.provider = account.provider
        attempt.charged = account.named or account.user_id
        return account

    async def _issue(self, account: Account, request: LoginRequest) -> Login:
        """Begin the session, which consumes the login token if the login was made with one."""
        credentials = request.credentials

        def issue(user_id: str, device_id: str | None) -> Deferred[Login]:
            return self.store.issue(
                user_id,
                device_id,
                request.display_name,
                refreshable=request.wants_refresh_token,
                with_refresh_token=self.always_refresh_token or request.wants_refresh_token,
                login_token=credentials.token if isinstance(credentials, TokenLogin) else None,
                claim=account.claim,
            )

        try:
            return await self.host.begin(account, request.device_id, request.display_name, issue)
        except UnknownToken:
            raise await self._bad_login_token() from None

    async def _bad_login_token(self) -> InvalidCredentials:
        """Make the error for an invalid login token, after the time a wrong password takes."""
        await self.hashing.decoy("")
        return InvalidCredentials("login_token")

    async def refresh(
        self, refresh_token: str, access_token: str | None, strict: bool, client: Client
    ) -> TokenPair:
        """Exchange a refresh token for a new pair.

        :param access_token: if not ``None``, it has to be an access token of the same session.
        :param strict: whether this is ``/tokenrefresh``.
        :return: the new pair. Raises ``AccountLocked``, ``RateLimited`` or ``StoreUnavailable``. If
            strict, raises ``RefreshRefused`` for a bad refresh token and ``UnknownToken`` for an
            unknown access token. Otherwise raises ``UnknownToken``, ``ExpiredToken`` or
            ``SessionMismatch``.
        """
        owner: SessionInfo | None = None
        try:
            presented = await self.store.present(refresh_token)
            owner = presented.session
            await self.looks.look_again(owner)
            pair = await self.store.refresh(presented, access_token, strict)
        except (UnknownToken, ExpiredToken, SessionMismatch) as error:
            try:
                # The loser of a race must not get a 429: its later retry would count as reuse and
                # end the session.
                if type(error) is not SupersededToken:
                    self.limits.refresh_failed(client)
            except RateLimited as limited:
                self._failed_refresh(limited, owner, client)
                if isinstance(error, ReusedToken):
                    self._failed_refresh(error, owner, client)
                raise
            self._failed_refresh(error, owner, client)
            if not strict:
                raise
            if isinstance(error, SessionMismatch) and access_token is not None:
                await self._require_known(access_token)
            raise RefreshRefused from None
        except Exception as error:
            self._failed_refresh(error, owner, client)
            raise
        if strict:
            await self.host.refreshed(owner)
        self.audit.record(
            "refresh",
            "ok",
            "strict" if strict else "lenient",
            client,
            user=owner.user_id,
            device=owner.device_id,
        )
        return pair

    async def _require_known(self, access_token: str) -> None:
        """Raise ``UnknownToken`` unless an access token is of some session, of any age."""
        with suppress(ExpiredToken):
            await self.store.session_for_access_token(access_token, allow_expired=True)

    async def logout(self, access_token: str, everywhere: bool, client: Client) -> None:
        """End the session of an access token, or all sessions of its user.

        Raises ``UnknownToken``, or ``ExpiredToken`` if the token is superseded.

        :param everywhere: whether to end all sessions.
        """
        session = await self.store.session_for_access_token(access_token, allow_expired=True)
        if everywhere:
            await self.store.revoke_all(session.user_id)
        else:
            await self.store.revoke(session)
        self.host.ended()
        self.audit.record(
            "logout",
            "ok",
            "everywhere" if everywhere else "session",
            client,
            user=session.user_id,
            device=session.device_id,
        )

    async def whoami(self, access_token: str) -> SessionInfo:
        """Find the session of an access token, and look at its account if a look is due.

        :return: the session. Raises ``UnknownToken``, ``ExpiredToken`` or ``AccountLocked``.
        """
        session = await self.store.session_for_access_token(access_token, allow_expired=False)
        await self.looks.look_if_due(session)
        return session

    async def reachable(self) -> None:
        """Raise ``StoreUnavailable`` unless the store can be reached."""
        await self.store.ping()

    def _failed_refresh(self, error: Exception, owner: SessionInfo | None, client: Client) -> None:
        user, device = (owner.user_id, owner.device_id) if owner else ("", "")
        self.audit.failed("refresh", error, client, user=user, device=device)
