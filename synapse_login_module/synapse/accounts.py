"""Maps the accounts of password providers to accounts of Synapse."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from synapse_login_module.errors import (
    AccountNotLinked,
    InvalidCredentials,
    LoginServiceError,
    ProviderUnavailable,
)
from synapse_login_module.interfaces import IAccounts, IHashing
from synapse_login_module.model import (
    MAX_USER_ID,
    Account,
    AccountStatus,
    Claim,
    Identifier,
    Link,
    UserId,
    UserIdentifier,
    require_active,
)
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.synapse import user_tables
from synapse_login_module.synapse.addresses import Addresses, Bound, named_by
from synapse_login_module.synapse.administrators import Administrators
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.linking import (
    Conflict,
    Linked,
    Linker,
    NoAccount,
    NotLinked,
    ToRegister,
    Wanted,
)
from synapse_login_module.synapse.links import SynapseLinks
from synapse_login_module.synapse.provider import SynapsePasswordProvider
from synapse_login_module.synapse.registration import Registers, Registration
from synapse_login_module.synapse.tables import TokenRows

_LONGEST_NAME = 256
"""How many characters a display name in Synapse has at most."""

_ROUNDS = 10
"""How often a login makes its decision at most, while other logins keep changing the link."""


@implementer(IAccounts)
class HomeserverAccounts:
    """The accounts of the password providers, as accounts of the homeserver.

    :param providers: the providers. The chain must hash no decoy of its own.
    :param local: checks local passwords when no provider accepts; ``None`` leaves them out.
    :param homeserver: the way into Synapse.
    :param hashing: hashes a decoy for an account that no provider knows.
    :param linker: decides which account of the homeserver a provider's account is.
    :param sync_profile: whether display name and e-mails are copied at each login.
    :param revoke_all: ends all sessions of a user.
    :param judge: acts on a provider's answer about a user, and fires with the status that counts;
        see :meth:`synapse_login_module.accounts.judge.Judge.judge`.
    :param registration: registers accounts and copies their profiles; by default Synapse does.
    """

    log = Logger()

    def __init__(
        self,
        providers: ProviderChain,
        local: SynapsePasswordProvider | None,
        homeserver: Homeserver,
        hashing: IHashing,
        linker: Linker,
        sync_profile: bool,
        revoke_all: Callable[[str], Deferred[int]],
        judge: Callable[[str, Link | None, AccountStatus | None], Deferred[AccountStatus | None]],
        registration: Registers | None = None,
    ) -> None:
        self._providers = providers
        self._local = local
        self._homeserver = homeserver
        self._hashing = hashing
        self._linker = linker
        self._sync_profile = sync_profile
        self._revoke_all = revoke_all
        self._judge = judge
        self._links = SynapseLinks(homeserver)
        self._addresses = Addresses(homeserver)
        self._registration = registration or Registration(homeserver)
        self._administrators = Administrators(homeserver)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password, and find, link or register the account.

        An address that is bound to a user of the homeserver means that user, whatever the
        providers say about it.
        """
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, user_id: str, link: Link | None) -> Deferred[AccountStatus | None]:
        """Look at an account: at the homeserver, and at the provider that it is linked to.

        Fails with ``AccountRefused`` too, while ``hs_disabled`` or ``limit_usage_by_mau`` keep the
        user out.
        """
        return Deferred.fromCoroutine(self._account_status(user_id, link))

    def user_id_of(self, account: Account) -> Deferred[str | None]:
        """Find the user ID; see :class:`~synapse_login_module.interfaces.IAccounts`."""
        if account.claim is None:
            return succeed(account.user_id)
        return self._links.linked_user(account.claim)

    # With a password.

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        bound = await self._homeserver.call_synapse(self._addresses.binding_of, identifier)
        if bound is not None:
            identifier = named_by(*bound)
        known = True
        refusal: AccountNotLinked | InvalidCredentials | ProviderUnavailable | None = None
        try:
            account = await self._ask(identifier, password)
            known = account is not None
            if account is not None:
                return await self._own_account(account, bound)
        except (AccountNotLinked, InvalidCredentials, ProviderUnavailable) as error:
            # A local password still counts, also during an outage.
            refusal = error
        if self._local is not None and self._homeserver.local_passwords_count:
            try:
                account = await self._local_account(self._local, _user(identifier, bound), password)
            except InvalidCredentials as error:
                error.provider = self._local.name
                refusal = refusal or error
            else:
                if account is not None:
                    return account
                await self._local.decoy(password)
        # There is one hash for the provider's password and one for the local password, whether or
        # not they exist. Otherwise the time would tell which accounts have both.
        if not known:
            await self._hashing.decoy(password)
        if refusal is not None:
            raise refusal
        return None

    async def _ask(self, identifier: Identifier, password: str) -> Account | None:
        """Ask the providers. If none knows the name, ask again with the spelling of its link."""
        account = await self._providers.authenticate(identifier, password)
        if account is not None or not isinstance(identifier, UserIdentifier):
            return account
        user_id = str(identifier.user_id)
        if not user_id.isprintable():
            return None
        link = await self._links.link_of(user_id)
        spelled = named_by(user_id, link)
        if spelled == identifier:
            return None
        return await self._providers.authenticate(spelled, password)

    async def _own_account(self, account: Account, bound: Bound | None) -> Account:
        """Return the homeserver's account for a provider's account whose password was right.

        Nothing is registered for an account that may not log in. The caller refuses it, once the
        attempt is counted: after too many failed ones, the refusal must not tell that the password
        was right.
        """
        try:
            require_active(account.status)
        except LoginServiceError:
            return account
        if account.claim is None:
            if bound is not None and account.user_id != bound.user_id:
                raise InvalidCredentials("other_user")
            return account
        found: Account = await self._homeserver.call_synapse(
            self._find, _presentable(account), account.claim, bound
        )
        if found.status is AccountStatus.LOCKED and (
            await self._links.is_locked_from_here(found.user_id)
        ):
            # The lock came from the provider, which has just said that the account is active.
            status = await self._judge(found.user_id, None, account.status)
            found = replace(found, status=status)
        return found

    async def _local_account(
        self, local: SynapsePasswordProvider, identifier: Identifier, password: str
    ) -> Account | None:
        """Check a local password.

        An account that an earlier version of this module marked as a provider's, and that no
        provider knows any longer, becomes a local account with this login. Its earlier sessions
        end, since a provider's password may have begun them.
        """
        account = await local.authenticate(identifier, password)
        if account is None:
            return None
        user_id = account.user_id
        status = await self._homeserver.call_synapse(self._homeserver.account_status, user_id)
        if await self._homeserver.call_synapse(self._is_marked, user_id) and (
            await self._providers.status_by_name(user_id) is None
        ):
            await self._revoke_all(user_id)
            await self._homeserver.call_synapse(self._unmark, user_id)
            self.log.info("{user_id} is a local account now", user_id=user_id)
        return replace(account, provider=local.name, status=status or AccountStatus.DEACTIVATED)

    # Without one.

    async def _account_status(self, user_id: str, link: Link | None) -> AccountStatus | None:
        server = self._homeserver
        await server.call_synapse(server.require_open, user_id)
        own = await server.call_synapse(server.account_status, user_id)
        # The provider can take back a lock that was set for it. An administrator's lock stays.
        if own is not AccountStatus.ACTIVE and not (
            own is AccountStatus.LOCKED and await self._links.is_locked_from_here(user_id)
        ):
            return own
        if link is None:
            link = await self._links.link_of(user_id)
        if link is not None:
            await server.call_synapse(self._administrators.watch, user_id)
            status = await self._providers.account_status(link.provider, link.subject)
        elif await server.call_synapse(self._is_marked, user_id):
            status = await self._providers.status_by_name(user_id)
        else:
            return AccountStatus.ACTIVE
        return await self._judge(user_id, link, status)

    # On Synapse's side.

    async def _find(self, account: Account, claim: Claim, bound: Bound | None) -> Account:
        """Find the homeserver's account, link or register it if needed, and update its profile."""
        server = self._homeserver
        user = UserId.parse(account.user_id, "")
        if user.server_name != server.server_name or not _is_user_id(account.user_id):
            self.log.warn(
                "{provider} names an account that cannot exist here: {user_id}",
                provider=account.provider,
                user_id=ascii(account.user_id),
            )
            raise InvalidCredentials("bad_user_id")
        wanted = Wanted(
            claim, account.user_id, None if bound is None else bound.user_id, server.is_login
        )
        user_id = await self._linked_user(account, wanted)
        if self._sync_profile and wanted.writes:
            await self._registration.synchronize(user_id, account)
        await self._administrators.watch(user_id)
        status = await server.account_status(user_id)
        if wanted.writes and status is AccountStatus.ACTIVE:
            await self._administrators.settle(user_id, claim, account.admin)
        return replace(account, user_id=user_id, status=status or AccountStatus.DEACTIVATED)

    async def _linked_user(self, account: Account, wanted: Wanted) -> str:
        for _ in range(_ROUNDS):
            now = self._homeserver.now()

            def decide(rows: TokenRows, now: int = now) -> object:
                decision = self._linker.decide(rows, wanted, now)
                if isinstance(decision, Linked) and decision.is_new:
                    _unmark(rows, decision.user_id)
                return decision

            decision = await self._homeserver.transaction("synapse_login_decide", decide)
            if isinstance(decision, Linked):
                if decision.is_new:
                    self._log_linked(decision.user_id, wanted.claim)
                return decision.user_id
            if isinstance(decision, NoAccount):
                raise InvalidCredentials(decision.reason)
            if isinstance(decision, NotLinked):
                raise AccountNotLinked(*decision)
            if isinstance(decision, ToRegister) and await self._registration.register(
                account, wanted.claim, decision
            ):
                return decision.user_id
            assert isinstance(decision, (ToRegister, Conflict))
        raise RuntimeError(f"other logins keep changing the link of {wanted.user_id}")

    async def _is_marked(self, user_id: str) -> bool:
        """Say whether an earlier version of this module marked an account as a provider's."""

        def work(rows: TokenRows) -> bool:
            return bool(user_tables.former_external_ids(rows, user_id))

        return await self._homeserver.transaction("synapse_login_marks", work)

    async def _unmark(self, user_id: str) -> None:
        await self._homeserver.transaction(
            "synapse_login_unmark", lambda rows: _unmark(rows, user_id)
        )

    def _log_linked(self, user_id: str, claim: Claim) -> None:
        self.log.info(
            "linked {user_id} to {subject} of {provider}",
            user_id=user_id,
            subject=ascii(claim.subject),
            provider=claim.provider,
        )


def _unmark(rows: TokenRows, user_id: str) -> None:
    """Delete the marks of earlier versions. They are external IDs of no configured provider, about
    which Synapse logs a warning in user-interactive authentication.
    """
    for external_id in user_tables.former_external_ids(rows, user_id):
        rows.invalidate_external_id(user_tables.FORMER_AUTH_PROVIDER, external_id)
    user_tables.delete_former_external_ids(rows, user_id)


def _user(identifier: Identifier, bound: Bound | None) -> Identifier:
    """Return the identifier by which the homeserver knows the user."""
    if bound is None:
        return identifier
    return UserIdentifier(UserId.parse(bound.user_id, ""))


def _is_user_id(text: str) -> bool:
    return len(text) <= MAX_USER_ID and text.isprintable()


def _presentable(account: Account) -> Account:
    """Return the account with the part of its display name that Synapse accepts. A display name
    must not make a login fail.
    """
    name = "".join(
        each
        for each in account.display_name or ""
        if unicodedata.category(each) not in ("Cc", "Cs")
    )
    return replace(account, display_name=name[:_LONGEST_NAME] or None)
