"""What a standalone server says of itself in its log, at the start and after a reload."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from twisted.python.systemd import ListenFDs

from synapse_login_module import start_lines
from synapse_login_module.config import listen
from synapse_login_module.standalone.plan import LoadedConfig


class Facts:
    """The facts about a server, by its current configuration.

    :param loaded: the configuration at the start. Nothing listens yet: the descriptors of systemd's
        sockets are closed once something does.
    """

    def __init__(self, loaded: LoadedConfig) -> None:
        self._urls = {each.description: _url(each.description) for each in loaded.config.listeners}

    def of(
        self, loaded: LoadedConfig, accounts: Sequence[int | None] | None = None
    ) -> Sequence[start_lines.Fact]:
        """Return the facts.

        :param loaded: the current configuration.
        :param accounts: how many accounts each password provider has; by default, as many as when
            the configuration was read.
        """
        config = loaded.config
        if accounts is None:
            accounts = start_lines.accounts_at_start(loaded.providers)
        base = None if loaded.homeserver is None else getattr(loaded.homeserver[1], "url", None)
        return [
            start_lines.version(),
            start_lines.listening(
                [self._url(each) for each in config.listen],
                [self._url(each) for each in config.internal_listen],
                config.public_baseurl,
            ),
            start_lines.kept_in(loaded.store),
            start_lines.providers(config.password_providers, loaded.providers, accounts),
            start_lines.homeserver(config.server_name, base, loaded.homeserver is not None),
        ]

    def _url(self, description: str) -> str:
        return self._urls.get(description) or listen.url(description)


def _url(description: str) -> str:
    """Return the URL of an endpoint, also of a socket that systemd opened."""
    kind, *arguments = description.split(":")
    if kind != "systemd":
        return listen.url(description)
    given = dict(each.split("=", 1) for each in arguments if "=" in each)
    inherited = ListenFDs.fromEnvironment()
    try:
        if "index" in given:
            found = inherited.inheritedDescriptors()[int(given["index"])]
        else:
            found = inherited.inheritedNamedDescriptors()[given["name"]]
        with socket.socket(fileno=os.dup(found)) as listening:
            address = listening.getsockname()
    except (LookupError, ValueError, OSError):  # where it listens cannot be told
        return description
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"
