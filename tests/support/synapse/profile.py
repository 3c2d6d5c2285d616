"""How a Synapse of the tests is set up: its accounts, and what differs from one to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.configuration import password_hash

SERVER_NAME = "hs.example"
REGISTRATION_SECRET = "registration-secret-of-the-tests"
FAULTY = "tests.synapse.faults.FaultyProvider"
BCRYPT = "synapse_login_module.providers.BcryptProvider"

PASSWORD = "wonderland-of-the-tests"
"""The password of every account in :data:`USERS`."""

LATER_PASSWORD = "known-to-the-later-module"
"""The password that :class:`tests.synapse.modules.LaterModule` takes for every user."""

_HASH = password_hash(PASSWORD)


def user(**more: Any) -> dict[str, Any]:
    """An entry of the users file, with :data:`PASSWORD`."""
    return {"password_hash": _HASH, **more}


USERS: Mapping[str, Mapping[str, Any]] = {
    "alice": user(display_name="Alice", emails=["alice@example.com"], phones=["447700900123"]),
    "bob": user(),
    "lock": user(locked=True),
    "gone": user(deactivated=True),
}


@dataclass(frozen=True)
class Profile:
    """How a Synapse is set up.

    :param name: for messages, and to tell profiles apart.
    :param module: laid over the module's configuration; ``None`` for no module.
    :param synapse: laid over homeserver.yaml.
    :param users: what the users file holds at the start.
    :param module_listener: laid over the module's listener, as ``{"x_forwarded": True}``.
    :param client_listener: laid over Synapse's own.
    :param more_modules: further entries of ``modules:``, after ours.
    :param postgres: whether the database is PostgreSQL and not SQLite.
    :param worker: whether there is a generic worker too, which needs PostgreSQL.
    :param environment: further variables for the processes.
    :param files: what further files in its folder hold, by name.
    """

    name: str
    module: Mapping[str, Any] | None = field(default_factory=dict)
    synapse: Mapping[str, Any] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: USERS)
    module_listener: Mapping[str, Any] = field(default_factory=dict)
    client_listener: Mapping[str, Any] = field(default_factory=dict)
    more_modules: Sequence[Mapping[str, Any]] = ()
    postgres: bool = False
    worker: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
