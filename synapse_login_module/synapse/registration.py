"""Registers accounts in Synapse, and copies profiles to them."""

from __future__ import annotations

from typing import Protocol

from synapse.module_api import UserID
from synapse.module_api.errors import SynapseError
from twisted.logger import Logger

from synapse_login_module.errors import AccountRefused, InvalidCredentials
from synapse_login_module.model import Account, Claim, UserId
from synapse_login_module.synapse import link_rows
from synapse_login_module.synapse.addresses import Addresses
from synapse_login_module.synapse.api import Homeserver, refused
from synapse_login_module.synapse.linking import ToRegister

_NO_NAME = ("M_INVALID_USERNAME", "M_EXCLUSIVE")
"""The error codes with which Synapse refuses to register a name at all."""


class Registers(Protocol):
    """What a login does to accounts of the homeserver."""

    async def register(self, account: Account, claim: Claim, wanted: ToRegister) -> bool:
        """Register an account and confirm its link; ``False`` when another login was faster."""

    async def synchronize(self, user_id: str, account: Account) -> None:
        """Copy display name and e-mail addresses to an account."""


class Registration:
    """Has Synapse register accounts. All methods run on Synapse's side of the crossing.

    :param homeserver: the way into Synapse.
    """

    log = Logger()

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self._addresses = Addresses(homeserver)

    async def register(self, account: Account, claim: Claim, wanted: ToRegister) -> bool:
        """Register an account and confirm its link; ``False`` when another login was faster."""
        api, user_id = self._homeserver.api, wanted.user_id
        try:
            # Without addresses: Synapse would take them away from other accounts that have them.
            await api.register_user(UserId.parse(user_id, "").localpart, account.display_name, [])
        except Exception as error:
            if isinstance(error, SynapseError) and error.errcode == "M_USER_IN_USE":
                # Another login of the same person may have just registered it, so the pending link
                # stays.
                return False
            if wanted.since is not None:
                since = wanted.since
                await self._homeserver.transaction(
                    "synapse_login_let_go",
                    lambda rows: link_rows.delete_pending(rows, user_id, since),
                )
            if not isinstance(error, SynapseError):
                raise
            if error.errcode in _NO_NAME:
                self.log.warn(
                    "{user_id} of {provider} cannot be registered: {problem}",
                    user_id=user_id,
                    provider=claim.provider,
                    problem=error.msg,
                )
            raise not_registered(error) from None
        now = self._homeserver.now()
        confirmed = await self._homeserver.transaction(
            "synapse_login_confirm",
            lambda rows: link_rows.confirm_link(rows, user_id, claim, now),
        )
        self.log.info("registered {user_id} for {name}", user_id=user_id, name=account.provider)
        await self._addresses.add_emails(user_id, account.emails)
        return confirmed

    async def synchronize(self, user_id: str, account: Account) -> None:
        """Copy display name and e-mail addresses to an account."""
        api = self._homeserver.api
        profile = await api.get_profile_for_user(UserId.parse(user_id, "").localpart)
        if account.display_name and profile.display_name != account.display_name:
            await api.set_displayname(UserID.from_string(user_id), account.display_name)
        await self._addresses.add_emails(user_id, account.emails)


def not_registered(error: SynapseError) -> InvalidCredentials | AccountRefused:
    """Return the error of a login whose account Synapse does not register."""
    return InvalidCredentials("bad_user_id") if error.errcode in _NO_NAME else refused(error)
