"""Foretells what a standalone server does between the password and the session."""

from __future__ import annotations

from typing import Any

from synapse_login_module.errors import (
    AccountDeactivated,
    AccountRefused,
    HomeserverUnavailable,
)
from synapse_login_module.homeservers.admission import Admission, Foreseen
from synapse_login_module.interfaces import ILinks, ITokenKeys
from synapse_login_module.model import Account, Link
from synapse_login_module.rehearsal.steps import Trace, tell_link
from synapse_login_module.stores.linking import LinkedLogin, linked_login
from synapse_login_module.stores.memory import MemoryTokenStore


class StoreSessions:
    """What a server decides on an account whose password was right, up to the session.

    :param store: the token store, which is read and never written to.
    :param admission: the accounts of the homeserver; ``None`` without one.
    :param trace: receives the steps.
    """

    def __init__(self, store: Any, admission: Admission | None, trace: Trace) -> None:
        self._store = store
        self._admission = admission
        self._trace = trace

    async def begin(self, account: Account) -> str:
        """Return the user ID of the session. Raises what a login raises."""
        user_id, is_new = await self._user_of(account)
        if ITokenKeys.providedBy(self._store):
            await self._store.require_token_key()
        await self._store.ping()
        if isinstance(self._store, MemoryTokenStore):
            self._trace.add(
                "unseen",
                "the links are in the memory of the running server, which cannot be seen from here",
            )
        else:
            tell_link(self._trace, user_id, account, is_new)
        return user_id

    async def _user_of(self, account: Account) -> tuple[str, bool]:
        """Return the user ID of the session, and whether the login would link it."""
        if self._admission is None:
            linked = await foresee_link(self._store, account)
            return linked.user_id, linked.new
        foreseen = await self._at_homeserver(self._admission, account)
        return foreseen.user_id, foreseen.is_new

    async def _at_homeserver(self, admission: Admission, account: Account) -> Foreseen:
        try:
            foreseen = await admission.foresee(account)
        except AccountDeactivated:
            self._tell("deactivated", f"the account of {account.user_id} is deactivated there")
            raise
        except AccountRefused as error:
            self._tell("refused", f"refuses the name of {account.user_id}: {error.problem}")
            raise
        except HomeserverUnavailable as error:
            self._tell("unavailable", f"is unavailable: {error}")
            raise
        user_id = foreseen.user_id
        if foreseen.account is None:
            self._tell("missing", f"{user_id} does not exist there: this login would make it")
        else:
            self._tell("active", f"{user_id} exists there and is active")
        return foreseen

    def _tell(self, outcome: str, text: str) -> None:
        self._trace.add("homeserver", text, outcome=outcome)


async def foresee_link(links: ILinks, account: Account) -> LinkedLogin:
    """Decide as the store does when it begins the session, changing nothing.

    :raise AccountNotLinked: when the user ID is linked to another account.
    """
    claim, user_id = account.claim, account.user_id
    if claim is None:
        return LinkedLogin(user_id)
    found: list[Link] = []
    for each in dict.fromkeys((await links.linked_user(claim), user_id)):
        link = None if each is None else await links.link_of(each)
        if link is not None:
            found.append(link)
    return linked_login(user_id, claim, found)
