"""Server administrators among linked accounts: those that providers name, and all others."""

from __future__ import annotations

from twisted.logger import Logger

from synapse_login_module.model import Claim
from synapse_login_module.synapse import admin_rows, link_rows, user_tables
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.tables import TokenRows


class Administrators:
    """Makes linked accounts server administrators and takes that away, as their providers say.

    What this package has given is noted, and only that is taken away. The note comes first,
    since an administrator without one stays one for good.

    All methods run on Synapse's side of the crossing.

    :param homeserver: the way into Synapse.
    """

    log = Logger()

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self._known: set[str] = set()

    async def watch(self, user_id: str) -> None:
        """Log a warning when a linked account becomes a server administrator."""
        is_admin = await self._homeserver.is_administrator(user_id)
        if is_admin == (user_id in self._known):
            return

        def work(rows: TokenRows) -> bool:
            return link_rows.set_admin(rows, user_id, is_admin)

        changed = await self._homeserver.transaction("synapse_login_admin", work)
        if is_admin:
            self._known.add(user_id)
        else:
            self._known.discard(user_id)
        if changed and is_admin:
            self.log.warn(
                "{user_id} is linked to an account of a password provider, and has become a server"
                " administrator: anyone who sets passwords there can log in as it",
                user_id=user_id,
            )

    async def settle(self, user_id: str, claim: Claim, admin: bool | None) -> None:
        """Act on what a login's provider says; see
        :attr:`~synapse_login_module.model.Account.admin`.
        """
        if admin is None:
            return
        if admin:
            await self._give(user_id, claim)
        elif await self._homeserver.is_administrator(user_id) and await self._is_made(user_id):
            await self.take(user_id, "its provider says that it is none")

    async def take(self, user_id: str, reason: str) -> None:
        """Take away what this package has given.

        :param reason: why, for the log.
        """
        await self._homeserver.set_administrator(user_id, False)
        await self.forget(user_id)
        self.log.warn(
            "{user_id} is no longer a server administrator: {reason}",
            user_id=user_id,
            reason=reason,
        )

    async def forget(self, user_id: str) -> None:
        """Forget that an account was made an administrator that is none any more."""

        def work(rows: TokenRows) -> None:
            # A login may have given it again meanwhile.
            if admin_rows.delete_made(rows, user_id):
                link_rows.set_admin(rows, user_id, False)

        await self._homeserver.transaction("synapse_login_no_admin", work)

    async def _is_made(self, user_id: str) -> bool:
        return await self._homeserver.transaction(
            "synapse_login_is_made", lambda rows: admin_rows.is_made(rows, user_id)
        )

    async def _give(self, user_id: str, claim: Claim) -> None:
        now = self._homeserver.now()

        def work(rows: TokenRows) -> bool:
            # Synapse may not know yet, or have in its cache, what its database holds.
            standing = user_tables.standing(rows, user_id)
            is_admin = standing is not None and standing.is_admin
            if is_admin and not admin_rows.is_made(rows, user_id):
                return False  # it is one for another reason, and stays one
            if not link_rows.is_unchanged(rows, user_id, claim):
                return False
            admin_rows.insert_made(rows, user_id, claim, now)
            link_rows.set_admin(rows, user_id, True)
            return not is_admin

        if await self._homeserver.transaction("synapse_login_make_admin", work):
            await self._homeserver.set_administrator(user_id, True)
            # The watch may have found the note of an account that was no administrator yet, and
            # forgotten it.
            await self._homeserver.transaction(
                "synapse_login_made_admin",
                lambda rows: admin_rows.insert_made(rows, user_id, claim, now),
            )
            self.log.warn(
                "{user_id} is a server administrator now: {provider} says that {subject} is one",
                user_id=user_id,
                subject=ascii(claim.subject),
                provider=claim.provider,
            )
