"""Where the links are that an operator looks at or changes, and how sessions end there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.accounts.names import FindUsers, the_one, user_id_of
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, Link, fold


class RefusedLink(NamedTuple):
    """An account that a login of the same name would not be linked to.

    :param provider: who knows the name; with ``?`` behind it where that cannot be told without a
        password.
    :param problem: why it would not be linked.
    :param setting: what would change that.
    """

    user_id: str
    provider: str
    problem: str
    setting: str


@dataclass(frozen=True)
class LinkPlace:
    """Where links are.

    :param find_users: finds whom the operator names.
    :param providers: the names of each configured provider, by its name today: that, and those it
        had before.
    :param revoke_all: ends all sessions of a user ID, and says what came of it, for printing.
    :param would_refuse: finds the accounts of the homeserver that a login would not be linked to;
        ``None`` where there is no homeserver.
    """

    links: ILinks
    server_name: str
    find_users: FindUsers
    providers: Mapping[str, tuple[str, ...]]
    revoke_all: Callable[[str], Awaitable[str]]
    would_refuse: Callable[[], Awaitable[list[RefusedLink]]] | None = None

    def claim(self, provider: str, subject: str) -> Claim:
        """What a configured provider's account is linked by.

        :raise ConfigError: when no such provider is configured.
        """
        if provider not in self.providers:
            known = ", ".join(self.providers)
            raise ConfigError("", f"no password provider is called {provider}; there is {known}")
        return Claim(self.providers[provider], subject)

    async def user_to_link(self, given: str) -> str:
        """The user ID that a new link is of: one that there is, or the one of the first login."""
        found = await self.find_users(given)
        one = the_one(given, found, self.server_name)
        return one or fold(user_id_of(given, self.server_name))

    async def links_of(self, given: str) -> list[Link]:
        """The links of whom the operator names.

        :raise ConfigError: when there is none.
        """
        found = [await self.links.link_of(user_id) for user_id in await self.find_users(given)]
        links = [each for each in found if each is not None]
        if not links:
            raise ConfigError("", f"{user_id_of(given, self.server_name)} is not linked")
        return links

    async def the_link_of(self, given: str) -> Link:
        """The one link of whom the operator names.

        :raise ConfigError: when there is none, or are several.
        """
        links = {each.user_id: each for each in await self.links_of(given)}
        one = the_one(given, list(links), self.server_name)
        assert one is not None
        return links[one]
