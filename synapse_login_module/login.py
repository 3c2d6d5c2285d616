"""The use cases: logging in, refreshing, logging out. No HTTP, no YAML, no SQL."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from twisted.internet.defer import CancelledError

from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    AccountNotLinked,
    AccountRefused,
    ExpiredToken,
    InvalidCredentials,
    LoginServiceError,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
    RefreshRefused,
    ReusedToken,
    SessionMismatch,
    StoreUnavailable,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import IAccounts, IHashing, ITokenStore
from synapse_login_module.limits.login import Attempt, LoginLimits
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
    require_active,
)
from synapse_login_module.passwords import call_hashing_for


@dataclass(frozen=True, slots=True)
class LoginService:
    """What the two endpoints, and those around them, do. The web runs these coroutines.

    :param accounts: who vouches for passwords.
    :param store: who keeps the tokens.
    :param hashing: where the decoy for a bad login token is hashed.
    :param limits: how many attempts are too many.
    :param audit: where outcomes are written down.
    :param always_refresh_token: whether a client that did not ask for a refresh token gets one.
    :param looks: looks at the accounts of sessions that are used.
    """

    accounts: IAccounts
    store: ITokenStore
    hashing: IHashing
    limits: LoginLimits
    audit: AuditLog
    always_refresh_token: bool
    looks: AccountLooks

    async def login(self, request: LoginRequest, client: Client) -> Login:
        """Log a user in.

        :return: the session that has begun. Fails with ``InvalidCredentials``, ``AccountLocked``,
            ``AccountDeactivated``, ``AccountNotLinked``, ``RateLimited``, ``Overloaded``,
            ``ProviderUnavailable`` or ``StoreUnavailable``.
        """
        subject = _subject(request.credentials)
        account: Account | None = None
        try:
            attempt = await self.limits.attempt(client, subject)
            try:
                account, tried_on = await self._authenticate(request.credentials, attempt)
                await self._require_active(account, tried_on, attempt)
                await attempt.succeeded(tried_on, account.user_id)
                login = await self._issue(account, request)
            except Exception as error:
                _count(attempt, error)
                raise
        except Exception as error:
            user = account.user_id if account else subject or ""
            error_from = account.provider if account else ""
            self.audit.failed("login", error, client, user=user, provider=error_from)
            raise
        self.looks.saw_active(login.user_id)
        self.audit.record(
            "login",
            "ok",
            request.credentials.kind,
            client,
            user=login.user_id,
            device=login.device_id,
            provider=account.provider,
        )
        return login

    async def _authenticate(
        self, credentials: PasswordLogin | TokenLogin, attempt: Attempt
    ) -> tuple[Account, str | None]:
        """The account that the credentials are good for, whatever its status, and whose failures
        the password counts among; a login token is not used up yet.
        """
        if isinstance(credentials, TokenLogin):
            try:
                owner = await self.store.login_token_owner(credentials.token)
            except UnknownToken:
                raise await self._bad_login_token() from None
            return Account(owner, status=await self.accounts.account_status(owner, None)), None
        account = await self._vouched(credentials, attempt)
        return account, account.named or account.user_id

    async def _vouched(self, credentials: PasswordLogin, attempt: Attempt) -> Account:
        """The account that a provider vouches for; a failure counts where the provider says."""
        try:
            account = await call_hashing_for(
                attempt.known_as,
                self.accounts.authenticate,
                credentials.identifier,
                credentials.password,
            )
        except InvalidCredentials as error:
            await attempt.charge_account(error.user_id)
            raise
        except AccountNotLinked as error:
            await attempt.succeeded(error.user_id)
            raise
        if account is None:
            await attempt.charge_account(None)
            raise InvalidCredentials("unknown_user")
        return account

    async def _require_active(
        self, account: Account, tried_on: str | None, attempt: Attempt
    ) -> None:
        """Refuse an account that is closed or locked, but as a wrong password if too many failed
        there: nobody is told that the password is right then.
        """
        try:
            require_active(account.status)
        except (AccountDeactivated, AccountLocked):
            await attempt.succeeded(tried_on)
            raise

    async def _issue(self, account: Account, request: LoginRequest) -> Login:
        """Begin the session, and with that use up the login token, if it was one that opened."""
        credentials = request.credentials
        try:
            return await self.store.issue(
                account.user_id,
                request.device_id,
                request.display_name,
                refreshable=request.wants_refresh_token,
                with_refresh_token=self.always_refresh_token or request.wants_refresh_token,
                login_token=credentials.token if isinstance(credentials, TokenLogin) else None,
                claim=account.claim,
            )
        except UnknownToken:
            raise await self._bad_login_token() from None

    async def _bad_login_token(self) -> InvalidCredentials:
        """What a bad login token is refused with, once a wrong password would have been."""
        await self.hashing.decoy("")
        return InvalidCredentials("login_token")

    async def refresh(
        self, refresh_token: str, access_token: str | None, strict: bool, client: Client
    ) -> TokenPair:
        """Exchange a refresh token for a new pair.

        :param strict: whether this is ``/tokenrefresh``.
        :return: the new pair. Fails with ``AccountLocked``, ``RateLimited`` or
            ``StoreUnavailable``; where strict, with ``RefreshRefused``, or ``UnknownToken`` if it
            is the access token that is unknown; elsewhere with ``UnknownToken`` or
            ``ExpiredToken``.
        """
        owner: SessionInfo | None = None
        try:
            owner = await self.store.session_for_refresh_token(refresh_token)
            await self.looks.look_again(owner)
            pair = await self.store.refresh(refresh_token, access_token, strict)
        except (UnknownToken, ExpiredToken, SessionMismatch) as error:
            try:
                # Who lost a race and is told to come back later would end the session that won.
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
        """Fail with ``UnknownToken`` when no session at all knows an access token."""
        with suppress(ExpiredToken):
            await self.store.session_for_access_token(access_token, allow_expired=True)

    async def logout(self, access_token: str, everywhere: bool, client: Client) -> None:
        """End the session of an access token, or all of its user.

        Fails with ``UnknownToken``, or with ``ExpiredToken`` if the token is superseded.
        """
        session = await self.store.session_for_access_token(access_token, allow_expired=True)
        if everywhere:
            await self.store.revoke_all(session.user_id)
        else:
            await self.store.revoke(session)
        self.audit.record(
            "logout",
            "ok",
            "everywhere" if everywhere else "session",
            client,
            user=session.user_id,
            device=session.device_id,
        )

    async def get_token(
        self, session: SessionInfo, password: PasswordLogin, client: Client
    ) -> LoginToken:
        """Make a login token for a user who is logged in and gives the password again.

        :return: the token. Fails as :meth:`login` does.
        """
        account: Account | None = None
        try:
            attempt = await self.limits.attempt(client, _subject(password))
            try:
                account, tried_on = await self._authenticate(password, attempt)
                await self._require_active(account, tried_on, attempt)
                if await self.accounts.user_id_of(account) != session.user_id:
                    await attempt.charge_account(tried_on)
                    raise InvalidCredentials("other_user")
                await attempt.succeeded(tried_on)
                token = await self.store.make_login_token(session.user_id)
            except Exception as error:
                _count(attempt, error)
                raise
        except Exception as error:
            self.audit.failed(
                "get_token",
                error,
                client,
                user=session.user_id,
                device=session.device_id,
                provider=account.provider if account else "",
            )
            raise
        self.audit.record(
            "get_token",
            "ok",
            "password",
            client,
            user=session.user_id,
            device=session.device_id,
            provider=account.provider,
        )
        return token

    async def whoami(self, access_token: str) -> SessionInfo:
        """Say whose an access token is.

        :return: the session, of an account that was active when it was last looked at. Fails with
            ``UnknownToken``, ``ExpiredToken`` or ``AccountLocked``.
        """
        session = await self.store.session_for_access_token(access_token, allow_expired=False)
        await self.looks.look_if_due(session)
        return session

    async def reachable(self) -> None:
        """Fail with ``StoreUnavailable`` unless the store can be reached."""
        await self.store.ping()

    def _failed_refresh(self, error: Exception, owner: SessionInfo | None, client: Client) -> None:
        user, device = (owner.user_id, owner.device_id) if owner else ("", "")
        self.audit.failed("refresh", error, client, user=user, device=device)


_MAX_SUBJECT = 512


def _subject(credentials: PasswordLogin | TokenLogin) -> str | None:
    """Whose failures a failure counts among."""
    if isinstance(credentials, TokenLogin):
        return None
    return str(credentials.identifier).lower()[:_MAX_SUBJECT]


def _count(attempt: Attempt, error: Exception) -> None:
    """Count nothing against a client whose attempt failed for a fault that was not its own."""
    if isinstance(error, (AccountDeactivated, AccountLocked, AccountNotLinked, AccountRefused)):
        attempt.forgive(entirely=False)
    client_fault = isinstance(error, LoginServiceError) and not isinstance(
        error, (Overloaded, ProviderUnavailable, StoreUnavailable)
    )
    if not client_fault and not isinstance(error, CancelledError):
        attempt.forgive(entirely=True)
