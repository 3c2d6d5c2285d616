"""Looks at the accounts that providers have made server administrators, between their logins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.interfaces import INamesAdministrators
from synapse_login_module.model import Link
from synapse_login_module.synapse import admin_rows
from synapse_login_module.synapse.admin_rows import MadeAdministrator
from synapse_login_module.synapse.administrators import Administrators
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.rounds import Rounds

_LONGEST_PERIOD = 60.0


class AdministratorWatch(Rounds):
    """A service that takes away what this package has given, when a provider says so or the link
    by which it was given is gone. An outage, or an account that is not there, changes nothing.

    There are few such accounts, so all of them are looked at once a minute or more often.

    :param homeserver: the way into Synapse's main process.
    :param administrators: takes away.
    :param providers: the providers, by each of their names, current and former.
    :param interval: the most seconds between two rounds.
    :param clock: runs the rounds.
    """

    log = Logger()

    def __init__(
        self,
        homeserver: Homeserver,
        administrators: Administrators,
        providers: Mapping[str, object],
        interval: float,
        clock: IReactorTime,
    ) -> None:
        self._period = min(interval, _LONGEST_PERIOD)
        super().__init__("at administrators", self._look_at_all, self._period, clock)
        self._homeserver = homeserver
        self._administrators = administrators
        self._providers = providers
        self._unnamed: set[str] = set()

    async def _look_at_all(self) -> float:
        """Look at all of them; return the seconds until the next round."""
        server = self._homeserver
        made = await server.call_in_background(
            server.transaction, "synapse_login_admins", admin_rows.made_administrators
        )
        for each in made:
            user_id = each.given.user_id
            try:
                await self._look_at_one(each)
            except ProviderUnavailable:
                continue
            except StoreUnavailable:
                raise
            except Exception:  # of a third-party provider, or of Synapse; the others come next
                self.log.failure("cannot look at the administrator {user_id}", user_id=user_id)
        return self._period

    async def _look_at_one(self, made: MadeAdministrator) -> None:
        server, user_id = self._homeserver, made.given.user_id
        if not made.is_admin:  # another administrator has taken it away
            await server.call_in_background(self._administrators.forget, user_id)
            return
        reason = await self._reason_to_take(made)
        if reason is not None:
            await server.call_in_background(self._administrators.take, user_id, reason)

    async def _reason_to_take(self, made: MadeAdministrator) -> str | None:
        """Say why an account is to be no administrator any more; ``None`` if it stays one."""
        given, link = made.given, made.link
        if link is None or not self._are_of_one(link, given):
            return "it is not linked any more to the account that it was made one for"
        provider: Any = self._providers.get(given.provider)
        if not INamesAdministrators.providedBy(provider) or not provider.names_administrators:
            self._warn_unnamed(given.user_id, given.provider)
            return None
        self._unnamed.discard(given.user_id)
        answer = provider.is_administrator(given.subject)
        answer.addTimeout(_LONGEST_PERIOD, self._clock)
        return "its provider says that it is none" if await answer is False else None

    def _are_of_one(self, one: Link, other: Link) -> bool:
        """Say whether two links are to one account, whose provider may have had another name."""
        providers = self._providers.get(one.provider), self._providers.get(other.provider)
        is_same = one.provider == other.provider or (
            providers[0] is not None and providers[0] is providers[1]
        )
        return is_same and one.subject == other.subject

    def _warn_unnamed(self, user_id: str, provider: str) -> None:
        if user_id not in self._unnamed:
            self._unnamed.add(user_id)
            self.log.warn(
                "{user_id} stays a server administrator: {provider} made it one, and does not say"
                " any more who is (admin_group)",
                user_id=user_id,
                provider=provider,
            )
