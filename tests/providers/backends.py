"""Backends that tests of the providers start: a service of accounts, and one that misbehaves."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from twisted.internet.defer import maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.providers.case import PASSWORD, SERVER, reactor
from tests.support import REPOSITORY
from tests.support.accounts import ALICE
from tests.support.certificates import Certificate
from tests.support.waiting import until


@dataclass
class Seen:
    """One request that the service had."""

    path: str
    headers: Mapping[str, str]
    body: Any
    connection: int
    method: str


@dataclass
class AccountService:
    """What the tests' HTTP service knows and does.

    :ivar ignores_case: whether it takes a name however its letters are written.
    :ivar by_code: whether it says by 401 alone that a password is wrong.
    :ivar answer: in the place of its own answers: a status and a body.
    :ivar headers: sent with every answer.
    :ivar held: while it is a list, requests go there and stay unanswered.
    :ivar holds: the start of the paths that this holds for.
    """

    passwords: dict[str, str] = field(default_factory=lambda: {ALICE: PASSWORD})
    statuses: dict[str, str] = field(default_factory=lambda: {ALICE: "active"})
    emails: dict[str, str] = field(default_factory=lambda: {"alice@example.com": ALICE})
    phones: dict[str, str] = field(default_factory=lambda: {"447700900123": ALICE})
    profile: dict[str, Any] = field(
        default_factory=lambda: {
            "display_name": "Alice",
            "three_pids": [
                {"medium": "email", "address": "alice@example.com"},
                {"medium": "msisdn", "address": "447700900123"},
            ],
        }
    )
    unknown_code: int | None = None
    ignores_case: bool = False
    by_code: bool = False
    answer: tuple[int, bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    held: list[Request] | None = None
    holds: str = "/"
    seen: list[Seen] = field(default_factory=list)

    def respond(self, path: str, body: Any) -> tuple[int, object]:
        """The status and the JSON of an answer."""
        if path.startswith("/status/"):
            user_id = path.removeprefix("/status/")
            known = self.statuses.get(user_id)
            return (404, {}) if known is None else (200, {"account": {"status": known}})
        if body is None:  # a GET where logins are posted
            return 405, {}
        if path == "/_matrix-internal/identity/v1/check_credentials":
            user_id, password = body["user"]["id"], body["user"]["password"]
            return self._checked(user_id, password)
        if path in ("/login", "/basic"):
            given = body["who"]
            user_id = {**self.emails, **self.phones}.get(given, f"@{given}:{SERVER}")
            return self._checked(user_id, body["secret"])
        return 404, {}

    def _checked(self, user_id: str, password: str) -> tuple[int, object]:
        known = self.passwords.get(user_id.lower() if self.ignores_case else user_id)
        if known is None and self.unknown_code is not None:
            return self.unknown_code, {"error": "no such user"}
        if known != password:
            return (401 if self.by_code else 200), {"auth": {"success": False}}
        return 200, {"auth": {"success": True, "mxid": user_id, "profile": self.profile}}


def body_of(request: Request) -> Any:
    """What a request sends as JSON, as a form, or as the user of Basic authentication."""
    assert request.content is not None
    text = request.content.read()
    kind = request.getHeader("content-type")
    if text and kind == "application/x-www-form-urlencoded":
        given = parse_qsl(text.decode("ascii"), keep_blank_values=True, strict_parsing=True)
        return dict(given)
    if text:
        return json.loads(text)
    scheme, _, pair = (request.getHeader("authorization") or "").partition(" ")
    if scheme == "Basic":
        user, _, password = base64.b64decode(pair, validate=True).decode("utf-8").partition(":")
        return {"who": user, "secret": password}
    return None


class ServiceResource(Resource):
    """Serves an :class:`AccountService`."""

    isLeaf = True

    def __init__(self, service: AccountService) -> None:
        super().__init__()
        self._service = service

    def render(self, request: Request) -> Any:
        """Answer."""
        service = self._service
        body = body_of(request)
        path = unquote(request.path.decode("ascii"))
        headers = {
            name.decode().lower(): values[-1].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        service.seen.append(Seen(path, headers, body, id(request.channel), request.method.decode()))
        for name, value in service.headers.items():
            request.setHeader(name, value)
        if service.held is not None and path.startswith(service.holds):
            service.held.append(request)
            return NOT_DONE_YET
        if service.answer is not None:
            code, answer = service.answer
        else:
            code, given = service.respond(path, body)
            answer = json.dumps(given).encode()
        request.setResponseCode(code)
        return answer


class QuietSite(Site):
    """A site that writes nothing, and knows its connections."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource)
        self.channels: set[Any] = set()

    def buildProtocol(self, addr: Any) -> Any:
        """Keep the connection in mind."""
        channel: Any = super().buildProtocol(addr)
        self.channels.add(channel)
        lost = channel.connectionLost

        def connection_lost(reason: Any) -> None:
            self.channels.discard(channel)
            lost(reason)

        channel.connectionLost = connection_lost
        return channel

    def log(self, request: Any) -> None:
        """Write nothing."""


class HTTPBackend:
    """A service on a socket of this process.

    :param tls: the context factory of a server, for TLS.
    :param interface: the address that it listens on.
    :ivar port: where it listens; the same again when it is started again.
    """

    def __init__(self, tls: Any = None, port: int = 0, interface: str = "127.0.0.1") -> None:
        self.service = AccountService()
        self.site = QuietSite(ServiceResource(self.service))
        self._tls = tls
        self._interface = interface
        self.port = port
        self.start()

    @property
    def url(self) -> str:
        """The root of its URLs."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        if self._tls is None:
            self._listening = reactor.listenTCP(self.port, self.site, interface=self._interface)
        else:
            self._listening = reactor.listenSSL(
                self.port, self.site, self._tls, interface=self._interface
            )
        self.port = self._listening.getHost().port

    async def stop(self) -> None:
        """Listen no more, and cut every connection."""
        await maybeDeferred(self._listening.stopListening)
        self.cut()
        await until(lambda: not self.site.channels)

    def cut(self) -> None:
        """Cut every connection."""
        for channel in list(self.site.channels):
            channel._channel.transport.abortConnection()


class WildServer:
    """``tests.providers.wildserver`` in a process of its own.

    :param mode: the way in which it misbehaves.
    :param certificate: its certificate, for TLS.
    """

    def __init__(self, mode: str, folder: Path, certificate: Certificate | None = None) -> None:
        self._log = folder / f"{mode}.log"
        self._tls = [] if certificate is None else [*map(str, certificate.write(folder))]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.providers.wildserver", mode, *self._tls],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self._log.read_text())
        self.port = int(line)

    @property
    def url(self) -> str:
        """The root of its URLs."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def said(self) -> str:
        """What it wrote about its connections."""
        return self._log.read_text()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
