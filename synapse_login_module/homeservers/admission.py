"""Decides which account of the homeserver a login is for. Links it or makes it where needed.

The homeserver is another program, so its account and the link cannot be made in one transaction.
The store reserves the name first. The account is made then, and linked at once. An account that is
there already is linked in the transaction that begins the session. A login that dies in between
leaves the reservation, which the next login of the same person takes up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from synapse_login_module.accounts.rules import LinkRules, naming
from synapse_login_module.common.coalescing import shield
from synapse_login_module.common.locks import Locks
from synapse_login_module.errors import (
    AccountDeactivated,
    AccountNotLinked,
    AccountRefused,
    HomeserverUnavailable,
    HomeserverUnreachable,
    LinkTaken,
)
from synapse_login_module.interfaces import IDelegatedStore, IHomeserver, ILinks
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    Account,
    Claim,
    HomeserverAccount,
    Link,
    NameStatus,
)

_LOOKS, _PAUSE = 20, 0.1
"""How often, and how many seconds apart, to look whether another login has linked an account."""


class Foreseen(NamedTuple):
    """What a login would do at the homeserver.

    :param user_id: the user ID that its session would begin for.
    :param account: the account there; ``None`` when the login would make it.
    :param is_new: whether the login would link the account.
    """

    user_id: str
    account: HomeserverAccount | None
    is_new: bool


class Admission:
    """Finds, links or makes the Matrix account of a login whose password was right.

    :param homeserver: the homeserver that has the accounts.
    :param links: the links; the same object as ``reservations``.
    :param rules: which existing accounts may be linked. Which of them has a password cannot be
        asked, so ``passwordless`` links none of them.
    :param sleep: fires after a number of seconds.
    """

    log = Logger()

    def __init__(
        self,
        homeserver: IHomeserver,
        links: ILinks,
        rules: LinkRules,
        sleep: Callable[[float], Deferred[None]],
    ) -> None:
        self._homeserver = homeserver
        self._links = links
        self._reservations = IDelegatedStore(links)
        self._rules = rules
        self._sleep = sleep
        self._first_logins: Locks[str] = Locks()

    async def admit(self, account: Account) -> str:
        """Return the user ID to begin a session for. Its account exists and is active.

        A new account is made, and linked at once, for an account that has no link and whose user ID
        is free. Any other link is written with the session.

        :param account: without a ``claim``, its user ID is that of a session of before. That of an
            application service's user has been found at the homeserver, which also has said that
            the application service may use it. So no rule of linking applies.
        :raise AccountNotLinked: when the Matrix account is another's, or may not be made.
        :raise AccountDeactivated: when the Matrix account is deactivated.
        :raise AccountRefused: when the name makes no user ID there.
        :raise HomeserverUnavailable: when the homeserver cannot be asked.
        """
        if account.claim is None or not _is_linked(account.claim):
            return await self._require_account(account.user_id, account)
        linked = await self._links.linked_user(account.claim)
        if linked is not None:
            return await self._require_account(linked, account)
        # A client that goes away must not leave a reservation without an account.
        return await shield(Deferred.fromCoroutine(self._link_first(account, account.claim)))

    async def foresee(self, account: Account) -> Foreseen:
        """Decide as :meth:`admit` does, changing nothing. Raises what :meth:`admit` raises."""
        claim = account.claim
        if claim is None or not _is_linked(claim):
            found = await self._find_active(account.user_id, claim)
            return Foreseen(account.user_id, found, is_new=False)
        linked = await self._links.linked_user(claim)
        if linked is not None:
            return Foreseen(linked, await self._find_active(linked, claim), is_new=False)
        user_id = account.user_id
        is_free = await self._is_free(user_id, claim)
        await self._reservations.require_name(user_id, claim)
        found = None if is_free else await self._find_active(user_id, claim)
        return Foreseen(user_id, found, is_new=True)

    async def _require_account(self, user_id: str, account: Account) -> str:
        """Check that the account of a linked user ID is active. Make it if it does not exist."""
        found = await self._find_active(user_id, account.claim)
        if found is None:
            await self._homeserver.make_account(user_id, account.display_name)
        elif account.claim is not None:
            await self._sync_profile(found, account)
        return user_id

    async def _find_active(self, user_id: str, claim: Claim | None) -> HomeserverAccount | None:
        """Find the account of a user ID, and reject a deactivated one.

        :return: ``None`` when it does not exist and may be made.
        """
        found = await self._homeserver.find_account(user_id)
        if found is None:
            if not _is_linked(claim):
                # Only a login with a password makes accounts.
                raise AccountDeactivated
            self._require_registration(user_id)
        elif found.is_deactivated:
            raise AccountDeactivated
        return found

    async def _link_first(self, account: Account, claim: Claim) -> str:
        """Admit an account that has no link, one first login of a user ID at a time.

        A reservation is a sign that an account was made for the person only when no login is about
        to find that out.
        """
        async with self._first_logins.held(account.user_id):
            linked = await self._links.linked_user(claim)
            if linked is not None:
                return await self._require_account(linked, account)
            return await self._link(account, claim)

    async def _link(self, account: Account, claim: Claim) -> str:
        user_id = account.user_id
        if await self._is_free(user_id, claim):
            await self._make(account, claim)
            return user_id
        await self._reservations.reserve_name(user_id, claim)
        return await self._require_account(user_id, account)

    async def _is_free(self, user_id: str, claim: Claim) -> bool:
        """Say whether an account of a user ID is to be made; reject one that may not be linked."""
        status = await self._homeserver.name_status(user_id)
        if status is NameStatus.INVALID and await self._homeserver.find_account(user_id) is None:
            raise AccountRefused(403, "M_FORBIDDEN", "This name makes no Matrix user ID")
        is_exception = self._rules.is_exception(user_id, claim.providers)
        if status is NameStatus.RESERVED and not is_exception:
            self._refuse(user_id, "it is reserved for an application service", naming(user_id))
        if user_id in self._homeserver.policy.admins and not is_exception:
            self._refuse(user_id, "it is a server administrator's", naming(user_id))
        if status is NameStatus.FREE:
            self._require_registration(user_id)
            return True
        if not is_exception and not await self._reservations.has_reserved_name(user_id, claim):
            self._require_linkable(user_id)
        return False

    async def _make(self, account: Account, claim: Claim) -> None:
        """Make the account of a user ID that was free a moment ago.

        Where it is there by now, it was made by another login of the same person, or by somebody
        else, such as an application service. In the first case it is linked soon.
        """
        user_id = account.user_id
        is_first = not await self._reservations.has_reserved_name(user_id, claim)
        await self._reservations.reserve_name(user_id, claim)
        try:
            is_new = await self._homeserver.make_account(user_id, account.display_name)
        except HomeserverUnreachable:
            if is_first:  # nothing was made, so a later account of this name is another's
                await self._reservations.withdraw_name(user_id, claim)
            raise
        if is_new:
            self.log.info("{user_id}: made at the homeserver", user_id=user_id)
            # It is surely this person's, whatever happens before the session begins.
            await self._link_to(user_id, claim)
        elif is_first:
            await self._require_same_person(user_id, claim)

    async def _link_to(self, user_id: str, claim: Claim) -> None:
        try:
            await self._links.link(Link(user_id, claim.provider, claim.subject), False)
        except LinkTaken:
            self._refuse(user_id, "it was linked at the same time", "links relink")

    async def _require_same_person(self, user_id: str, claim: Claim) -> None:
        """Reject an account that is not linked soon to the account of a claim."""
        # At once, so that no other login takes it for a sign that the account was made for it.
        await self._reservations.withdraw_name(user_id, claim)
        if not await self._is_linked_soon(claim):
            self._refuse(user_id, "it was made by another at the same time", naming(user_id))

    async def _is_linked_soon(self, claim: Claim) -> bool:
        for _ in range(_LOOKS):
            if await self._links.linked_user(claim) is not None:
                return True
            await self._sleep(_PAUSE)
        return False

    def _require_linkable(self, user_id: str) -> None:
        """Reject an existing account without a link that no rule links."""
        if self._rules.existing_accounts != "all":
            self._refuse(
                user_id,
                "it was there before, and whether it has a password cannot be asked there",
                f"existing_accounts: all, or {naming(user_id)}",
            )

    def _require_registration(self, user_id: str) -> None:
        if not self._homeserver.policy.register_users:
            self._refuse(user_id, "it does not exist at the homeserver", "register_users: true")

    def _refuse(self, user_id: str, problem: str, setting: str) -> NoReturn:
        raise AccountNotLinked(user_id, problem, setting)

    async def _sync_profile(self, found: HomeserverAccount, account: Account) -> None:
        """Carry over the display name if that is wanted. A failure does not fail the login."""
        name = account.display_name
        if not self._homeserver.policy.sync_profile or name in (None, "", found.display_name):
            return
        try:
            await self._homeserver.set_display_name(found.user_id, name or "")
        except HomeserverUnavailable as error:
            self.log.warn(
                "the display name of {user_id} is not carried over: {problem}",
                user_id=found.user_id,
                problem=str(error),
            )


def _is_linked(claim: Claim | None) -> bool:
    """Return whether a login is one of an account of a password provider."""
    return claim is not None and claim.provider != APPLICATION_SERVICE
