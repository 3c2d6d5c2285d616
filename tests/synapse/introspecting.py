"""A login service as a delegating Synapse sees it: metadata, and introspections of tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs

from tests.support.synapse.profile import Profile
from tests.support.waiting import TIMEOUT

SECRET = "secret-shared-with-the-login-service"

SECRET_FILE = "service.secret"


def delegating(name: str, port: int, *, module: Mapping[str, Any] | None, **more: Any) -> Profile:
    """Return the profile of a Synapse that delegates to a service on a loopback port.

    :param module: the module's whole configuration; ``None`` for no module.
    :param more: further fields of the profile; ``synapse`` is laid over homeserver.yaml.
    """
    ours = {"module": "synapse_login_module.SynapseLoginModule", "config": dict(module or {})}
    synapse = {
        "password_config": {"enabled": False},
        "login_via_existing_session": {"enabled": False},
        "matrix_authentication_service": {
            "enabled": True,
            "endpoint": f"http://127.0.0.1:{port}",
            "secret_path": SECRET_FILE,
        },
        "modules": [] if module is None else [ours],
        **more.pop("synapse", {}),
    }
    files = {SECRET_FILE: f"{SECRET}\n"}
    return Profile(name, module=None, synapse=synapse, files=files, **more)


class LoginService:
    """The service. It runs in threads of its own and closes each connection after one response, so
    it leaves nothing behind in the reactor, and nothing in Synapse's pool of connections.

    :ivar asked: how often each token was introspected.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._answers: dict[str, dict[str, Any]] = {}
        self._held: dict[str, Event] = {}
        self._server: ThreadingHTTPServer | None = None

    def listen(self, port: int) -> None:
        """Listen on a loopback port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, self))
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening, and wait until every answer has been sent."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def activate(self, token: str, localpart: str, device_id: str) -> None:
        """Say from now on that a token is a device's."""
        self._answers[token] = {
            "active": True,
            "scope": "urn:matrix:client:api:*",
            "username": localpart,
            "device_id": device_id,
            "expires_in": 300,
        }

    def deactivate(self, token: str) -> None:
        """Say from now on that a token is inactive."""
        del self._answers[token]

    def hold(self, token: str) -> Event:
        """Hold back the answer to the next introspection of a token. It says what is true when the
        request comes.

        :return: set it to send the answer.
        """
        self._held[token] = held = Event()
        return held

    def introspect(self, token: str) -> dict[str, Any]:
        """Return what is known of a token; called in a thread."""
        answer = self._answers.get(token, {"active": False})
        held = self._held.pop(token, None)
        self.asked[token] += 1
        if held is not None and not held.wait(TIMEOUT):
            raise AssertionError(f"{token} is held for ever")
        return answer


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, service: LoginService, *arguments: Any) -> None:
        self._service = service
        super().__init__(*arguments)

    def do_GET(self) -> None:
        metadata = {
            "issuer": "https://service.example/",
            "account_management_uri": "https://service.example/account",
        }
        is_metadata = self.path == "/.well-known/openid-configuration"
        self._respond(200 if is_metadata else 404, metadata if is_metadata else {})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode("ascii"))
        if self.path != "/oauth2/introspect":
            self._respond(404, {})
        elif self.headers["Authorization"] != f"Bearer {SECRET}":
            self._respond(403, {})
        else:
            self._respond(200, self._service.introspect(form["token"][0]))

    def _respond(self, status: int, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode("ascii")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing, since standard error is the test's."""
