"""What the tests of the web, the site and the commands share."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bcrypt
import yaml
from treq.testing import StubTreq
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from synapse_login_module import testing
from synapse_login_module.accounts.linked import LinkedAccounts
from synapse_login_module.audit import AuditLog
from synapse_login_module.config.settings import SharedConfig
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.login import LoginService
from synapse_login_module.model import AccountStatus, Rate, TokenPolicy
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.stores import MemoryTokenStore
from synapse_login_module.testing import SERVER_NAME, FakeHashing, FakeProvider
from synapse_login_module.web.client import Clients
from synapse_login_module.web.handlers import Endpoints
from synapse_login_module.web.routes import standalone_root
from synapse_login_module.web.site import LoginSite
from tests.support import REPOSITORY

PATIENCE = 600.0
"""Seconds until a program counts as hanging: not for how long one takes on a machine that has much
else to do.
"""

ALICE = f"@alice:{SERVER_NAME}"
ALICE_PASSWORD = "wonderland-of-alice"
LOCKED = f"@larry:{SERVER_NAME}"
LOCKED_PASSWORD = "locked-out-larry"
DEACTIVATED = f"@dora:{SERVER_NAME}"
DEACTIVATED_PASSWORD = "gone-for-good-dora"

STRANGER = IPv4Address("TCP", "203.0.113.9", 50000)

NOBODY_IS_LIMITED = None, None, None


class Switch:
    """Stands in front of a provider or a store, and fails or stalls when it is told to.

    :param behind: who answers otherwise.
    :ivar failure: what every method fails with, while it is set.
    :ivar stalled: while it is a list, every method adds a Deferred to it that nobody fires.
    :ivar cancelled: the methods whose Deferreds were cancelled.
    :ivar only: if not empty, the only methods that fail or stall.
    """

    def __init__(self, behind: Any) -> None:
        self._behind = behind
        self.failure: Exception | None = None
        self.stalled: list[Deferred[Any]] | None = None
        self.only: set[str] = set()
        self.cancelled: list[str] = []

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._behind, name)
        if not callable(attribute) or (self.only and name not in self.only):
            return attribute
        if self.failure is not None:
            failure = self.failure
            return lambda *_, **__: fail(failure)
        if self.stalled is not None:
            stalled = self.stalled

            def stall(*_: Any, **__: Any) -> Deferred[Any]:
                stalled.append(Deferred().addErrback(self._note_cancelled, name))
                return stalled[-1]

            return stall
        return attribute

    def _note_cancelled(self, failure: Failure, name: str) -> Failure:
        if failure.check(CancelledError):
            self.cancelled.append(name)
        return failure


def switch(behind: object) -> Any:
    """A :class:`Switch`, which provides whatever is behind it."""
    return Switch(behind)


class Rig:
    """The service over fakes, and the real resource tree on top of it.

    :param provider: who vouches, in the place of ``accounts``.
    :param requests: how many may be in flight.
    """

    def __init__(
        self,
        *,
        policy: TokenPolicy | None = None,
        rates: tuple[Rate | None, Rate | None, Rate | None] = NOBODY_IS_LIMITED,
        require_access_token: bool = True,
        always_refresh_token: bool = True,
        server_name: str = SERVER_NAME,
        provider: IPasswordProvider | None = None,
        requests: int | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.accounts = FakeProvider(
            {ALICE: ALICE_PASSWORD, LOCKED: LOCKED_PASSWORD, DEACTIVATED: DEACTIVATED_PASSWORD}
        )
        self.accounts.statuses[LOCKED] = AccountStatus.LOCKED
        self.accounts.statuses[DEACTIVATED] = AccountStatus.DEACTIVATED
        self.hashing = FakeHashing()
        self.provider = switch(provider or self.accounts)
        environment = testing.environment(clock=self.clock, policy=policy)
        self.store = switch(MemoryTokenStore(None, environment))
        self.audit = AuditLog()
        service = LoginService(
            accounts=LinkedAccounts(ProviderChain([self.provider], self.hashing), self.store),
            store=self.store,
            hashing=self.hashing,
            limits=LoginLimits(*rates, seconds=self.clock.seconds),
            audit=self.audit,
            always_refresh_token=always_refresh_token,
            patience=3.0,
            clock=self.clock,
        )
        trusted = SharedConfig.model_fields["trusted_proxies"].default
        self.root: Resource = standalone_root(
            Endpoints(service, Clients(trusted), server_name, require_access_token), requests
        )


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        """The body, as JSON."""
        return json.loads(self.body)

    @property
    def errcode(self) -> str:
        """The Matrix error code."""
        errcode: str = self.json["errcode"]
        return errcode

    @property
    def lasting_headers(self) -> frozenset[tuple[bytes, bytes]]:
        """The headers but for the date."""
        return frozenset(
            (name, value)
            for name, values in self.headers.getAllRawHeaders()
            for value in values
            if name != b"Date"
        )

    def header(self, name: str) -> str | None:
        """The one value of a header; ``None`` without it."""
        values = self.headers.getRawHeaders(name)
        if values is None:
            return None
        assert len(values) == 1, f"{name} stands there {len(values)} times"
        return values[0]


def _treq(root: Resource) -> Any:
    return StubTreq(root)


class WebCase(SynchronousTestCase):
    """Asks the real resource tree, in memory."""

    def setUp(self) -> None:
        self.use(Rig())

    def use(self, rig: Rig) -> None:
        """Ask this one from now on."""
        self.rig = rig
        self.treq: Any = _treq(rig.root)

    def begin(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[bytes, bytes] | None = None,
        token: str | None = None,
    ) -> Deferred[Any]:
        """Send a request and wait for nothing."""
        given = Headers({name: [value] for name, value in (headers or {}).items()})
        if token is not None:
            given.addRawHeader(b"Authorization", b"Bearer " + token.encode("utf-8"))
        asked: Deferred[Any] = self.treq.request(
            method, f"http://login.example{path}", headers=given, data=body or None
        )
        return asked

    def read(self, response: Any) -> Reply:
        """The whole of a response."""
        body = self.successResultOf(response.content())
        reply = Reply(response.code, response.headers, body)
        self.assert_common_headers(reply)
        return reply

    def assert_common_headers(self, reply: Reply) -> None:
        """It has what every answer has: a script of any site may read it, and nothing keeps it."""
        self.assertEqual(reply.header("Access-Control-Allow-Origin"), "*")
        self.assertIn("POST", reply.header("Access-Control-Allow-Methods") or "")
        self.assertIn("Authorization", reply.header("Access-Control-Allow-Headers") or "")
        self.assertEqual(reply.header("Cache-Control"), "no-store")

    def ask(
        self,
        method: str,
        path: str,
        payload: object = None,
        *,
        body: bytes = b"",
        headers: Mapping[bytes, bytes] | None = None,
        token: str | None = None,
    ) -> Reply:
        """Send a request; the answer."""
        if payload is not None:
            body = json.dumps(payload).encode("ascii")
        asked = self.begin(method, path, body, headers, token)
        self.treq.flush()
        return self.read(self.successResultOf(asked))

    def log_in(
        self, user: str = "alice", password: str = ALICE_PASSWORD, **more: object
    ) -> dict[str, Any]:
        """Log in, and succeed."""
        payload = {"type": "m.login.password", "user": user, "password": password, **more}
        reply = self.ask("POST", "/_matrix/client/v3/login", payload)
        self.assertEqual(reply.status, 200, reply.body)
        answer: dict[str, Any] = reply.json
        return answer

    def assert_error(self, reply: Reply, status: int, errcode: str) -> None:
        """It is this error, as JSON of the two keys that every Matrix error has."""
        self.assertEqual((reply.status, reply.errcode), (status, errcode), reply.body)
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertIsInstance(reply.json["error"], str)
        self.assertTrue(reply.json["error"])


class Wire:
    """A connection to a site, in memory, byte by byte.

    :param peer: where it comes from.
    """

    def __init__(self, site: LoginSite, peer: IAddress = STRANGER) -> None:
        self.channel = site.buildProtocol(peer)
        self.transport = HalfCloseTransport(peerAddress=peer)
        self.channel.makeConnection(self.transport)
        self._gone = False

    def send(self, data: bytes) -> None:
        """Deliver bytes to the server, as long as it listens."""
        if not self.transport.disconnected:
            self.channel.dataReceived(data)

    def received(self) -> bytes:
        """What the server has sent since the last time."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    @property
    def read_from(self) -> bool:
        """Whether the server reads what is sent to it."""
        return bool(self.transport.producerState == "producing")

    def settle(self) -> bool:
        """Let the server's closing of the connection happen; whether it closed."""
        closing = bool(self.transport.disconnecting or self.transport.disconnected)
        if closing:
            self._lost(ConnectionDone())
        return closing

    def vanish(self) -> None:
        """The client goes away."""
        self._lost(ConnectionLost())

    def _lost(self, reason: Exception) -> None:
        if not self._gone:
            self._gone = True
            self.channel.connectionLost(Failure(reason))


class HalfCloseTransport(StringTransport):
    """A string transport that can be closed for writing alone, and be full, as a TCP connection
    can.

    :ivar write_closed: whether it was closed; what is written later is dropped.
    :ivar full_at: how much may be unread before whoever produces it is paused.
    :ivar full: whether it is.
    """

    write_closed = False
    full_at = 65536
    full = False

    def loseWriteConnection(self) -> None:
        """Say that nothing more will be written."""
        self.write_closed = True

    def write(self, data: bytes) -> None:
        """Take bytes, but not after a close."""
        if self.write_closed:
            return
        super().write(data)
        if self.producer is not None and len(self.value()) > self.full_at:
            self.full = True
            self.producer.pauseProducing()

    def clear(self) -> None:
        """Be read to the end."""
        super().clear()
        if self.full and self.producer is not None:
            self.full = False
            self.producer.resumeProducing()


def responses(data: bytes) -> list[Reply]:
    """The responses that a server wrote, one after the other."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        version, status = start.split(b" ")[:2]
        assert version in (b"HTTP/1.0", b"HTTP/1.1"), start
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(b": ")
            headers.addRawHeader(name, value)
        length = int((headers.getRawHeaders(b"Content-Length") or [b"0"])[0])
        assert len(rest) >= length, data
        found.append(Reply(int(status), headers, rest[:length]))
        data = rest[length:]
    return found


def post(path: str, body: bytes, headers: Sequence[bytes] = ()) -> bytes:
    """The bytes of a POST."""
    return b"\r\n".join(
        [
            b"POST %b HTTP/1.1" % path.encode("ascii"),
            b"Host: login.example",
            b"Content-Length: %d" % len(body),
            *headers,
            b"",
            body,
        ]
    )


def get(path: str, headers: Sequence[bytes] = ()) -> bytes:
    """The bytes of a GET."""
    start = b"GET %b HTTP/1.1" % path.encode("ascii")
    return b"\r\n".join([start, b"Host: login.example", *headers, b"", b""])


def password_hash(password: str) -> str:
    """The cheapest bcrypt hash of a plain password."""
    return bcrypt.hashpw(password.encode("utf-8"), bcrypt.gensalt(4)).decode("ascii")


CHEAP_HASH = password_hash(ALICE_PASSWORD)


def good_config(port: int = 8008) -> dict[str, Any]:
    """A configuration with nothing wrong: one cheap account and no rate limits."""
    return {
        "server_name": SERVER_NAME,
        "listen": [f"tcp:{port}:interface=127.0.0.1"],
        "password_providers": [
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"users": {"alice": {"password_hash": CHEAP_HASH}}},
            }
        ],
        "rate_limits": {"address": None, "account": None, "failed_attempts": None},
        "hashing": {"rounds": 4},
    }


def temporary_folder(case: SynchronousTestCase) -> Path:
    """A folder that trial clears away."""
    folder = Path(case.mktemp()).absolute()
    folder.mkdir()
    return folder


def write_config(folder: Path, config: object) -> Path:
    """Write a configuration file, from a mapping or from YAML text."""
    path = folder / "config.yaml"
    text = config if isinstance(config, str) else yaml.safe_dump(config)
    path.write_text(text, encoding="utf-8")
    return path


@dataclass(frozen=True)
class Broken:
    """A configuration with one thing wrong.

    :param name: what is wrong.
    :param config: the file.
    :param path: where in it; empty when it is the file itself.
    """

    name: str
    config: Path
    path: str


BAD_HASHES = (
    "",
    "ilovebananas",
    "$2b$12$short",
    CHEAP_HASH[:-1],
    CHEAP_HASH + "x",
    CHEAP_HASH[:-1] + "!",
    CHEAP_HASH[:7] + "!" + CHEAP_HASH[8:],
    CHEAP_HASH[:-1] + "\n",
    CHEAP_HASH[:-1] + "é",
    "x" + CHEAP_HASH,
    CHEAP_HASH.replace("$2b$", "$1$"),
    CHEAP_HASH.replace("$04$", "$4$"),
    CHEAP_HASH.replace("$04$", "$+4$"),
    CHEAP_HASH.replace("$04$", "$99$"),
    CHEAP_HASH.replace("$04$", "$\u0660\u0664$"),
    "$argon2id$v=19$m=65536,t=3,p=4$" + "a" * 22 + "$" + "b" * 43,
)
"""What is no bcrypt hash."""


def broken_configs(folder: Path) -> Iterator[Broken]:
    """Configurations that no server starts with, in folders of their own."""
    bcrypt_provider = "synapse_login_module.providers.BcryptProvider"

    def place(name: str) -> Path:
        found = folder / name.replace(" ", "-").replace("/", "-")
        found.mkdir()
        return found

    def changed(name: str, path: str, *files: tuple[str, bytes], **changes: Any) -> Broken:
        here = place(name)
        for file, content in files:
            (here / file).write_bytes(content)
            (here / file).chmod(0o600)
        return Broken(name, write_config(here, {**good_config(), **changes}), path)

    def text(name: str, content: str) -> Broken:
        return Broken(name, write_config(place(name), content), "")

    def provider(**config: Any) -> list[dict[str, Any]]:
        return [{"module": bcrypt_provider, "config": config}]

    yield Broken("no file", place("no file") / "config.yaml", "")
    yield Broken("a folder", place("a folder"), "")
    yield text("no YAML", "server_name: [")
    yield text("no mapping", "- server_name")
    yield text("empty file", "")
    yield text("a key twice", "server_name: a\nlisten: []\nserver_name: b\n")
    yield text("a tag that lies", "server_name: !!bool x\n")
    yield text("another tag that lies", "server_name: !!timestamp x\n")
    yield changed("unknown key", "lisen", lisen=[])
    yield changed("unknown key below", "tokens.keyfile", tokens={"keyfile": "x"})
    yield changed("wrong type", "hashing.queue", hashing={"queue": "64"})
    yield changed("no duration", "tokens.session_lifetime", tokens={"session_lifetime": "1:30"})
    yield changed("no endpoint", "listen.0", listen=["tcp:http"])
    yield changed("no endpoint either", "listen.1", listen=["tcp:8008", "nonsense\nnonsense"])
    key = b"1 " + base64.b64encode(bytes(range(32))) + b"\n"
    for name, content in (
        ("garbage", os.urandom(100)),
        ("text", b"secret\n"),
        ("empty", b""),
        ("a short key", b"1 c2hvcnQ=\n"),
        ("a key twice", key + key),
    ):
        yield changed(f"key file of {name}", "tokens.key_file", ("token.key", content))
    broken = changed("key file for everybody", "tokens.key_file", ("token.key", key))
    broken.config.with_name("token.key").chmod(0o644)
    yield broken
    for name, file in (
        ("key file that is a folder", "."),
        ("key file in no folder", "nowhere/token.key"),
        ("key file below a file", "config.yaml/token.key"),
        ("key file of too long a name", "x" * 300),
        ("key file with NUL", "a\0b"),
    ):
        yield changed(name, "tokens.key_file", tokens={"key_file": file})
    path = "password_providers.0.config.path"
    for name, file in (
        ("no users file", "users.yaml"),
        ("users file that is a folder", "."),
        ("users file below a file", "config.yaml/users.yaml"),
        ("users file of too long a name", "x" * 300),
        ("users file with NUL", "a\0b"),
    ):
        yield changed(name, path, password_providers=provider(path=file))
    for name, content in (
        ("no YAML", b"users: ["),
        ("no mapping", b"[]"),
        ("bytes", b"\xff\xfe\xfd"),
        ("a user twice", b"users: {a: {}, a: {}}"),
        ("a bad hash", b"users: {a: {password_hash: x}}"),
        ("no users", b"user: {}"),
        ("an unknown key", b"users: {a: {password: x}}"),
    ):
        yield changed(
            f"users file with {name}",
            path,
            ("users.yaml", content),
            password_providers=provider(path="users.yaml"),
        )
    yield changed(
        "bad hash",
        "password_providers.0.config.users.alice.password_hash",
        password_providers=provider(users={"alice": {"password_hash": "ilovebananas"}}),
    )
    yield changed(
        "unknown key of the provider",
        "password_providers.0.config.peper",
        password_providers=provider(users={}, peper="x"),
    )
    yield changed("no users at all", "password_providers.0.config", password_providers=provider())
    yield changed(
        "users twice",
        "password_providers.0.config",
        password_providers=provider(users={}, path="users.yaml"),
    )
    for name, module in (
        ("no such module", "synapse_login_module.nowhere.Provider"),
        ("no such class", "synapse_login_module.providers.Nobody"),
        ("no class", "os.path.join"),
        ("no provider", "synapse_login_module.model.Account"),
        ("a store as a provider", "synapse_login_module.stores.MemoryTokenStore"),
        (
            "a provider without configuration",
            "synapse_login_module.providers.wrappers.chain.ProviderChain",
        ),
    ):
        yield changed(name, "password_providers.0.module", password_providers=[{"module": module}])
    for name, module in (
        ("no store", bcrypt_provider),
        ("a store without configuration", "synapse_login_module.stores.derived.DerivedTokenStore"),
    ):
        yield changed(name, "token_store.module", token_store={"module": module})
    sqlite, memory = (
        f"synapse_login_module.stores.{name}" for name in ("SQLiteTokenStore", "MemoryTokenStore")
    )
    for name, module, config, where in (
        ("unknown key of the store", sqlite, {"path": "x", "file": "y"}, ".file"),
        ("unknown key of the other store", memory, {"path": "x"}, ".path"),
        ("no database named", sqlite, {}, ".path"),
        ("database in no folder", sqlite, {"path": "nowhere/x.db"}, ".path"),
        ("database that is a folder", sqlite, {"path": "."}, ".path"),
        ("database of too long a name", sqlite, {"path": "x" * 300}, ".path"),
        ("database with NUL", sqlite, {"path": "a\0b"}, ".path"),
    ):
        yield changed(
            name, f"token_store.config{where}", token_store={"module": module, "config": config}
        )
    yield changed(
        "database of garbage", "token_store.config.path", ("sessions.db", b"no database" * 1000)
    )
    broken = changed("newer database", "token_store.config.path")
    database = sqlite3.connect(broken.config.with_name("sessions.db"))
    database.execute("PRAGMA user_version = 9999")
    database.close()
    yield broken
    example = {"cheeky_monkey": {"password_hash": password_hash("ilovebananas")}}
    for listen in ("tcp:8008", "tcp:8008:interface=0.0.0.0"):
        yield changed(
            f"example account on {listen}",
            "password_providers.0.config",
            listen=["tcp:8009:interface=127.0.0.1", listen],
            password_providers=provider(users=example),
        )


COMMON_MISTAKES = frozenset(
    (
        "no file",
        "no YAML",
        "a key twice",
        "unknown key",
        "wrong type",
        "no duration",
        "no endpoint",
        "key file of garbage",
        "key file for everybody",
        "key file that is a folder",
        "users file that is a folder",
        "bad hash",
        "unknown key of the provider",
        "no such module",
        "no provider",
        "unknown key of the store",
        "newer database",
        "example account on tcp:8008",
    )
)
"""The broken configurations that are also tried with whole processes, which take their time."""


def subprocess_environment() -> dict[str, str]:
    """The environment of a program that is to find the package of this repository."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "100"}


def twistd(config: Path, *, options: Sequence[str] = ()) -> list[str]:
    """The command that runs the server in the foreground."""
    script = Path(sys.executable).with_name("twistd")
    run = [str(script)] if script.exists() else ["-m", "twisted", "twistd"]
    return [
        sys.executable,
        *run,
        "-n",
        "--pidfile=",
        *options,
        "synapse-login",
        "--config",
        str(config),
    ]


def run(command: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in a folder in which nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            env=subprocess_environment(),
            cwd=folder,
            timeout=PATIENCE,
            check=False,
        )


def cli(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of ``synapse-login-module`` to its end."""
    return run([sys.executable, "-m", "synapse_login_module.cli", *arguments], given)


class RunningServer:
    """A server in a process of its own.

    :param config: its configuration file.
    :param port: the loopback port that this makes it listen on.
    :param command: what runs it, when that is another than :func:`twistd`.
    """

    def __init__(self, config: Path, port: int, command: Sequence[str] = ()) -> None:
        self.port = port
        self.log = config.with_name("server.log")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command or twistd(config),
                cwd=config.parent,
                env=subprocess_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until(self._healthy)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def ask(
        self, method: str, path: str, payload: object = None, token: str | None = None
    ) -> tuple[int, Any]:
        """Send a request; the status and the JSON of the answer."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        body = None if payload is None else json.dumps(payload)
        response, content = self._exchange(method, path, body, headers)
        return response.status, json.loads(content)

    def _exchange(
        self, method: str, path: str, body: str | None, headers: Mapping[str, str]
    ) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, quote(path, "/?=&%"), body, headers)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def _healthy(self) -> bool:
        try:
            return self._exchange("GET", "/health", None, {})[0].status == 200
        except (OSError, HTTPException):
            return False

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{self.log.read_text()}")
            time.sleep(0.02)
