"""Tests for building the server from a configuration."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer, implementer_only
from zope.interface.verify import verifyObject

from synapse_login_module import compose
from synapse_login_module.audit import AuditLog
from synapse_login_module.compose import Totals, hashing_pool
from synapse_login_module.config.settings import (
    Config,
    Hashing,
    Limits,
    Plugin,
    ProviderPlugin,
    RateLimits,
    TokenRefresh,
    Tokens,
)
from synapse_login_module.errors import ConfigError, Overloaded
from synapse_login_module.hashes.argon2 import _low_level
from synapse_login_module.interfaces import IAccounts, IRateLimits, ITokenStore
from synapse_login_module.model import (
    AccountStatus,
    Bucket,
    Client,
    SessionInfo,
    UserId,
    UserIdentifier,
)
from synapse_login_module.providers import BcryptProvider
from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.standalone.server import (
    LoginServer,
    build_backends,
    build_server,
    environment_of,
)
from synapse_login_module.standalone.sites import site_limits
from synapse_login_module.stores import MemoryTokenStore, SQLiteTokenStore
from synapse_login_module.testing import FakeProvider
from synapse_login_module.tokens.format import KEY_SIZE, KeyRing
from synapse_login_module.web.site import DRAIN_TIMEOUT, LoginSite, SiteLimits
from tests.support import REPOSITORY
from tests.support.broken_configurations import BAD_HASHES, broken_configs, messages
from tests.support.configuration import good_config, password_hash, write_config
from tests.support.folders import temporary_folder
from tests.support.rig import Rig
from tests.support.site import MemoryWire, get, post, responses
from tests.support.waiting import TIMEOUT

MEMORY = {"module": "synapse_login_module.stores.MemoryTokenStore"}


@implementer_only(ITokenStore)
class LinklessStore(MemoryTokenStore):
    """A store of a third party from before there were links."""


@implementer(IRateLimits)
class EarlierStore(MemoryTokenStore):  # type: ignore[misc] # it lacks a method
    """A store of a third party that was written for an earlier version."""

    require_token_key = None  # type: ignore[assignment]

    def sessions(self, user_id: str | None) -> Deferred[list[SessionInfo]]:  # type: ignore[override]
        """List all sessions."""
        return super().sessions(user_id)

    def consume(
        self,
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> Deferred[None]:
        """Consume tokens."""
        return succeed(None)

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Refund tokens."""
        return succeed(None)


class EarlierProvider(BcryptProvider):  # type: ignore[misc] # imported when it is asked for
    """A provider of a third party that was written for an earlier version."""

    def authenticate(self, identifier: UserIdentifier) -> Deferred[Any]:
        """Check nothing."""
        return succeed(None)


class FakeReactor(MemoryReactorClock):
    """A reactor in memory for parts that have threads."""

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call it here and now."""
        function(*arguments)


class LoadTests(SynchronousTestCase):
    """Checks of a configuration file, without starting anything."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def load(self, config: object) -> LoadedConfig:
        """Check a configuration."""
        return load_config(write_config(self.folder, config), MemoryReactorClock())

    def test_good(self) -> None:
        """A good file gives a plan with the classes that it names, and no file is written."""
        plan = self.load(good_config())
        self.assertIs(plan.store[0], SQLiteTokenStore)
        self.assertEqual([cls for cls, _ in plan.providers], [BcryptProvider])
        self.assertEqual(plan.key_file, self.folder / "token.key")
        self.assertEqual(os.listdir(self.folder), ["config.yaml"])

    def test_broken(self) -> None:
        """Each broken file raises a ConfigError of one line, with the path of the mistake."""
        wrong = []
        for broken in broken_configs(self.folder):
            try:
                build_server(load_config(broken.config, FakeReactor()), FakeReactor())
            except ConfigError as error:
                if error.path != broken.path or len(str(error).splitlines()) != 1:
                    wrong.append(f"{broken.name}: {error}")
            except Exception as error:
                wrong.append(f"{broken.name}: {error!r}")
            else:
                wrong.append(f"{broken.name}: taken for good")
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_methods(self) -> None:
        """A class of an earlier version is refused at the start, with the methods it lacks."""
        this = f"{__name__}."
        entries = {
            "password_providers": [{"module": f"{this}EarlierProvider"}],
            "token_store": {"module": f"{this}EarlierStore"},
        }
        differs = "the class lacks these methods, or they differ: "
        config = {**good_config(), "password_providers": entries["password_providers"]}
        error = self.assertRaises(ConfigError, self.load, config)
        self.assertEqual(
            str(error),
            f"password_providers.0.module: {differs}"
            "IPasswordProvider.authenticate(identifier, password)",
        )
        error = self.assertRaises(
            ConfigError, self.load, {**good_config(), "token_store": entries["token_store"]}
        )
        self.assertEqual(error.path, "token_store.module")
        methods = error.problem.removeprefix(differs)
        self.assertEqual(
            set(re.split(r", (?=I)", methods)),
            {
                "IRateLimits.waits(buckets)",
                "ITokenKeys.require_token_key()",
                "ITokenStore.sessions(user_id, after=None, most=1000)",
            },
        )

    def test_messages(self) -> None:
        """Every mistake is reported, in words that say what to write."""
        for each in messages(self.folder):
            error = self.assertRaises(ConfigError, load_config, each.config, FakeReactor())
            said = tuple(str(mistake) for mistake in error.all())
            self.assertEqual(said, each.lines, each.name)
            self.assertNotIn("secret", " ".join(said))

    def test_names_that_no_file_has(self) -> None:
        """Impossible file names are reported on Python 3.14 too, where Path.exists is false for
        them.
        """
        self.patch(Path, "exists", lambda path: os.path.exists(path))
        odd = [
            each
            for each in broken_configs(self.folder)
            if "too long a name" in each.name or "NUL" in each.name or "below a file" in each.name
        ]
        self.assertEqual(len(odd), 8)
        for each in odd:
            error = self.assertRaises(ConfigError, load_config, each.config, FakeReactor())
            self.assertEqual(error.path, each.path, each.name)

    def test_extras(self) -> None:
        """If a library of an extra is missing, the error says how to install the extra."""
        providers = "synapse_login_module.providers"
        for library, module, extra in (
            ("ldaptor", f"{providers}.LDAPProvider", "ldap"),
            ("psycopg", "synapse_login_module.stores.PostgreSQLTokenStore", "postgres"),
        ):
            for name in list(sys.modules):
                if name.startswith((f"{providers}.ldap", library)):
                    self.addCleanup(sys.modules.__setitem__, name, sys.modules.pop(name))
            sys.modules[library] = None  # type: ignore[assignment]
            self.addCleanup(sys.modules.pop, library)
            entry = {"module": module, "config": {"dsn": "host=a"}}
            key = "token_store" if extra == "postgres" else "password_providers"
            change = entry if extra == "postgres" else [entry]
            error = self.assertRaises(ConfigError, self.load, {**good_config(), key: change})
            self.assertIn(f"pip install 'synapse-login-module[{extra}]'", str(error))

    def test_argon2_missing(self) -> None:
        """New hashes of Argon2id need its extra, which the error names."""
        _low_level.cache_clear()
        self.addCleanup(_low_level.cache_clear)
        for name in [name for name in sys.modules if name.partition(".")[0] == "argon2"]:
            self.addCleanup(sys.modules.__setitem__, name, sys.modules.pop(name))
        sys.modules["argon2"] = None  # type: ignore[assignment]
        self.addCleanup(sys.modules.pop, "argon2")
        config = {**good_config(), "hashing": {"format": "argon2id"}}
        error = self.assertRaises(ConfigError, self.load, config)
        self.assertEqual(error.path, "hashing")
        self.assertIn("pip install 'synapse-login-module[argon2]'", str(error))

    def test_bad_hashes(self) -> None:
        """A hash that bcrypt would fail on at a login is rejected at the start."""
        wrong = []
        for bad in BAD_HASHES:
            config = good_config()
            users = config["password_providers"][0]["config"]["users"]
            users["alice"]["password_hash"] = bad
            try:
                self.load(config)
            except ConfigError as error:
                path = "password_providers.0.config.users.alice.password_hash"
                self.assertEqual(error.path, path, ascii(bad))
                self.assertFalse(bad and bad in str(error))
            else:
                wrong.append(bad)
        self.assertEqual(wrong, [])

    def test_relative_to_the_file(self) -> None:
        """Relative paths are relative to the folder of the file. Absolute paths are kept."""
        elsewhere = temporary_folder(self)
        (self.folder / "users.yaml").write_text("users: {}")
        (elsewhere / "users.yaml").write_text("users: {}")
        for path in ("users.yaml", "../" + self.folder.name + "/users.yaml"):
            self.load(
                {
                    **good_config(),
                    "password_providers": [
                        {
                            "module": "synapse_login_module.providers.BcryptProvider",
                            "config": {"path": path},
                        }
                    ],
                }
            )
        plan = self.load({**good_config(), "tokens": {"key_file": str(elsewhere / "k")}})
        self.assertEqual(plan.key_file, elsewhere / "k")

    def test_relative_config_path(self) -> None:
        """The file itself may be named relative to the working folder."""
        path = write_config(self.folder, good_config())
        plan = load_config(Path(os.path.relpath(path)), MemoryReactorClock())
        self.assertEqual(plan.folder.resolve(), self.folder.resolve())
        self.assertTrue(plan.folder.is_absolute())

    def test_module_that_breaks(self) -> None:
        """If importing a module fails, the error names the module and the cause on one line."""
        (self.folder / "breaks_at_import.py").write_text("raise RuntimeError('first\\nsecond')")
        sys.path.insert(0, str(self.folder))
        self.addCleanup(sys.path.remove, str(self.folder))
        config = {**good_config(), "token_store": {"module": "breaks_at_import.Store"}}
        error = self.assertRaises(ConfigError, self.load, config)
        self.assertEqual(error.path, "token_store.module")
        self.assertIn("first second", str(error))
        self.assertEqual(len(str(error).splitlines()), 1)

    def test_store_without_links(self) -> None:
        """A store that keeps no links is rejected, because accounts are linked in the store."""
        config = {**good_config(), "token_store": {"module": f"{__name__}.LinklessStore"}}
        error = self.assertRaises(ConfigError, self.load, config)
        self.assertEqual(error.path, "token_store.module")
        self.assertIn("ILinks", error.problem)

    def test_example_account(self) -> None:
        """The example account is fine on loopback, and anywhere with another password."""
        for listen, password in (
            (
                ["tcp:1:interface=127.0.0.1", "unix:/run/x", "tcp:2:interface=\\:\\:1"],
                "ilovebananas",
            ),
            (["tcp:1"], "something else"),
        ):
            config = {**good_config(), "listen": listen}
            config["password_providers"][0]["config"]["users"] = {
                "cheeky_monkey": {"password_hash": password_hash(password)}
            }
            self.load(config)

    def test_example_account_in_a_file(self) -> None:
        """The example account is found in a users file too, and behind a pepper."""
        hashed = password_hash("ilovebananaspepper")
        (self.folder / "users.yaml").write_text(
            f'users: {{cheeky_monkey: {{password_hash: "{hashed}"}}}}'
        )
        config = {**good_config(), "listen": ["tcp:1"]}
        config["password_providers"] = [
            *good_config()["password_providers"],
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "name": "file",
                "config": {"path": "users.yaml", "pepper": "pepper"},
            },
        ]
        error = self.assertRaises(ConfigError, self.load, config)
        self.assertEqual(error.path, "password_providers.1.config")

    def test_sample(self) -> None:
        """The sample configuration is good."""
        path = self.folder / "sample_config.yaml"
        path.write_bytes((REPOSITORY / "sample_config.yaml").read_bytes())
        plan = load_config(path, MemoryReactorClock())
        self.assertEqual(plan.config.listen, ("tcp:8008:interface=127.0.0.1",))
        self.assertEqual(os.listdir(self.folder), ["sample_config.yaml"])

    def test_sample_states_the_defaults(self) -> None:
        """The values that the sample shows commented out are the defaults."""
        text = (REPOSITORY / "sample_config.yaml").read_text(encoding="utf-8")
        shown, count = re.subn(
            r"^( *)# (?=( *)[a-z_]+:( [^ #]| *$))(?!path:|pepper:|locked:|deactivated:|threads:)",
            r"\1",
            text,
            flags=re.MULTILINE,
        )
        self.assertGreaterEqual(count, 13)
        self.assertEqual(self.load(shown).config, self.load(text).config)

    def test_sample_shows_every_setting(self) -> None:
        """No setting of the configuration is missing from the sample."""
        text = (REPOSITORY / "sample_config.yaml").read_text(encoding="utf-8")
        for model in (Config, Tokens, TokenRefresh, RateLimits, Hashing, Limits):
            for name in model.model_fields:
                self.assertIn(f"{name}:", text)


class BuildTests(SynchronousTestCase):
    """Building the objects, without starting anything."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def build(self, config: object) -> LoginServer:
        """Build a server."""
        memory_reactor = FakeReactor()
        return build_server(
            load_config(write_config(self.folder, config), memory_reactor), memory_reactor
        )

    def test_files(self) -> None:
        """The key file and the database are made where there are none, for the owner alone."""
        self.build(good_config())
        for name in ("token.key", "sessions.db"):
            mode = stat.S_IMODE((self.folder / name).stat().st_mode)
            self.assertEqual(mode, 0o600, name)

    def test_key_file_is_kept(self) -> None:
        """A key file that is there is used as it is."""
        self.build(good_config())
        before = (self.folder / "token.key").read_bytes()
        self.build(good_config())
        self.assertEqual((self.folder / "token.key").read_bytes(), before)

    def test_no_leftovers(self) -> None:
        """Building leaves no other files behind."""
        self.build({**good_config(), "token_store": MEMORY})
        self.assertEqual(sorted(os.listdir(self.folder)), ["config.yaml", "token.key"])

    def test_ends(self) -> None:
        """For a command, only the accounts and the store are built."""
        memory_reactor = FakeReactor()
        config = {**good_config(), "token_store": MEMORY}
        plan = load_config(write_config(self.folder, config), memory_reactor)
        ends = build_backends(plan, memory_reactor)
        self.assertEqual(ends.parts, [ends.hashing])
        verifyObject(IAccounts, ends.accounts)
        verifyObject(ITokenStore, ends.store)
        self.assertIsInstance(ends.store, MemoryTokenStore)

    def test_policy(self) -> None:
        """The lifetimes of the configuration are those of the store."""
        memory_reactor = FakeReactor()
        config = {
            **good_config(),
            "token_store": MEMORY,
            "tokens": {
                "login_token_lifetime": "7s",
                "refreshable_access_token_lifetime": "9s",
                "nonrefreshable_access_token_lifetime": "11s",
            },
        }
        plan = load_config(write_config(self.folder, config), memory_reactor)
        store = build_backends(plan, memory_reactor).store
        made = self.successResultOf(store.make_login_token("@alice:example.com"))
        self.assertEqual(made.expires_in_ms, 7000)
        for refreshable, expected in ((True, 9000), (False, 11_000)):
            login = self.successResultOf(
                store.issue("@alice:example.com", None, None, refreshable, True)
            )
            self.assertEqual(login.tokens.expires_in_ms, expected)

    def test_delegated(self) -> None:
        """The store notes devices where the configuration names a homeserver, and only there."""
        memory_reactor = FakeReactor()
        plan = load_config(write_config(self.folder, good_config()), memory_reactor)
        homeserver = Plugin(module="example.Homeserver")
        delegating = plan.config.model_copy(update={"homeserver": homeserver})
        for config, delegated in ((plan.config, False), (delegating, True)):
            loaded = replace(plan, config=config)
            hashing = hashing_pool(config, memory_reactor)
            self.assertIs(environment_of(loaded, hashing, memory_reactor).delegated, delegated)

    def test_limits(self) -> None:
        """The site has the limits of the configuration, and both have the same defaults."""
        self.assertEqual(site_limits(Limits()), SiteLimits())
        limits = {
            "connections": 5,
            "connections_per_address": None,
            "request_timeout": "7s",
            "idle_timeout": "11s",
        }
        self.assertEqual(site_limits(Limits.model_validate(limits)), SiteLimits(5, None, 7.0, 11.0))

    def test_queue_timeout(self) -> None:
        """After half of the shortest deadline in the queue, known and unknown users are both
        rejected as ``Overloaded``, and not as an outage of a provider.
        """
        first, second = (dict(good_config()["password_providers"][0]) for _ in range(2))
        first["deadline"], second["deadline"] = 2, "1h"
        second["name"] = "second"
        config = {
            **good_config(),
            "password_providers": [first, second],
            "hashing": {"threads": 1, "queue": 8},
        }
        memory_reactor = FakeReactor()
        plan = load_config(write_config(self.folder, config), memory_reactor)
        ends = build_backends(plan, memory_reactor)
        asked = [
            ends.accounts.authenticate(UserIdentifier(UserId(name, "example.com")), "x")
            for name in ("alice", "nobody")
        ]
        late = time.monotonic() + 0.001
        while time.monotonic() <= late:
            pass
        ends.hashing.startService()
        self.addCleanup(ends.hashing.stopService)
        answers: Queue[Any] = Queue()
        for each in asked:
            each.addBoth(answers.put)
        for _ in asked:
            self.assertIs(answers.get(timeout=TIMEOUT).type, Overloaded)

    def test_port_in_use(self) -> None:
        """A port that is in use raises an error of one line that names the listener."""
        path = write_config(
            self.folder, {**good_config(), "token_store": MEMORY, "listen": ["tcp:1", "tcp:2"]}
        )

        class TakenReactor(MemoryReactorClock):
            """A reactor on which the second port is taken."""

            def listenTCP(self, port: int, *args: Any, **kwargs: Any) -> Any:
                """Listen, unless it is that port."""
                if port == 2:
                    raise CannotListenError("", port, OSError("taken"))
                return super().listenTCP(port, *args, **kwargs)

        taken = TakenReactor()
        server = build_server(load_config(path, taken), taken)
        error = self.assertRaises(ConfigError, server.privilegedStartService)
        self.assertEqual(error.path, "listen.1")
        self.assertEqual(len(str(error).splitlines()), 1)


class ChainTests(SynchronousTestCase):
    """The provider chain."""

    def test_one_question_an_account(self) -> None:
        """Concurrent refreshes of one account share one request to its provider."""
        slow = FakeProvider({})
        asked: list[Deferred[AccountStatus | None]] = []

        def ask(user_id: str) -> Deferred[AccountStatus | None]:
            asked.append(Deferred())
            return asked[-1]

        self.patch(slow, "account_status", ask)
        plugin = ProviderPlugin(module="third.party")
        chain = compose.chain([plugin], [slow], None, Clock(), compose.meter(Counter()))
        answers = [chain.account_status(slow.name, "alice") for _ in range(3)]
        self.assertEqual(len(asked), 1)
        asked[0].callback(AccountStatus.LOCKED)
        for answer in answers:
            self.assertIs(self.successResultOf(answer), AccountStatus.LOCKED)


class Recorder(Service):
    """Records when it is started and stopped."""

    def __init__(self, name: str, events: list[str], stopped: Deferred[None] | None = None) -> None:
        self._name = name
        self._events = events
        self._stopped = stopped or succeed(None)

    def privilegedStartService(self) -> None:
        """Record it."""
        self._events.append(f"bind {self._name}")

    def startService(self) -> None:
        """Record it."""
        super().startService()
        self._events.append(f"start {self._name}")

    def stopService(self) -> Deferred[None]:
        """Record it."""
        super().stopService()
        self._events.append(f"stop {self._name}")
        return self._stopped


class ServerTests(SynchronousTestCase):
    """The order in which the server starts and stops."""

    def setUp(self) -> None:
        self.events: list[str] = []
        self.clock = Clock()
        self.rig = Rig()
        self.site = LoginSite(self.rig.root, self.clock)
        self.audit = AuditLog()
        self.totals: Totals = Counter()
        self.listener_stopped: Deferred[None] = Deferred()
        self.server = LoginServer(
            [Recorder("hashing", self.events), Recorder("store", self.events)],
            [
                ("listen.0", Recorder("first", self.events, self.listener_stopped)),
                ("listen.1", Recorder("second", self.events)),
            ],
            [self.site],
            self.audit,
            self.totals,
            KeyRing({1: bytes(KEY_SIZE)}),
        )

    def start(self) -> None:
        """Start as twistd does."""
        self.server.privilegedStartService()
        self.server.startService()

    def test_start(self) -> None:
        """Ports are bound first. Connections are accepted only when all parts run."""
        self.start()
        self.assertEqual(self.events[:2], ["bind first", "bind second"])
        started = [event for event in self.events if event.startswith("start")]
        self.assertEqual(started, ["start hashing", "start store", "start first", "start second"])

    def test_stop(self) -> None:
        """The server stops listening first, then responds to the requests in flight, then stops its
        parts.
        """
        self.start()
        self.events.clear()
        waiting: list[Deferred[Any]] = []
        self.rig.provider.stalled = waiting
        wire = MemoryWire(self.site)
        wire.send(
            post(
                "/_matrix/client/v3/login", b'{"type":"m.login.password","user":"a","password":"x"}'
            )
        )
        stopped = self.server.stopService()
        self.assertEqual(self.events, ["stop first", "stop second"])
        self.listener_stopped.callback(None)
        self.assertEqual(self.events, ["stop first", "stop second"])
        self.assertNoResult(stopped)
        self.rig.provider.stalled = None
        waiting[0].callback(None)
        self.assertEqual([reply.status for reply in responses(wire.received())], [403])
        self.assertTrue(wire.settle())
        self.successResultOf(stopped)
        self.assertEqual(self.events[2:], ["stop store", "stop hashing"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_order_of_parts(self) -> None:
        """A part stops when those that were started after it have stopped, however they end."""
        self.listener_stopped.callback(None)
        last: Deferred[None] = Deferred()
        server = LoginServer(
            [Recorder("store", self.events), Recorder("outbox", self.events, last)],
            [],
            [self.site],
            self.audit,
            self.totals,
            KeyRing({1: bytes(KEY_SIZE)}),
        )
        server.privilegedStartService()
        server.startService()
        self.events.clear()
        stopped = server.stopService()
        self.clock.advance(server.grace)
        self.assertEqual(self.events, ["stop outbox"])
        self.assertNoResult(stopped)
        last.errback(OSError("it cannot stop"))
        self.successResultOf(stopped)
        self.assertEqual(self.events, ["stop outbox", "stop store"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_stop_with_a_client_that_stays(self) -> None:
        """A client that never finishes does not keep the server from stopping."""
        self.start()
        wire = MemoryWire(self.site)
        wire.send(get("/health")[:-2])
        self.listener_stopped.callback(None)
        stopped = self.server.stopService()
        self.assertNoResult(stopped)
        self.clock.advance(DRAIN_TIMEOUT)
        self.assertTrue(wire.settle())
        self.successResultOf(stopped)
        self.assertIn("stop store", self.events)

    def test_totals(self) -> None:
        """At the end the totals of all outcomes are logged."""
        self.start()
        self.listener_stopped.callback(None)
        for _ in range(3):
            self.audit.record("login", "ok", "password", Client("192.0.2.1", "192.0.2.1"))
        self.totals["htpasswd", "authenticate", "ok"] = 2
        with capturedLogs() as events:
            self.successResultOf(self.server.stopService())
        lines = [formatEvent(event) for event in events]
        self.assertIn("total: provider=htpasswd authenticate outcome=ok count=2", lines)
        self.assertIn("total: login outcome=ok reason=password count=3", lines)


class RealReactorTests(TestCase):
    """The whole graph on the real reactor, without a socket."""

    async def _login(self) -> None:
        folder = temporary_folder(self)
        config = {**good_config(), "listen": [f"unix:{folder / 'sock'}"]}
        plan = load_config(write_config(folder, config), reactor)
        server = build_server(plan, reactor)
        server.privilegedStartService()
        server.startService()
        self.assertTrue((folder / "sock").exists())
        await server.stopService()
        self.assertFalse((folder / "sock").exists())

    def test_start_and_stop(self) -> Deferred[None]:
        """A server starts and stops, and leaves no thread, socket or timer behind."""
        return ensureDeferred(self._login())
