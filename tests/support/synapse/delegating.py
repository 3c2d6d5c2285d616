"""Sets up a real Synapse that delegates authentication, and asks it what is in it.

Use it from a trial test so::

    from tests.support.ports import free_port
    from tests.support.synapse.delegating import SECRET_FILE, delegating
    from tests.support.synapse.server import shared

    ENDPOINT_PORT = free_port()
    PROFILE = delegating("mine", ENDPOINT_PORT)

    class FooTests(TestCase):
        async def setUp(self) -> None:
            self.synapse = await shared(PROFILE)        # skips when there is no matrix-synapse
            self.synapse.client_url                     # Synapse's own listener
            self.synapse.folder / SECRET_FILE           # a file for homeserver.config.secret_file

``http://127.0.0.1:ENDPOINT_PORT`` is the service that Synapse delegates to: it asks there about
access tokens (``POST /oauth2/introspect``) and for the metadata (``GET
/.well-known/openid-configuration``). Synapse starts without it, and asks when it first needs it.
Choose the port once for the profile, as the server is shared, and have the service under test
listen there (``internal_listen``). Where nothing listens, Synapse answers 503 to every token of a
user, and goes on answering the calls at ``/_synapse/mas``.

Synapse has no passwords, no registration and no login of its own then. So ``register`` of the
server does not work; :func:`make_user` makes an account as the service does. Users'
tokens are those that the service says are active. :func:`devices_of`, :func:`display_name_of` and
:func:`is_deactivated` read Synapse's database.

An application service is a further file of the profile::

    delegating("bridged", PORT, application_services=[application_service("bridge", "bridge_.*")])

Its ``as_token`` is :data:`AS_TOKEN`. With ``worker=True`` there is a generic worker too, on
``worker_client_url``, with PostgreSQL and Redis. It serves ``/_synapse/mas`` as well. Each process
has its own cache of tokens.

Further keys of homeserver.yaml are given as ``synapse``, such as ``{"modules": [{"module": …}]}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from twisted.internet.threads import deferToThread

from tests.support.http import ask
from tests.support.process import StartError
from tests.support.synapse.profile import SERVER_NAME, Profile
from tests.support.synapse.server import SynapseServer

SECRET = "secret-of-the-delegation-in-tests"
"""What Synapse and the service that it delegates to share."""

SECRET_FILE = "mas.secret"
"""The file with :data:`SECRET`, in the folder of Synapse's files."""

AS_TOKEN = "as-token-of-the-tests"


def delegating(
    name: str,
    endpoint_port: int,
    *,
    worker: bool = False,
    postgres: bool = False,
    application_services: Sequence[Mapping[str, Any]] = (),
    synapse: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> Profile:
    """Return the profile of a Synapse that delegates authentication.

    :param name: the profile's unique name.
    :param endpoint_port: the loopback port of the service that it delegates to.
    :param worker: whether there is a generic worker too.
    :param postgres: whether the database is PostgreSQL, as it always is with a worker.
    :param application_services: registrations, as of :func:`application_service`.
    :param synapse: further keys of homeserver.yaml.
    :param files: the contents of further files in its folder, by name.
    """
    registrations = {f"{each['id']}.yaml": yaml.safe_dump(each) for each in application_services}
    return Profile(
        name,
        module=None,
        synapse={
            "password_config": {"enabled": False},
            "enable_registration": False,
            "login_via_existing_session": {"enabled": False},
            "matrix_authentication_service": {
                "enabled": True,
                "endpoint": f"http://127.0.0.1:{endpoint_port}",
                "secret_path": SECRET_FILE,
            },
            "app_service_config_files": list(registrations),
            **(synapse or {}),
        },
        postgres=postgres,
        worker=worker,
        files={SECRET_FILE: f"{SECRET}\n", **registrations, **(files or {})},
    )


def application_service(
    name: str, users: str, *, as_token: str = AS_TOKEN, exclusive: bool = True
) -> dict[str, Any]:
    """Return the registration of an application service, whose sender is ``name``.

    It has no URL, so Synapse sends it nothing.

    :param users: the regular expression of the local parts of its users.
    :param exclusive: whether nobody else may have these names.
    """
    namespace = {"regex": f"@{users}:{SERVER_NAME}", "exclusive": exclusive}
    return {
        "id": name,
        "url": None,
        "as_token": as_token,
        "hs_token": f"hs-token-of-{name}",
        "sender_localpart": name,
        "namespaces": {"users": [namespace], "aliases": [], "rooms": []},
    }


async def call(
    server: SynapseServer, method: str, path: str, body: object = None, token: str = SECRET
) -> tuple[int, bytes]:
    """Send Synapse a request, by default as the service does; return status and body.

    :param path: with its query.
    """
    return await deferToThread(ask, server.client_port, method, path, body, token)


async def make_user(server: SynapseServer, localpart: str, **more: Any) -> str:
    """Make an account; return its user ID.

    :param more: further keys of ``provision_user``, such as ``set_displayname``.
    """
    body = {"localpart": localpart, **more}
    await _done(server, "/_synapse/mas/provision_user", body, 201)
    return f"@{localpart}:{SERVER_NAME}"


async def deactivate(server: SynapseServer, localpart: str) -> None:
    """Deactivate an account."""
    body = {"localpart": localpart, "erase": False}
    await _done(server, "/_synapse/mas/delete_user", body, 200)


def devices_of(server: SynapseServer, user_id: str) -> dict[str, str | None]:
    """Return the display names of a user's devices, by device ID."""
    rows = server.query(
        "SELECT device_id, display_name FROM devices WHERE user_id = ? AND NOT hidden", user_id
    )
    return dict(rows)


def display_name_of(server: SynapseServer, user_id: str) -> str | None:
    """Return the display name of an account; ``None`` also when there is no account."""
    rows = server.query("SELECT displayname FROM profiles WHERE full_user_id = ?", user_id)
    return rows[0][0] if rows else None


def is_deactivated(server: SynapseServer, user_id: str) -> bool:
    """Return whether an account is deactivated."""
    ((deactivated,),) = server.query("SELECT deactivated FROM users WHERE name = ?", user_id)
    return bool(deactivated)


async def _done(server: SynapseServer, path: str, body: object, wanted: int) -> None:
    status, content = await call(server, "POST", path, body)
    if status != wanted:
        raise StartError(f"{path}: {status} {content!r}")
