"""What a user can do at the account page, without a device of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.accounts.listing import all_sessions
from synapse_login_module.errors import (
    AccountRefused,
    ExpiredToken,
    UnknownSession,
    UnknownToken,
)
from synapse_login_module.interfaces import IDelegatedStore, IHomeserver, ILinks, ITokenKeys
from synapse_login_module.login import LoginService
from synapse_login_module.model import Account, Client, PasswordLogin, SessionInfo, require_active
from synapse_login_module.tokens.page_token import PageToken, PageTokens, PageVisit

EVENT = "account_page"
"""The event of a sign-in in the audit log."""


class NeverLoggedIn(AccountRefused):
    """The password is right, but no Matrix account is linked to the account yet."""

    reason = "not_linked"

    def __init__(self) -> None:
        super().__init__(403, "M_FORBIDDEN", "Sign in with a Matrix app first, and come back then")


class UserSessions(NamedTuple):
    """The sessions of a user, the one that was refreshed last first."""

    user_id: str
    sessions: Sequence[SessionInfo]


@dataclass(frozen=True, slots=True)
class AccountPage:
    """The use cases of the account page, as coroutines.

    A sign-in makes no device, links nothing and registers nobody. It gives a page token, and each
    other use case takes one. They raise ``UnknownToken`` or ``ExpiredToken`` when the page token is
    not valid or the account is gone, ``AccountLocked``, ``AccountDeactivated``,
    ``ProviderUnavailable`` or ``StoreUnavailable``.

    :param service: the login service.
    :param links: the links of the token store.
    :param tokens: makes and reads page tokens.
    :param homeserver: the homeserver that the sessions are used at, if there is one.
    :param devices: the token store, where it keeps notes for that homeserver.
    """

    service: LoginService
    links: ILinks
    tokens: PageTokens
    homeserver: IHomeserver | None = None
    devices: IDelegatedStore | None = None

    async def sign_in(self, password: PasswordLogin, client: Client) -> PageToken:
        """Check a password. Raises what ``LoginService.login`` raises, but for what is linked.

        :return: a page token of the account's user.
        """
        user_id = await self.service.check_password(EVENT, password, client, self._linked_user)
        link = await self.links.link_of(user_id)
        if link is None:
            raise NeverLoggedIn
        return self.tokens.make(link)

    async def sessions(self, token: str) -> UserSessions:
        """List the sessions of the user."""
        return await self._enter(token)

    async def sign_out(self, token: str, device_id: str, client: Client) -> None:
        """End the session of a device, and delete the device at the homeserver.

        Raises ``UnknownSession`` when there is none. A page token has no rate limit, so nothing is
        noted then.
        """
        user_id, sessions = await self._enter(token)
        ended = [each for each in sessions if each.device_id == device_id]
        if not ended:
            raise UnknownSession
        await self._end(user_id, ended)
        self._signed_out("session", user_id, device_id, client)

    async def sign_out_all(self, token: str, keep: str | None, client: Client) -> int:
        """End all sessions of the user.

        :param keep: a device whose session goes on.
        :return: how many have ended. Raises ``UnknownSession``, and ends none, when the device to
            keep has no session.
        """
        user_id, sessions = await self._enter(token)
        if keep is None:
            number = await self.service.store.revoke_all(user_id)
        else:
            others = [each for each in sessions if each.device_id != keep]
            if len(others) == len(sessions):
                raise UnknownSession
            number = await self._end(user_id, others)
        self._signed_out("everywhere" if keep is None else "others", user_id, keep or "", client)
        return number

    async def reset_cross_signing(self, token: str, client: Client) -> None:
        """Have the homeserver accept new keys of cross-signing for a short time.

        Raises ``HomeserverUnavailable`` too.
        """
        assert self.homeserver is not None
        user_id, _ = await self._enter(token)
        await self.homeserver.allow_cross_signing_reset(user_id)
        self.service.audit.record("cross_signing_reset", "ok", "allowed", client, user=user_id)

    async def _linked_user(self, account: Account) -> str:
        """Return the user ID that an account is linked to.

        A link is needed: without one, the account of that name at the homeserver may be another
        person's.
        """
        user_id = account.claim and await self.links.linked_user(account.claim)
        if user_id is None:
            raise NeverLoggedIn
        return user_id

    async def _enter(self, token: str) -> UserSessions:
        """Check a page token and look at the account; return its sessions."""
        visit = self.tokens.read(token)
        await self._require_key(visit)
        link = await self.links.link_of(visit.user_id)
        if not visit.is_of(link):
            raise UnknownToken
        sessions = await all_sessions(self.service.store, visit.user_id)
        if sessions:
            # A look at a session's account ends all its sessions when the account is gone.
            await self.service.looks.look_again(sessions[-1]._replace(link=link))
        else:
            require_active(await self.service.accounts.account_status(visit.user_id, link))
        sessions.sort(key=lambda each: each.issued_at or 0, reverse=True)
        return UserSessions(visit.user_id, sessions)

    async def _require_key(self, visit: PageVisit) -> None:
        """Raise ``ExpiredToken`` when the key of a page token has been retired."""
        keys = ITokenKeys(self.service.store, None)
        if keys is not None:
            known = await keys.token_keys()
            if any(key.key_id == visit.key_id and key.retired for key in known):
                raise ExpiredToken

    async def _end(self, user_id: str, sessions: Sequence[SessionInfo]) -> int:
        for each in sessions:
            if self.devices is not None:
                await self.devices.delete_device(user_id, each.device_id)
            else:
                await self.service.store.revoke(each)
        return len(sessions)

    def _signed_out(self, reason: str, user_id: str, device_id: str, client: Client) -> None:
        self.service.host.ended()
        self.service.audit.record("logout", "ok", reason, client, user=user_id, device=device_id)
