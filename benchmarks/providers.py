"""``python -m benchmarks.providers``: logins a second by each provider and by its backend alone.

Each row alternates between the provider and its yardstick on the same backend. The result is the
median of the rounds' ratios. Where bcrypt is the bottleneck, the yardstick is bcrypt on all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

from treq.client import HTTPClient
from twisted.application.service import IService
from twisted.cred.checkers import FilePasswordDB
from twisted.cred.credentials import UsernamePassword
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import react
from twisted.trial.unittest import SkipTest
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import Request

from benchmarks.bare import QuietSite
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import UserId, UserIdentifier
from synapse_login_module.passwords import HashingPool, check_password, hash_password
from synapse_login_module.providers.cred import CredProvider
from synapse_login_module.providers.files.htpasswd import HtpasswdProvider
from synapse_login_module.providers.files.passwd import PasswdProvider
from synapse_login_module.providers.http.provider import HTTPProvider
from synapse_login_module.providers.sql.provider import SQLProvider
from synapse_login_module.testing import SERVER_NAME, environment
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL

reactor = cast(Any, global_reactor)

ALICE = UserIdentifier(UserId("alice", SERVER_NAME))
ALICE_ID = str(ALICE)
PASSWORD = "wonderland"
CONCURRENCY = 16
CONNECTIONS = 4
CORES = len(os.sched_getaffinity(0))
CHECK_PATH = "/_matrix-internal/identity/v1/check_credentials"

_SELECT = "SELECT name AS localpart, hash AS password_hash FROM accounts WHERE name = "
_BODY = json.dumps({"user": {"id": ALICE_ID, "password": PASSWORD}}).encode("ascii")
_TABLE = "CREATE TABLE accounts (name TEXT PRIMARY KEY, hash TEXT)"

Ask = Callable[[], "Deferred[Any]"]
Yardstick = Callable[[int], "float | Awaitable[float]"]


@dataclass(frozen=True)
class Size:
    """The size of the measurements.

    :param rounds: the number of rounds of each comparison.
    :param seconds: the approximate time of one side of a round.
    :param cost: the cost of the bcrypt hashes.
    """

    rounds: int
    seconds: float
    cost: int


class Accounts(Resource):
    """A minimal HTTP service: it reads JSON, compares the password and responds with JSON.

    :param password_hash: checked with bcrypt, unless it is empty.
    """

    isLeaf = True

    def __init__(self, password_hash: str) -> None:
        super().__init__()
        self._hash = password_hash

    def render_POST(self, request: Request) -> bytes:
        """Check one password."""
        assert request.content is not None
        user = json.loads(request.content.read())["user"]
        if self._hash:
            success = check_password(user["password"], self._hash, "")
        else:
            success = user["password"] == PASSWORD
        request.setHeader(b"Content-Type", b"application/json")
        return json.dumps({"auth": {"success": success, "mxid": user["id"]}}).encode("ascii")


class Bench:
    """Measures, and prints the rows one by one."""

    def __init__(self, size: Size, folder: Path) -> None:
        self.size = size
        self.folder = folder
        self.hash = hash_password(PASSWORD, "", size.cost)
        self.hashing = HashingPool(reactor, None, 10_000, new_hashes(size.cost))
        self.environment = replace(environment(reactor=reactor), hashing=self.hashing)

    @contextmanager
    def provider(self, cls: Any, config: Mapping[str, Any]) -> Iterator[Any]:
        """Build a provider from its configuration."""
        built = cls(cls.parse_config(config, self.folder), self.environment)
        if IService.providedBy(built):
            built.startService()
        try:
            yield built
        finally:
            if IService.providedBy(built):
                maybeDeferred(built.stopService)

    async def compare(self, what: str, ask: Ask, yardstick: Yardstick) -> None:
        """Measure and print one row.

        :param ask: makes one request to the provider.
        :param yardstick: makes a number of requests to the backend alone; returns the rate.
        """
        rough = await rate(ask, 2 * CONCURRENCY)
        count = max(2 * CONCURRENCY, int(rough * self.size.seconds))
        rounds = []
        for _ in range(self.size.rounds):
            mine, other = await rate(ask, count), yardstick(count)
            rounds.append((mine, other if isinstance(other, float) else await other))
        here, alone = (median(each) for each in zip(*rounds, strict=True))
        ratio = median(mine / other for mine, other in rounds)
        print(f"{what:<42}{here:>10,.1f}{alone:>10,.1f}{ratio:>8.2f}", flush=True)

    def bcrypt(self, count: int) -> float:
        """Measure bcrypt checks a second on all cores."""
        count = max(CORES, count // CORES * CORES)
        with ThreadPoolExecutor(CORES) as pool:
            began = time.perf_counter()
            list(pool.map(lambda _: check_password(PASSWORD, self.hash, ""), range(count)))
            return count / (time.perf_counter() - began)

    def in_threads(self, work: Callable[[Any], object], connect: Callable[[], Any]) -> Any:
        """Build a yardstick: work in as many threads as the provider has, one connection each."""

        def measure(count: int) -> float:
            connections = [connect() for _ in range(CONNECTIONS)]

            def run(connection: Any) -> None:
                for _ in range(count // CONNECTIONS):
                    work(connection)

            with ThreadPoolExecutor(CONNECTIONS) as pool:
                began = time.perf_counter()
                list(pool.map(run, connections))
                elapsed = time.perf_counter() - began
            for connection in connections:
                connection.close()
            return count // CONNECTIONS * CONNECTIONS / elapsed

        return measure


def login(provider: IPasswordProvider) -> Ask:
    """Log in once."""
    return lambda: provider.authenticate(ALICE, PASSWORD)


def status(provider: IPasswordProvider) -> Ask:
    """Look at the account's status once."""
    return lambda: provider.account_status(ALICE_ID)


async def rate(ask: Ask, count: int) -> float:
    """Measure requests a second, with ``CONCURRENCY`` of them in flight."""
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            if await ask() is None:
                raise SystemExit("the account is not known")

    began = time.perf_counter()
    await gatherResults([Deferred.fromCoroutine(client()) for _ in range(CONCURRENCY)])
    return count / (time.perf_counter() - began)


async def files(bench: Bench) -> None:
    """Compare password files with bcrypt."""
    (bench.folder / "passwords").write_text(f"alice:{bench.hash}\n")
    for cls in (HtpasswdProvider, PasswdProvider):
        with bench.provider(cls, {"path": "passwords"}) as provider:
            await bench.compare(f"{provider.name}: logins / bcrypt", login(provider), bench.bcrypt)


async def sqlite(bench: Bench) -> None:
    """Compare SQLite with bcrypt and with the driver in plain threads."""
    path = bench.folder / "accounts.db"
    with sqlite3.connect(path) as connection:
        connection.execute(_TABLE)
        connection.execute("INSERT INTO accounts VALUES ('alice', ?)", [bench.hash])
    connection.close()
    config = {"sqlite": "accounts.db", "queries": {"by_user": f"{_SELECT}:localpart"}}

    class Opened:
        """A connection that opens the file for each statement, as the provider does."""

        def ask(self) -> None:
            opened = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
            opened.execute(f"{_SELECT}?", ["alice"]).fetchall()
            opened.close()

        def close(self) -> None:
            pass

    with bench.provider(SQLProvider, config) as provider:
        await bench.compare("sql, SQLite: logins / bcrypt", login(provider), bench.bcrypt)
        alone = bench.in_threads(lambda opened: opened.ask(), Opened)
        await bench.compare("sql, SQLite: statuses / sqlite3", status(provider), alone)


async def postgresql(bench: Bench) -> None:
    """Compare PostgreSQL with bcrypt and with the driver in plain threads."""
    server = PostgreSQL()
    try:
        server.query(_TABLE)
        server.query("INSERT INTO accounts VALUES ('alice', %s)", [bench.hash])
        config = {
            "postgresql": server.conninfo,
            "queries": {"by_user": f"{_SELECT}%(localpart)s"},
            "connections": CONNECTIONS,
        }

        def work(connection: Any) -> None:
            connection.execute(f"{_SELECT}%(name)s", {"name": "alice"}).fetchall()

        with bench.provider(SQLProvider, config) as provider:
            await bench.compare("sql, PostgreSQL: logins / bcrypt", login(provider), bench.bcrypt)
            alone = bench.in_threads(work, server.connect)
            await bench.compare("sql, PostgreSQL: statuses / psycopg", status(provider), alone)
    finally:
        server.remove()


async def http(bench: Bench) -> None:
    """Compare an HTTP service with the same service over bare sockets and over treq alone."""
    for what, password_hash in (("hashing", bench.hash), ("not hashing", "")):
        with _service(password_hash) as port:
            config = {"endpoint": f"http://127.0.0.1:{port}", "connections": CONCURRENCY}
            with bench.provider(HTTPProvider, config) as provider:
                for who, client in (("socket", bare_client), ("treq", bare_treq)):
                    row = f"http, {what}: logins / {who}"
                    yardstick: Any = partial(client, port)
                    await bench.compare(row, login(provider), yardstick)


async def bare_treq(port: int, count: int) -> float:
    """Measure requests a second of treq alone."""
    pool: Any = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = CONCURRENCY
    client: Any = HTTPClient(Agent(reactor, pool=pool))
    url = f"http://127.0.0.1:{port}{CHECK_PATH}"

    def post() -> Deferred[Any]:
        asked: Deferred[Any] = client.post(url, data=_BODY)
        return asked.addCallback(lambda response: response.content())

    measured = await rate(post, count)
    await pool.closeCachedConnections()
    return measured


async def cred(bench: Bench) -> None:
    """Compare a checker with the same checker called in a loop."""
    path = bench.folder / "plain"
    path.write_text("alice:wonderland\n")
    config = {
        "checker": "twisted.cred.checkers.FilePasswordDB",
        "arguments": {"filename": str(path)},
    }
    checker: Any = FilePasswordDB(str(path))

    def alone(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            checker.requestAvatarId(UsernamePassword(b"alice", b"wonderland"))
        return count / (time.perf_counter() - began)

    with bench.provider(CredProvider, config) as provider:
        await bench.compare("cred, on the reactor: logins / checker", login(provider), alone)
    with bench.provider(CredProvider, {**config, "threads": CONNECTIONS}) as provider:
        await bench.compare("cred, in threads: logins / checker", login(provider), alone)


def bare_client(port: int, count: int) -> float:
    """Measure requests a second of a client that sends fixed bytes and parses no response."""
    head = f"POST {CHECK_PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    request = head.encode("ascii") + _BODY
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        for _ in range(CONCURRENCY):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ, bytearray())
        sent, done = CONCURRENCY, 0
        while done < count:
            for key, _ in selector.select():
                wire = cast(socket.socket, key.fileobj)
                key.data.extend(wire.recv(65536))
                if not key.data.endswith(b"}}"):
                    continue
                key.data.clear()
                done += 1
                if sent < count:
                    wire.sendall(request)
                    sent += 1
        elapsed = time.perf_counter() - began
        for key in list(selector.get_map().values()):
            cast(socket.socket, key.fileobj).close()
    return count / elapsed


@contextmanager
def _service(password_hash: str) -> Iterator[int]:
    """Run the HTTP service in a process of its own; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", __spec__.name, "--serve", str(port), "--hash", password_hash]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


MEASUREMENTS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    "files": files,
    "sqlite": sqlite,
    "postgresql": postgresql,
    "http": http,
    "cred": cred,
}


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.providers",
        description="Measure the logins a second by each provider and by its backend alone."
        " Only the ratios are meaningful.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter measurements, for a first look"
    )
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS))
    parser.add_argument("--cost", type=int, default=10, help="bcrypt's cost (10)")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--hash", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        reactor.listenTCP(options.serve, QuietSite(Accounts(options.hash)), interface="127.0.0.1")
        reactor.run()
        return
    size = Size(3, 0.7, options.cost) if options.quick else Size(5, 3.0, options.cost)
    react(lambda _: Deferred.fromCoroutine(_measure(size, options.only or list(MEASUREMENTS))))


async def _measure(size: Size, names: list[str]) -> None:
    print(f"{CORES} cores, {CONCURRENCY} at once, bcrypt of cost {size.cost}; a second:")
    print(f"{'':<42}{'provider':>10}{'alone':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory(prefix="benchmarks-providers-") as folder:
        bench = Bench(size, Path(folder))
        bench.hashing.startService()
        try:
            for name in names:
                try:
                    await MEASUREMENTS[name](bench)
                except SkipTest as reason:
                    print(f"{name}: left out: {reason}")
        finally:
            bench.hashing.stopService()


if __name__ == "__main__":
    main()
