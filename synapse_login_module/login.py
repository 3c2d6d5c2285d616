"""The use cases: logging in, refreshing, logging out. No HTTP, no YAML, no SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from twisted.internet.defer import CancelledError

from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    AccountNotLinked,
    Charge,
    ExpiredToken,
    InvalidCredentials,
    LoginServiceError,
    RateLimited,
    RefreshRefused,
    ReusedToken,
    SessionMismatch,
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
        credentials = request.credentials
        subject = _subject(credentials)
        async with self._attempt("login", credentials, client, _Line(subject or "")) as trial:
            account = await self._authenticate(credentials, trial)
            trial.line.user = account.user_id
            await trial.require_active(account)
            await trial.counted.succeeded(trial.charged, account.user_id)
            login = await self._issue(account, request)
            trial.line.user, trial.line.device = login.user_id, login.device_id
        self.looks.saw_active(login.user_id)
        return login

    async def get_token(
        self, session: SessionInfo, password: PasswordLogin, client: Client
    ) -> LoginToken:
        """Make a login token for a user who is logged in and gives the password again.

        :return: the token. Fails as :meth:`login` does.
        """
        line = _Line(session.user_id, session.device_id)
        async with self._attempt("get_token", password, client, line) as trial:
            account = await self._authenticate(password, trial)
            await trial.require_active(account)
            if await self.accounts.user_id_of(account) != session.user_id:
                await trial.counted.charge_account(trial.charged)
                raise InvalidCredentials("other_user")
            await trial.counted.succeeded(trial.charged)
            return await self.store.make_login_token(session.user_id)

    @asynccontextmanager
    async def _attempt(
        self, event: str, credentials: PasswordLogin | TokenLogin, client: Client, line: _Line
    ) -> AsyncIterator[_Trial]:
        """Count an attempt, and write down its outcome."""
        try:
            counted = await self.limits.attempt(client, _subject(credentials))
            try:
                yield _Trial(counted, line)
            except Exception as error:
                _settle(counted, error)
                raise
        except Exception as error:
            self.audit.failed(
                event, error, client, user=line.user, device=line.device, provider=line.provider
            )
            raise
        self.audit.record(
            event,
            "ok",
            credentials.kind,
            client,
            user=line.user,
            device=line.device,
            provider=line.provider,
        )

    async def _authenticate(
        self, credentials: PasswordLogin | TokenLogin, trial: _Trial
    ) -> Account:
        """Find the account that the credentials are good for, whatever its status.

        A login token is not used up yet.
        """
        if isinstance(credentials, TokenLogin):
            try:
                owner = await self.store.login_token_owner(credentials.token)
            except UnknownToken:
                raise await self._bad_login_token() from None
            return Account(owner, status=await self.accounts.account_status(owner, None))
        try:
            account = await call_hashing_for(
                trial.counted.known_as,
                self.accounts.authenticate,
                credentials.identifier,
                credentials.password,
            )
        except InvalidCredentials as error:
            await trial.counted.charge_account(error.user_id)
            raise
        except AccountNotLinked as error:
            await trial.counted.succeeded(error.user_id)
            raise
        if account is None:
            await trial.counted.charge_account(None)
            raise InvalidCredentials("unknown_user")
        trial.line.provider = account.provider
        trial.charged = account.named or account.user_id
        return account

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
            presented = await self.store.present(refresh_token)
            owner = presented.session
            await self.looks.look_again(owner)
            pair = await self.store.refresh(presented, access_token, strict)
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


@dataclass(slots=True)
class _Line:
    """What the audit log is to say of an attempt, as far as it is known.

    :param user: the user ID; until the account is known, the identifier that the client sent.
    """

    user: str
    device: str = ""
    provider: str = ""


@dataclass(slots=True)
class _Trial:
    """An attempt that has been let in.

    :param counted: the attempt, as the limits count it.
    :param charged: the account that its failures are charged to, once a password was right.
    """

    counted: Attempt
    line: _Line
    charged: str | None = None

    async def require_active(self, account: Account) -> None:
        """Refuse an account that is deactivated or locked.

        Where too many passwords failed on it, the refusal is that of a wrong password: it must not
        tell that this one was right.
        """
        try:
            require_active(account.status)
        except (AccountDeactivated, AccountLocked):
            await self.counted.succeeded(self.charged)
            raise


_MAX_SUBJECT = 512


def _subject(credentials: PasswordLogin | TokenLogin) -> str | None:
    """The name that failures are counted by, before the account is known."""
    if isinstance(credentials, TokenLogin):
        return None
    return str(credentials.identifier).lower()[:_MAX_SUBJECT]


def _settle(attempt: Attempt, error: Exception) -> None:
    """Take back what an error is not to count, as when the client is not at fault."""
    if isinstance(error, CancelledError):
        return
    charge = error.charge if isinstance(error, LoginServiceError) else Charge.NOTHING
    if charge is not Charge.FAILURE:
        attempt.forgive(entirely=charge is Charge.NOTHING)
