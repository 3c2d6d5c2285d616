"""The set-up of a Synapse in tests: its accounts, and settings that differ between tests."""

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
    """Return an entry of the users file, with :data:`PASSWORD`."""
    return {"password_hash": _HASH, **more}


USERS: Mapping[str, Mapping[str, Any]] = {
    "alice": user(display_name="Alice", emails=["alice@example.com"], phones=["447700900123"]),
    "bob": user(),
    "lock": user(locked=True),
    "gone": user(deactivated=True),
}


@dataclass(frozen=True)
class Profile:
    """The set-up of a Synapse.

    :param name: the profile's unique name, also for messages.
    :param module: keys to add to the module's configuration; ``None`` for no module.
    :param synapse: keys to add to homeserver.yaml.
    :param users: the content of the users file at the start.
    :param module_listener: keys to add to the module's listener, such as ``{"x_forwarded": True}``.
    :param client_listener: keys to add to Synapse's own listener.
    :param modules_before: further entries of ``modules:``, before ours.
    :param more_modules: further entries of ``modules:``, after ours.
    :param postgres: whether the database is PostgreSQL and not SQLite.
    :param worker: whether there is a generic worker too, which needs PostgreSQL.
    :param environment: further environment variables of the processes.
    :param files: the contents of further files in its folder, by name.
    """

    name: str
    module: Mapping[str, Any] | None = field(default_factory=dict)
    synapse: Mapping[str, Any] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: USERS)
    module_listener: Mapping[str, Any] = field(default_factory=dict)
    client_listener: Mapping[str, Any] = field(default_factory=dict)
    modules_before: Sequence[Mapping[str, Any]] = ()
    more_modules: Sequence[Mapping[str, Any]] = ()
    postgres: bool = False
    worker: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
