"""Where the links are that an operator looks at or changes, and how sessions end there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim


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

    :param providers: the names of each configured provider, by its name today: that, and those it
        had before.
    :param revoke_all: ends all sessions of a user ID, and says what came of it, for printing.
    :param would_refuse: finds the accounts of the homeserver that a login would not be linked to;
        ``None`` where there is no homeserver.
    """

    links: ILinks
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
