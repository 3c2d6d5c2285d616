"""Access to the links for an operator's commands, and to the sessions that end with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.accounts.names import FindUsers, the_one, user_id_of
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import MAX_USER_ID, Claim, Link, UserId, fold, localpart_from
from synapse_login_module.providers.identifiers import subject_as_typed


class RefusedLink(NamedTuple):
    """An account of the homeserver that a login by the same name would not be linked to.

    :param user_id: the account.
    :param provider: the provider that knows the name. A ``?`` follows when the provider cannot say
        so without a password.
    :param problem: why the account would not be linked.
    :param setting: the setting or command that would allow it.
    """

    user_id: str
    provider: str
    problem: str
    setting: str


Count = Callable[[int], Callable[[int], None]]
"""Called with how many there are to do; returns what is called with how many more are done."""


@dataclass(frozen=True)
class LinkPlace:
    """The links of a token store or of a homeserver, as the operator's commands need them.

    :param links: the links.
    :param server_name: the server name of the user IDs.
    :param find_users: finds the user IDs that an operator means.
    :param providers: by the current name of each configured provider, that name and its former
        ones.
    :param revoke_all: ends all sessions of a user ID, and returns a line to print.
    :param would_refuse: lists the accounts of the homeserver that a login would not be linked to;
        ``None`` where there is no homeserver. It is called with what counts the accounts.
    """

    links: ILinks
    server_name: str
    find_users: FindUsers
    providers: Mapping[str, tuple[str, ...]]
    revoke_all: Callable[[str], Awaitable[str]]
    would_refuse: Callable[[Count], Awaitable[list[RefusedLink]]] | None = None

    def claim(self, provider: str, subject: str) -> Claim:
        """Return the claim of a provider's account.

        :param provider: the provider's current name.
        :param subject: the account's subject there, as an operator writes it.
        :raise ConfigError: when no provider of this name is configured.
        """
        if provider not in self.providers:
            known = ", ".join(self.providers)
            raise ConfigError("", f"no password provider is called {provider}; there is {known}")
        return Claim(self.providers[provider], subject_as_typed(subject))

    async def user_to_link(self, given: str) -> str:
        """Return the user ID for a new link: the one that is found, or else the one that the first
        login would make.

        :param given: what the operator typed.
        :raise ConfigError: when several are found, or it is of another server, or no account can
            have that user ID.
        """
        found = await self.find_users(given)
        one = the_one(given, found, self.server_name)
        if one is not None:
            return one
        user_id = fold(user_id_of(given, self.server_name))
        localpart = UserId.parse(user_id, self.server_name).localpart
        if localpart_from(localpart) is None or len(user_id) > MAX_USER_ID:
            raise ConfigError("", f"{ascii(user_id)[1:-1]} is no valid user ID")
        return user_id

    async def links_of(self, given: str) -> list[Link]:
        """Return the links of the users that the operator means.

        :param given: what the operator typed.
        :raise ConfigError: when there is no link.
        """
        found = [await self.links.link_of(user_id) for user_id in await self.find_users(given)]
        links = [each for each in found if each is not None]
        if not links:
            raise ConfigError("", f"{user_id_of(given, self.server_name)} is not linked")
        return links

    async def the_link_of(self, given: str) -> Link:
        """Return the one link of the user that the operator means.

        :param given: what the operator typed.
        :raise ConfigError: when there is no link, or when there are several.
        """
        links = {each.user_id: each for each in await self.links_of(given)}
        one = the_one(given, list(links), self.server_name)
        assert one is not None
        return links[one]
