"""What other providers' accounts become in Synapse."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import replace

from synapse.module_api import UserID
from synapse.module_api.errors import SynapseError
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.interfaces import IAccounts, IHashing, IPasswordProvider
from synapse_login_module.model import (
    MAX_USER_ID,
    Account,
    AccountStatus,
    Identifier,
    Link,
    UserId,
    require_active,
)
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.synapse.api import Homeserver, refused

_AUTH_PROVIDER = "synapse_login_module"

_LONGEST_NAME = 256
"""How many characters of a display name Synapse takes."""


@implementer(IAccounts)
class HomeserverAccounts:
    """The accounts that providers vouch for, as accounts of the homeserver.

    :param providers: who vouches.
    :param local: who is asked when they do not; ``None`` for nobody.
    :param homeserver: where the accounts are.
    :param hashing: where a decoy is hashed for an account that nobody knows; ``providers`` are
        to hash none.
    :param register_users: whether an account is made at its first login.
    :param sync_profile: whether display name and e-mails are carried over at each login.
    :param revoke_all: ends the sessions of a user.
    """

    log = Logger()
    name = "homeserver"

    def __init__(
        self,
        providers: ProviderChain,
        local: IPasswordProvider | None,
        homeserver: Homeserver,
        hashing: IHashing,
        register_users: bool,
        sync_profile: bool,
        revoke_all: Callable[[str], Deferred[int]],
    ) -> None:
        self._providers = providers
        self._local = local
        self._homeserver = homeserver
        self._hashing = hashing
        self._register_users = register_users
        self._sync_profile = sync_profile
        self._revoke_all = revoke_all

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password, and make the account where there is none yet."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def user_id_of(self, account: Account) -> Deferred[str | None]:
        """Name the account of the homeserver."""
        return succeed(account.user_id)

    def account_status(self, user_id: str, link: Link | None) -> Deferred[AccountStatus | None]:
        """Look again, in the homeserver and with the providers.

        An account that a provider once vouched for, and that none knows any more, is gone. Fails
        with ``AccountRefused`` too, while the homeserver has no room for the user.
        """
        return Deferred.fromCoroutine(self._look_again(user_id))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        rejected: InvalidCredentials | None = None
        try:
            account = await self._vouched(identifier, password)
        except InvalidCredentials as error:
            account, rejected = None, error
        if account is None and self._local is not None:
            account = await self._local_account(self._local, identifier, password)
        if account is None and rejected is not None:
            raise rejected
        if account is None:
            await self._hashing.decoy(password)
        return account

    async def _vouched(self, identifier: Identifier, password: str) -> Account | None:
        """What the providers say, the account being made where there is none yet."""
        account = await self._providers.authenticate(identifier, password)
        if account is None:
            return None
        if not account.own:  # nobody is registered only to be turned away
            require_active(await self._providers.status_by_name(account.user_id))
        return await self._homeserver.call_synapse(self._welcome, account)

    async def _local_account(
        self, local: IPasswordProvider, identifier: Identifier, password: str
    ) -> Account | None:
        """What the homeserver itself says.

        An account that providers have dropped is the homeserver's own from this login on. What
        sessions it had until now, it may have from them: they end.
        """
        account = await local.authenticate(identifier, password)
        if account is None:
            return None
        status = await self._account_status(account.user_id)
        if status is None:
            await self._revoke_all(account.user_id)
            forget = self._homeserver.forget_external_id
            await self._homeserver.call_synapse(forget, _AUTH_PROVIDER, account.user_id)
            self.log.info("{user_id} is a local account now", user_id=account.user_id)
            status = AccountStatus.ACTIVE
        return replace(account, provider=local.name, status=status)

    async def _look_again(self, user_id: str) -> AccountStatus | None:
        await self._homeserver.call_synapse(self._homeserver.require_open, user_id)
        return await self._account_status(user_id)

    async def _account_status(self, user_id: str) -> AccountStatus | None:
        own = await self._homeserver.call_synapse(self._homeserver.account_status, user_id)
        if own is not AccountStatus.ACTIVE:
            return own
        status = await self._providers.status_by_name(user_id)
        if status is not None:
            return status
        vouched = await self._homeserver.call_synapse(self._was_vouched_for, user_id)
        return None if vouched else AccountStatus.ACTIVE

    async def _was_vouched_for(self, user_id: str) -> bool:
        ids = await self._homeserver.external_ids(user_id)
        return any(auth_provider == _AUTH_PROVIDER for auth_provider, _ in ids)

    async def _welcome(self, account: Account) -> Account:
        """Make the account, or bring it up to date; on Synapse's side."""
        api = self._homeserver.api
        account = _presentable(account)
        wanted = account.user_id
        if len(wanted) > MAX_USER_ID:
            raise InvalidCredentials("bad_user_id")
        # Synapse remembers who is there under this very name; other cases it has to look up.
        known = await api.get_userinfo_by_id(wanted)
        user_id = wanted if known else await api.check_user_exists(wanted)
        if user_id is None:
            if not self._register_users:
                raise InvalidCredentials("not_registered")
            user_id = await self._register(account)
        elif self._sync_profile:
            await self._synchronize(user_id, account)
        if not account.own and not await self._was_vouched_for(user_id):
            external_id = hashlib.sha256(user_id.encode("utf-8")).hexdigest()
            try:
                await api.record_user_external_id(_AUTH_PROVIDER, external_id, user_id)
            except Exception:
                # Another login of the same user may have been faster.
                if not await self._was_vouched_for(user_id):
                    raise
        status = await self._homeserver.account_status(user_id)
        return replace(account, user_id=user_id, status=status or AccountStatus.DEACTIVATED)

    async def _register(self, account: Account) -> str:
        api = self._homeserver.api
        localpart = UserId.parse(account.user_id, "").localpart
        try:
            user_id: str = await api.register_user(
                localpart, account.display_name, list(account.emails)
            )
        except SynapseError as error:
            # Perhaps another login of the same user was faster.
            existing = await api.check_user_exists(account.user_id)
            if existing is None:
                raise refused(error) from None
            return str(existing)
        self.log.info("registered {user_id} for {name}", user_id=user_id, name=account.provider)
        return user_id

    async def _synchronize(self, user_id: str, account: Account) -> None:
        api = self._homeserver.api
        profile = await api.get_profile_for_user(UserId.parse(user_id, "").localpart)
        if account.display_name and profile.display_name != account.display_name:
            await api.set_displayname(UserID.from_string(user_id), account.display_name)
        bound = await api.get_threepids_for_user(user_id)
        known = {each["address"] for each in bound if each["medium"] == "email"}
        for email in account.emails:
            address = email.lower()
            if address not in known:
                await self._homeserver.add_email(user_id, address)


def _presentable(account: Account) -> Account:
    """The account with as much of its profile as Synapse takes: nobody is kept out for the rest."""
    name = "".join(
        each
        for each in account.display_name or ""
        if unicodedata.category(each) not in ("Cc", "Cs")
    )
    emails = [email.strip() for email in account.emails]
    addresses = [email for email in emails if "@" in email and email.isprintable()]
    return replace(account, display_name=name[:_LONGEST_NAME] or None, emails=tuple(addresses))
