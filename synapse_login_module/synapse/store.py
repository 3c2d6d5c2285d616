"""A token store on the tables of a running Synapse, with the rules of ``tokens/rotation.py``.

Synapse keeps the current generation of a session and the one before it. The rules need no more,
except to detect the replay of an older refresh token. For that, each refresh token made here
carries a tag with its session's id and an HMAC, and a table of this package names each session's
user and device.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.errors import (
    ExpiredToken,
    ReusedToken,
    SessionMismatch,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import (
    Claim,
    Link,
    Login,
    LoginToken,
    PresentedToken,
    SessionInfo,
    TokenPair,
    TokenPolicy,
)
from synapse_login_module.synapse import link_rows, session_rows
from synapse_login_module.synapse.api import Homeserver, Lifetimes
from synapse_login_module.synapse.chains import (
    AccessRow,
    Generation,
    TokenChain,
    after,
    as_session,
    earliest,
    is_expired,
    is_over,
)
from synapse_login_module.synapse.ending import Ended, SessionEnding, link_has_changed
from synapse_login_module.synapse.tables import TokenRows
from synapse_login_module.synapse.token_format import (
    NONCE_SIZE,
    RefreshTokenTag,
    access_token,
    is_token,
)
from synapse_login_module.tokens import rotation
from synapse_login_module.tokens.over import has_passed
from synapse_login_module.tokens.rotation import Outcome

_ACCESS_SIZE = 15  # random bytes
_BURST = 1000
"""Milliseconds after a pair was issued in which a lenient repeat returns it without a write."""


@implementer(ITokenStore)
class SynapseTokenStore:
    """A token store on Synapse's tables; see :class:`~synapse_login_module.interfaces.ITokenStore`.

    :param homeserver: the way into Synapse's main process, which makes the ids of tokens.
    :param reuse_interval: milliseconds in which a second use of a refresh token is a race.
    :param login_token_lifetime: milliseconds.
    :param random: returns a number of random bytes.
    :param ending: ends sessions.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        reuse_interval: int,
        login_token_lifetime: int,
        random: Callable[[int], bytes],
        ending: SessionEnding,
    ) -> None:
        self._homeserver = homeserver
        self._ending = ending
        self._lifetimes: Lifetimes = homeserver.lifetimes
        # Synapse's rows hold the lifetimes, which are checked here; rotation.py decides the rest.
        self._policy = TokenPolicy(reuse_interval=reuse_interval)
        self._login_token_lifetime = login_token_lifetime
        self._random = random
        self._tag = RefreshTokenTag(homeserver.secret, homeserver.server_name)

    async def forget(self, user_id: str, device_id: str) -> None:
        """Delete the session rows of a device; on Synapse's side of the crossing."""

        def work(rows: TokenRows) -> None:
            session_rows.forget_sessions(rows, user_id, device_id)

        await self._homeserver.transaction("synapse_login_forget", work)

    def issue(
        self,
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
        with_refresh_token: bool,
        login_token: str | None = None,
        claim: Claim | None = None,
    ) -> Deferred[Login]:
        """Have Synapse make a device with tokens. A login token is used up just before that.

        The account was linked earlier, when its password was checked. With a login token, the link
        is read here. If it changes before the end, the login fails with ``AccountNotLinked``.
        """

        async def issue() -> Login:
            linked = claim
            if login_token is not None:
                linked = await self._homeserver.transaction(
                    "synapse_login_token_link", lambda rows: _claim_of(rows, user_id)
                )
                await self._homeserver.consume_login_token(login_token, user_id)
            return await self._issue(
                user_id, device_id, display_name, refreshable, with_refresh_token, linked
            )

        return self._homeserver.call_synapse(issue)

    def present(self, refresh_token: str) -> Deferred[PresentedToken]:
        """Find the session in Synapse's rows, or in this package's if Synapse deleted the token."""
        if not is_token(refresh_token):
            return fail(UnknownToken())
        session_id = self._tag.read(refresh_token)

        def work(rows: TokenRows) -> SessionInfo | None:
            chain = rows.chain(refresh_token)
            if chain is not None:
                return _info(chain.user_id, chain.device_id, chain.link)
            owner = session_rows.session_of(rows, session_id)
            return None if owner is None else _info(owner.user_id, owner.device_id)

        async def find() -> PresentedToken:
            session = await self._homeserver.transaction("synapse_login_owner", work)
            if session is None:
                raise UnknownToken
            return PresentedToken(session, (refresh_token, session_id))

        return self._homeserver.call_synapse(find)

    def refresh(
        self, presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Exchange a refresh token for a new pair, in one transaction."""
        if access_token is not None and not is_token(access_token):
            return fail(SessionMismatch())
        return self._homeserver.call_synapse(
            self._refresh, *presented.checked, access_token, strict
        )

    def session_for_access_token(
        self, access_token: str, allow_expired: bool
    ) -> Deferred[SessionInfo]:
        """Find the session of an access token in Synapse's rows."""
        if not is_token(access_token):
            return fail(UnknownToken())

        async def find() -> SessionInfo:
            row = await self._homeserver.transaction(
                "synapse_login_look_up", lambda rows: rows.use(access_token)
            )
            if row is None:
                raise UnknownToken
            user_id, device_id, expires_at = row
            if not allow_expired and has_passed(expires_at, self._homeserver.now()):
                raise ExpiredToken
            return _info(user_id, device_id)

        return self._homeserver.call_synapse(find)

    def revoke(self, session: SessionInfo) -> Deferred[None]:
        """End a device's session. The device stays, so that no keys are lost."""
        ending = self._homeserver.call_synapse(
            self._ending.end, session.user_id, session.device_id, EndReason.REVOKED
        )
        return ending.addCallback(lambda _: None)

    def revoke_all(self, user_id: str, device_grace: int = 0) -> Deferred[int]:
        """End all sessions of an account that is gone; its login tokens and pushers go, too."""
        return self._homeserver.call_synapse(self._ending.end, user_id, None, EndReason.GONE)

    def sessions(
        self, user_id: str | None, after: SessionInfo | None = None, most: int = 1000
    ) -> Deferred[list[SessionInfo]]:
        """List the devices that have access tokens, as sessions."""
        start = ("", "") if after is None else (after.user_id, after.device_id)

        def work(rows: TokenRows) -> list[SessionInfo]:
            return [
                SessionInfo(f"{user} {device}", user, device, issued_at=issued)
                for user, device, issued in rows.devices(user_id, start, most)
            ]

        return self._homeserver.call_synapse(
            self._homeserver.transaction, "synapse_login_sessions", work
        )

    def make_login_token(self, user_id: str) -> Deferred[LoginToken]:
        """Have Synapse make a login token."""

        async def make() -> LoginToken:
            token = await self._homeserver.api.create_login_token(
                user_id, self._login_token_lifetime
            )
            return LoginToken(token, self._login_token_lifetime)

        return self._homeserver.call_synapse(make)

    def login_token_owner(self, token: str) -> Deferred[str]:
        """Find the user of a login token that Synapse would accept."""
        if not is_token(token):
            return fail(UnknownToken())

        async def find() -> str:
            owner = await self._homeserver.transaction(
                "synapse_login_token_owner",
                lambda rows: rows.login_token_owner(token, self._homeserver.now()),
            )
            if owner is None:
                raise UnknownToken
            return owner

        return self._homeserver.call_synapse(find)

    def ping(self) -> Deferred[None]:
        """Run a query on Synapse's database."""

        def work(rows: TokenRows) -> None:
            rows.fetch("SELECT 1")

        return self._homeserver.call_synapse(
            self._homeserver.transaction, "synapse_login_ping", work
        )

    async def _issue(
        self,
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
        with_refresh_token: bool,
        claim: Claim | None,
    ) -> Login:
        made = await self._homeserver.register_device(
            user_id, device_id, display_name, with_refresh_token
        )
        device, access, expires_at, refresh = made
        lasting = with_refresh_token and not refreshable
        if lasting:
            now, lifetimes = self._homeserver.now(), self._lifetimes
            expires_at = earliest(
                after(now, lifetimes.nonrefreshable_access_token),
                after(now, lifetimes.session),
            )

        def work(rows: TokenRows) -> tuple[Ended | None, Ended | None]:
            refused = self._ending.refuse_rows(rows, user_id, access, claim, self._homeserver.now())
            if refused is not None:
                return refused, None
            if lasting:
                rows.set_expiry(access, expires_at)
            if device_id is None:
                return None, None
            return None, self._ending.replace_rows(rows, user_id, device)

        # Now that the tokens exist, a command that changes the link later ends them.
        refused, replaced = await self._homeserver.transaction("synapse_login_issue", work)
        if refused is not None:
            await self._ending.tell_if_possible(refused)
            raise link_has_changed(user_id)
        if replaced is not None:
            await self._ending.tell(replaced)
        return Login(user_id, device, TokenPair(access, refresh, self._left(expires_at)))

    async def _refresh(
        self, presented: str, session_id: bytes, access: str | None, strict: bool
    ) -> TokenPair:
        now = self._homeserver.now()
        ids = self._homeserver.new_ids()
        nonce, access_random = self._random(NONCE_SIZE), self._random(_ACCESS_SIZE)

        def work(rows: TokenRows) -> TokenPair | Exception | tuple[ReusedToken, Ended]:
            chain = rows.chain(presented)
            if chain is None:
                return self._unknown(rows, session_id, now)
            if access is not None and not _same_session(rows, chain, access):
                return SessionMismatch()
            if is_expired(chain, now):
                return ExpiredToken()
            outcome = rotation.refresh(
                *as_session(chain), now=now, strict=strict, key_id=0, policy=self._policy
            ).outcome
            if outcome is Outcome.ROTATED:
                pair = self._next(chain, session_id, nonce, access_random, now)
                rotate = rows.rotate_strictly if strict else rows.rotate_leniently
                if not rotate(chain, ids, pair, now):
                    raise ConcurrentRefresh
                session_rows.remember_session(rows, session_id, chain, now)
                return self._answer(pair)
            if outcome is Outcome.REPEATED:
                assert chain.next is not None
                again = chain.next.access
                assert again is not None
                expires_at = again.expires_at
                # Without a write, concurrent repeats do not make one another's transactions fail.
                if strict or is_over(again, now) or now - again.issued_at >= _BURST:
                    expires_at = self._access_expiry(chain, now)
                    rows.repeat_next(chain, expires_at, strict, now)
                return TokenPair(again.token, chain.next.token, self._left(expires_at))
            if outcome is Outcome.REUSED:
                return self._revoked(rows, chain.user_id, chain.device_id, now)
            return SupersededToken() if outcome is Outcome.RACED else UnknownToken()

        try:
            result = await self._homeserver.transaction("synapse_login_refresh", work)
        except ConcurrentRefresh:
            raise SupersededToken from None
        # A revocation has to be committed, so errors are returned from the transaction, not raised.
        if isinstance(result, TokenPair):
            return result
        if isinstance(result, Exception):
            raise result
        error, ended = result
        # The caller has to learn of the reuse, even if telling Synapse fails.
        await self._ending.tell_if_possible(ended)
        raise error

    def _unknown(
        self, rows: TokenRows, session_id: bytes, now: int
    ) -> Exception | tuple[ReusedToken, Ended]:
        """Decide about a refresh token that Synapse does not have: old, or never issued."""
        owner = session_rows.session_of(rows, session_id)
        if owner is not None and owner.is_ended:
            return SupersededToken()
        if owner is None or not rows.is_chained(owner.user_id, owner.device_id):
            return UnknownToken()
        return self._revoked(rows, owner.user_id, owner.device_id, now)

    def _revoked(
        self, rows: TokenRows, user_id: str, device_id: str, now: int
    ) -> tuple[ReusedToken, Ended]:
        ended = self._ending.end_rows(rows, user_id, device_id, EndReason.REUSED, now)
        return ReusedToken(user_id, device_id), ended

    def _next(
        self, chain: TokenChain, session_id: bytes, nonce: bytes, access_random: bytes, now: int
    ) -> Generation:
        """Make the pair of the next generation. Its row ids are set when the rows are written."""
        expires_at = self._access_expiry(chain, now)
        access = AccessRow(0, access_token(chain.user_id, access_random), expires_at, False, now)
        return Generation(
            0,
            self._tag.make(chain.user_id, session_id, nonce),
            earliest(after(now, self._lifetimes.refresh_token), chain.ends_at),
            access,
        )

    def _access_expiry(self, chain: TokenChain, now: int) -> int | None:
        return earliest(after(now, self._lifetimes.refreshable_access_token), chain.ends_at)

    def _answer(self, pair: Generation) -> TokenPair:
        assert pair.access is not None
        return TokenPair(pair.access.token, pair.token, self._left(pair.access.expires_at))

    def _left(self, expires_at: int | None) -> int | None:
        return None if expires_at is None else max(0, expires_at - self._homeserver.now())


class ConcurrentRefresh(Exception):
    """Another refresh of the same token was faster, so the transaction is rolled back."""


def _same_session(rows: TokenRows, chain: TokenChain, access: str) -> bool:
    own = chain.presented.access
    if own is not None and hmac.compare_digest(own.token.encode(), access.encode()):
        return True
    return rows.owner(access) == (chain.user_id, chain.device_id)


def _claim_of(rows: TokenRows, user_id: str) -> Claim | None:
    """Return the claim of a user's link, for a login with a login token.

    :raise UnknownToken: when the link was changed, and the user's sessions and login tokens have
        not been ended yet.
    """
    if link_rows.is_ending(rows, user_id):
        raise UnknownToken
    row = link_rows.row_of_user(rows, user_id)
    return None if row is None or row.pending else Claim((row.provider,), row.subject)


def _info(user_id: str, device_id: str, link: Link | None = None) -> SessionInfo:
    return SessionInfo(f"{user_id} {device_id}", user_id, device_id, link=link)
