"""The use cases: logging in, refreshing, logging out. No HTTP, no YAML, no SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred

from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.attempts import AdmittedAttempt, Attempts, AuditFields
from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import (
    AccountNotLinked,
    ExpiredToken,
    InvalidCredentials,
    RateLimited,
    RefreshRefused,
    ReusedToken,
    ServiceRefused,
    SessionMismatch,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.homeservers.host import NoHomeserver, SessionHost
from synapse_login_module.interfaces import (
    IAccounts,
    IDelegatedStore,
    IHashing,
    ILinks,
    ITokenStore,
)
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    Account,
    Claim,
    Client,
    Login,
    LoginRequest,
    LoginToken,
    PasswordLogin,
    ServiceLogin,
    SessionInfo,
    TokenLogin,
    TokenPair,
    require_active,
)
from synapse_login_module.passwords import call_hashing_for, is_empty


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

    @property
    def _attempts(self) -> Attempts:
        return Attempts(self.limits, self.audit)

    async def login(self, request: LoginRequest, client: Client) -> Login:
        """Log a user in.

        :return: the session that has begun. Raises ``InvalidCredentials``, ``AccountLocked``,
            ``AccountDeactivated``, ``PasswordExpired``, ``LoginNotPermitted``,
            ``AccountNotLinked``, ``AccountRefused``, ``ServiceRefused``, ``RateLimited``,
            ``Overloaded``, ``ProviderUnavailable``, ``StoreUnavailable`` or
            ``HomeserverUnavailable``.
        """
        credentials = request.credentials
        if isinstance(credentials, ServiceLogin):
            return await self._login_of_service(credentials, request, client)
        async with self._attempts.counted("login", credentials, client) as attempt:
            account = await self._authenticate(credentials, attempt)
            attempt.fields.user = account.user_id
            await attempt.require_active(account)
            await attempt.counted.succeeded(attempt.charged, account.user_id)
            login = await self._issue(account, request)
            attempt.fields.user, attempt.fields.device = login.user_id, login.device_id
        self.looks.saw_active(login.user_id)
        return login

    async def _login_of_service(
        self, credentials: ServiceLogin, request: LoginRequest, client: Client
    ) -> Login:
        """Log in a user of an application service.

        The session is that of the user's account at a provider, if there is such a link. It then
        ends with the account.
        """
        user_id = str(credentials.user_id)
        async with self._attempts.of_service("login", credentials, client) as fields:
            if not await self.host.owns_user(credentials.token, user_id):
                raise ServiceRefused
            link = await ILinks(self.store).link_of(user_id)
            claim = None
            if link is None or link.provider == APPLICATION_SERVICE:
                claim = Claim((APPLICATION_SERVICE,), user_id)
            else:
                require_active(await self.accounts.account_status(user_id, link))
            login = await self._issue(Account(user_id, claim=claim), request)
            fields.device = login.device_id
        return login

    async def get_token(
        self, session: SessionInfo, password: PasswordLogin, client: Client
    ) -> LoginToken:
        """Issue a login token to a user who is logged in and enters the password again.

        :return: the login token. Raises what :meth:`login` raises.
        """
        async with self._entered_again("get_token", session, password, client):
            return await self.store.make_login_token(session.user_id)

    async def delete_devices(
        self,
        session: SessionInfo,
        devices: Sequence[str],
        password: PasswordLogin,
        client: Client,
    ) -> None:
        """Delete devices of a user who is logged in and enters the password again.

        Their sessions end. Devices that do not exist are ignored. Raises what :meth:`login` raises.

        :param devices: the identifiers of the devices, that of ``session`` perhaps among them.
        """
        async with self._entered_again("delete_devices", session, password, client):
            store = IDelegatedStore(self.store)
            # The client's own is the last: if the store fails before, the client can try again.
            for device_id in sorted(set(devices), key=lambda each: each == session.device_id):
                await store.delete_device(session.user_id, device_id)
            # Clients ask the homeserver for the list of devices when they have the response.
            await self.host.settle()

    @asynccontextmanager
    async def _entered_again(
        self, event: str, session: SessionInfo, password: PasswordLogin, client: Client
    ) -> AsyncIterator[None]:
        """Check the password of a session's user, and run the body of the ``with``.

        :param event: the event in the audit log.
        """
        fields = AuditFields(session.user_id, session.device_id)
        async with self._attempts.counted(event, password, client, fields) as attempt:
            account = await self._authenticate(password, attempt)
            await attempt.require_active(account)
            if await self.accounts.user_id_of(account) != session.user_id:
                await attempt.counted.charge_account(attempt.charged)
                raise InvalidCredentials("other_user")
            await attempt.counted.succeeded(attempt.charged)
            yield

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
        async with self._attempts.counted(event, password, client) as attempt:
            account = await self._authenticate(password, attempt)
            attempt.fields.user = account.user_id
            await attempt.require_active(account)
            await attempt.counted.succeeded(attempt.charged)
            attempt.fields.user = await user_of(account)
        return attempt.fields.user

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
        if is_empty(credentials.password):  # some databases hold hashes of nothing
            await self.hashing.decoy("")
            await attempt.counted.charge_account(None)
            raise InvalidCredentials
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
            if isinstance(error, ReusedToken) and owner is not None:
                await self.host.forget(owner, wait=True)
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
        await self.host.forget(owner, wait=strict)
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
        """Raise ``StoreUnavailable`` unless the store can be reached, and its key can sign."""
        await self.store.ping()

    def _failed_refresh(self, error: Exception, owner: SessionInfo | None, client: Client) -> None:
        user, device = (owner.user_id, owner.device_id) if owner else ("", "")
        self.audit.failed("refresh", error, client, user=user, device=device)
