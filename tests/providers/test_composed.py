"""Tests of providers in a whole server: built from a configuration, logged in to over HTTP."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from typing import Any

from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import compose, testing
from synapse_login_module.config.settings import ModuleConfig, ProviderPlugin
from synapse_login_module.config.validation import validate
from synapse_login_module.errors import ConfigError, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import AccountStatus
from synapse_login_module.plugin import Environment
from tests.providers.backends import AccountService, HTTPBackend
from tests.providers.case import PASSWORD, WONDERLAND, lines, user
from tests.providers.served import PROVIDERS, ComposedCase
from tests.providers.sql.test_sql import POSTGRESQL, SQLITE
from tests.providers.wrappers.case import CountingProvider
from tests.support import REPOSITORY
from tests.support.accounts import ALICE
from tests.support.certificates import Authority
from tests.support.commands import invoke
from tests.support.ports import free_port
from tests.support.sessions import make_files


class ServerTests(ComposedCase):
    """What clients get."""

    async def test_answers(self) -> None:
        """Right and wrong passwords and unknown users are answered as ever."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        backend.service.unknown_code = 404
        self.serve(self.file(), self.sqlite("bob"), self.http(backend.url))
        backend.service.passwords = {"@carol:example.com": "carrot"}
        self.assertEqual(await self.log_in("alice"), (200, ALICE))
        self.assertEqual(await self.log_in("bob"), (200, "@bob:example.com"))
        self.assertEqual(await self.log_in("carol", "carrot"), (200, "@carol:example.com"))
        for name in ("alice", "bob", "carol", "nobody"):
            self.assertEqual(await self.log_in(name, "x"), (403, "M_FORBIDDEN"))

    async def test_two_of_a_kind(self) -> None:
        """Two providers of one kind work side by side."""
        self.serve(self.sqlite("alice"), self.sqlite("bob", name="second"))
        self.assertEqual(await self.log_in("alice"), (200, ALICE))
        self.assertEqual(await self.log_in("bob"), (200, "@bob:example.com"))

    async def test_unusable_hash(self) -> None:
        """A hash that bcrypt does not take is a wrong password to the client, and counts as one; so
        is a name that makes no user ID, also with the right password.
        """
        stray_salt = WONDERLAND[:28] + "/" + WONDERLAND[29:]
        entries = [
            self.sqlite("alice", "disabled", name="a"),
            self.sqlite("bob", stray_salt, name="b"),
            self.sqlite("käse", WONDERLAND, name="c"),
        ]
        never = {"per_second": 0.0001, "burst_count": 2}
        limits = {"address": None, "account": None, "failed_attempts": never}
        self.serve(*entries, rate_limits=limits)
        events = self.catch_log()
        wrong = None
        for name, reason in (
            ("nobody", "unknown_user"),
            ("alice", "no_usable_hash"),
            ("bob", "no_usable_hash"),
            ("käse", "bad_user_id"),
        ):
            body = {"type": "m.login.password", "user": name, "password": PASSWORD}
            for _ in range(2):
                code, answer = await self.post("login", body)
                wrong = wrong or answer
                self.assertEqual((code, answer), (403, wrong))
                self.assertIn(f"reason={reason}", lines(events, LogLevel.info)[-1])
            self.assertEqual((await self.post("login", body))[0], 429)
        unusable = "its hash cannot be used:"
        self.assertEqual(
            [line for line in lines(events) if "cannot log in" in line],
            [
                f"sql: {name!r} cannot log in: {problem}"
                for name, problem in (
                    *(("alice", f"{unusable} an entry in plain text, or of no known kind"),) * 2,
                    *(("bob", f"{unusable} a bcrypt hash that is cut short or damaged"),) * 2,
                    *(("käse", "its name makes no user ID"),) * 2,
                )
            ],
        )

    async def test_outage(self) -> None:
        """An outage is 503 and one line in the log, even for those that the next would know."""
        self.serve(self.http(f"http://127.0.0.1:{free_port()}", name="intranet"), self.file())
        events = self.catch_log()
        self.assertEqual(await self.log_in("alice"), (503, "M_UNKNOWN"))
        self.assertEqual(lines(events), ["intranet is unavailable: ConnectionRefusedError"])

    async def test_on_unavailable_next(self) -> None:
        """Where it is to be passed over, the next one's users log in; for others it is 503."""
        down = self.http(f"http://127.0.0.1:{free_port()}", on_unavailable="next")
        self.serve(down, self.file())
        self.assertEqual(await self.log_in("alice"), (200, ALICE))
        self.assertEqual(await self.log_in("alice", "x"), (403, "M_FORBIDDEN"))
        self.assertEqual(await self.log_in("nobody"), (503, "M_UNKNOWN"))

    async def test_circuit(self) -> None:
        """After the configured number of outages the circuit breaker opens, and is logged once."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        backend.service.answer = (500, b"")
        breaker = {"failures": 2, "window": "1h", "pause": "1h"}
        self.serve(self.http(backend.url, circuit_breaker=breaker))
        events = self.catch_log()
        for _ in range(4):
            self.assertEqual(await self.log_in("alice"), (503, "M_UNKNOWN"))
        self.assertEqual(len(backend.service.seen), 2)
        left_alone = "http is unavailable: http.authenticate is left alone after its outages"
        self.assertEqual(
            lines(events),
            [
                "http is unavailable: the service answered 500",
                "http.authenticate: the circuit is open",
                "http is unavailable: the service answered 500",
                left_alone,
                left_alone,
            ],
        )
        events.clear()
        await self.server.stopService()
        totals = [line for line in lines(events, LogLevel.info) if "provider=" in line]
        self.assertEqual(
            totals,
            [
                "total: provider=http authenticate outcome=circuit_open count=1",
                "total: provider=http authenticate outcome=unavailable count=4",
            ],
        )

    async def test_unusable_account(self) -> None:
        """An account whose name or id cannot be used is an outage to itself, and to no other."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        service = backend.service
        service.unknown_code = 404
        service.passwords["@eve:example.com"] = PASSWORD

        def respond(path: str, body: Any) -> tuple[int, object]:
            code, answer = AccountService.respond(service, path, body)
            if body["user"]["id"].startswith("@eve:") and isinstance(answer, dict):
                answer["auth"]["mxid"] = "@eve:elsewhere.example"
            return code, answer

        self.patch(service, "respond", respond)
        connection = sqlite3.connect(self.folder() / "accounts.db")
        with connection:
            connection.execute("CREATE TABLE accounts (localpart, subject, display_name)")
            rows = [("bob", "b", "Bob"), ("mallory", None, "Mallory"), ("trudy", "t", 17)]
            connection.executemany("INSERT INTO accounts VALUES (?, ?, ?)", rows)
        connection.close()
        select = f"SELECT *, '{WONDERLAND}' AS password_hash FROM accounts"
        queries = {
            "by_user": f"{select} WHERE localpart = :localpart",
            "status": f"{select} WHERE subject = :subject",
        }
        database = {"sqlite": "accounts.db", "queries": queries}
        breaker = {"failures": 1, "window": "1h", "pause": "1h"}
        self.serve(
            self.http(backend.url, circuit_breaker=breaker),
            {
                "module": f"{PROVIDERS}.SQLProvider",
                "config": database,
                "circuit_breaker": breaker,
            },
        )
        for name in ("eve", "mallory", "trudy"):
            for _ in range(2):
                self.assertEqual(await self.log_in(name), (503, "M_UNKNOWN"))
        self.assertEqual(await self.log_in("alice"), (200, ALICE))
        self.assertEqual(await self.log_in("bob"), (200, "@bob:example.com"))

    async def test_cache(self) -> None:
        """A password that is remembered is not asked for again."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        self.serve(self.http(backend.url, cache={"lifetime": "1m"}))
        for _ in range(3):
            self.assertEqual(await self.log_in("alice"), (200, ALICE))
        self.assertEqual(len(backend.service.seen), 1)


class OneTimeCodesTests(SynchronousTestCase):
    """``one_time_codes`` of an entry."""

    def test_cache(self) -> None:
        """A cache is refused with it: a used code would be good again."""
        entry = {"module": "a.b", "one_time_codes": True, "cache": {"lifetime": "1m"}}
        with self.assertRaises(ConfigError) as raised:
            validate(ModuleConfig, {"password_providers": [entry]})
        self.assertEqual(
            str(raised.exception),
            "password_providers.0.cache: one_time_codes rules it out: a used code would be good"
            " again",
        )
        for good in ({"one_time_codes": False}, {"cache": None}):
            validate(ModuleConfig, {"password_providers": [{**entry, **good}]})

    def test_told(self) -> None:
        """Only the provider of that entry is told."""
        told: list[bool] = []

        class Told:
            def __init__(self, config: object, environment: Environment) -> None:
                told.append(environment.one_time_codes)

        plugins = [
            ProviderPlugin(module="a.b", one_time_codes=codes) for codes in (False, True, False)
        ]
        compose.build_providers(plugins, [(Told, None)] * 3, testing.environment())
        self.assertEqual(told, [False, True, False])


class WrapTests(ComposedCase):
    """How entries of the configuration are wrapped."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.backend = CountingProvider()
        self.totals: compose.Totals = Counter()

    def wrap(self, **keys: Any) -> IPasswordProvider:
        """The backend, wrapped as an entry with these keys says."""
        plugin = ProviderPlugin.model_validate({"module": "a.b", **keys})
        return compose.wrap(plugin, self.backend, self.clock, compose.meter(self.totals))

    def outages(self, provider: IPasswordProvider, number: int) -> None:
        """Have the backend be down, and asked for a user who is not cached."""
        self.backend.fake.failure = ProviderUnavailable("down")
        for _ in range(number):
            asked = provider.authenticate(user("bob"), "builder")
            self.failureResultOf(asked, ProviderUnavailable)

    def test_order(self) -> None:
        """What is cached is good while the circuit is open, and is counted all the same."""
        wrapped = self.wrap(circuit_breaker={}, cache={"lifetime": 5000}, name="it")
        self.assertEqual((wrapped.name, self.backend.name), ("it", "backend"))
        for _ in range(2):
            self.assertIsNotNone(
                self.successResultOf(wrapped.authenticate(user("alice"), PASSWORD))
            )
        self.assertEqual(self.backend.asked, 1)
        self.outages(wrapped, 7)
        self.assertEqual(self.backend.asked, 6)
        self.assertIsNotNone(self.successResultOf(wrapped.authenticate(user("alice"), PASSWORD)))
        self.assertEqual(
            self.totals,
            {
                ("it", "authenticate", "ok"): 3,
                ("it", "authenticate", "unavailable"): 7,
                ("it", "authenticate", "circuit_open"): 1,
            },
        )

    def test_deadline(self) -> None:
        """What is too late is an outage to the circuit too."""
        wrapped = self.wrap(deadline=5000, circuit_breaker={"failures": 1})
        self.backend.waiting = []
        asked = wrapped.authenticate(user("alice"), PASSWORD)
        self.clock.advance(5)
        self.failureResultOf(asked, ProviderUnavailable)
        again = self.failureResultOf(wrapped.authenticate(user("alice"), PASSWORD))
        self.assertIn("is left alone", str(again.value))

    def test_statuses(self) -> None:
        """A status is asked for once for all who ask at once, and counted once."""
        asked: Deferred[AccountStatus | None] = Deferred()
        self.patch(self.backend, "account_status", lambda _: asked)
        wrapped = self.wrap(circuit_breaker={}, cache={"lifetime": 5000})
        answers = [wrapped.account_status(ALICE) for _ in range(3)]
        asked.callback(AccountStatus.ACTIVE)
        for answer in answers:
            self.assertIs(self.successResultOf(answer), AccountStatus.ACTIVE)
        self.assertEqual(self.totals, {("backend", "account_status", "active"): 1})

    def test_plain(self) -> None:
        """A deadline and a count there are always, and nothing is cached or left alone where that
        is not wanted.
        """
        wrapped = self.wrap()
        for _ in range(2):
            self.successResultOf(wrapped.authenticate(user("alice"), PASSWORD))
        self.outages(wrapped, 20)
        self.assertEqual(self.backend.asked, 22)
        self.backend.waiting = []
        asked = wrapped.authenticate(user("alice"), PASSWORD)
        self.clock.advance(29.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.failureResultOf(asked, ProviderUnavailable)
        self.assertEqual(
            self.totals,
            {("backend", "authenticate", "ok"): 2, ("backend", "authenticate", "unavailable"): 21},
        )

    def test_mistakes(self) -> None:
        """A mistake is named by its path."""
        for key, value, path in (
            ("deadline", 0, "deadline"),
            ("deadline", "soon", "deadline"),
            ("name", "two words", "name"),
            ("former_names", "staff", "former_names"),
            ("former_names", ["two words"], "former_names.0"),
            ("on_unavailable", "ignore", "on_unavailable"),
            ("circuit_breaker", {"failures": 0}, "circuit_breaker.failures"),
            ("circuit_breaker", {"pauze": 1}, "circuit_breaker.pauze"),
            ("cache", {}, "cache.lifetime"),
            ("cache", {"lifetime": "1h"}, "cache.lifetime"),
            ("cache", {"lifetime": "1m", "entries": 0}, "cache.entries"),
        ):
            self.configure(self.file(**{key: value}))
            with self.assertRaises(ConfigError) as raised:
                self.load()
            self.assertEqual(raised.exception.path, f"password_providers.0.{path}")


class NameTests(ComposedCase):
    """Names, which accounts are linked to providers by."""

    def test_equal(self) -> None:
        """No two providers have one name, of today or of before."""
        file = self.file()
        for entries, path, name in (
            ([file, file], "1.name", "htpasswd"),
            ([file, {**file, "name": "htpasswd"}], "1.name", "htpasswd"),
            ([{**file, "name": "a"}, {**file, "name": "a"}], "1.name", "a"),
            (
                [file, {**file, "name": "a", "former_names": ["htpasswd"]}],
                "1.former_names",
                "htpasswd",
            ),
            ([{**file, "name": "a", "former_names": ["b"]}, {**file, "name": "b"}], "1.name", "b"),
            (
                [{**file, "former_names": ["b"]}, {**file, "name": "a", "former_names": ["b"]}],
                "1.former_names",
                "b",
            ),
        ):
            self.configure(*entries)
            with self.assertRaises(ConfigError) as raised:
                self.load()
            self.assertEqual(raised.exception.path, f"password_providers.{path}")
            self.assertEqual(raised.exception.problem, f"{name} is the name of another provider")
        for entries in (
            [file, {**file, "name": "a"}],
            [{**file, "name": "a", "former_names": ["htpasswd", "a"]}, {**file, "name": "b"}],
        ):
            self.configure(*entries)
            self.load()


class FileTests(ComposedCase):
    """Files that entries of the configuration name."""

    def problem(self, provider: str, config: dict[str, Any]) -> str:
        """What ``check-config`` says first, a line for each mistake and no secret in any."""
        self.configure({"module": f"{PROVIDERS}.{provider}", "config": config})
        done = invoke("check-config", str(self.folder() / "login.yaml"))
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("sesame", done.stderr)
        problem, *others = done.stderr.splitlines()
        for each in others[:-1]:
            self.assertTrue(each.startswith(problem.partition(": ")[0]), each)
        return problem

    def test_bad(self) -> None:
        """A file that cannot be read, or can be none, is named by its whole path."""
        own = Authority().sign("client.example")
        self.write("own.pem", own.certificate)
        self.write("own.key", own.key)
        http = {"endpoint": "https://auth.example"}
        pair = {**http, "certificate_file": "own.pem", "private_key_file": "own.key"}
        ldap = {"servers": ["ldaps://ldap.example"], "base": "dc=example"}
        (self.folder() / "folder").mkdir()
        for provider, config, keys in (
            ("BcryptProvider", {}, ["path"]),
            ("HtpasswdProvider", {}, ["path"]),
            ("PasswdProvider", {}, ["path"]),
            ("HTTPProvider", http, ["authorization_file", "ca_file"]),
            ("HTTPProvider", pair, ["certificate_file", "private_key_file"]),
            ("LDAPProvider", {**ldap, "bind_dn": "cn=x"}, ["bind_password_file"]),
            ("LDAPProvider", ldap, ["ca_file"]),
            ("SQLProvider", {"queries": SQLITE}, ["sqlite"]),
        ):
            for key in keys:
                at = f"password_providers.0.config.{key}: "
                for name in ("missing", "folder", "own.pem/x", "a" * 300):
                    problem = self.problem(provider, {**config, key: name})
                    whole = f"{self.folder() / name}: cannot "
                    self.assertIn(f"{at}{whole}", problem)
                for name in ("", "a\0b"):
                    problem = self.problem(provider, {**config, key: name})
                    self.assertIn(f"{at}not the path of a file", problem)

    def test_nonsense(self) -> None:
        """So is a file that holds something else, and nothing of what it holds is said."""
        authority = Authority()
        first, second = authority.sign("client.example"), authority.sign("client.example")
        self.write("first.pem", first.certificate)
        self.write("first.key", first.key)
        self.write("second.key", second.key)
        private = serialization.load_pem_private_key(first.key, None)
        encrypted = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
        self.write("locked.key", encrypted)
        self.write("nonsense", "open sesame\nnonsense")
        self.write("binary", b"\xff\0")
        broken = b"-----BEGIN %s-----\nAAAA\n-----END %s-----\n"
        self.write("broken.pem", broken % (b"CERTIFICATE", b"CERTIFICATE"))
        http = {"endpoint": "https://auth.example"}
        pair = {**http, "certificate_file": "first.pem", "private_key_file": "first.key"}
        ldap = {"servers": ["ldaps://ldap.example"], "base": "dc=example", "bind_dn": "cn=x"}
        for provider, config, key, names in (
            ("HTTPProvider", http, "authorization_file", ["nonsense", "binary"]),
            ("HTTPProvider", http, "ca_file", ["nonsense", "binary", "broken.pem"]),
            ("HTTPProvider", pair, "certificate_file", ["nonsense", "binary", "broken.pem"]),
            ("HTTPProvider", pair, "private_key_file", ["nonsense", "second.key", "locked.key"]),
            ("LDAPProvider", ldap, "bind_password_file", ["binary"]),
            ("HtpasswdProvider", {}, "path", ["nonsense", "binary"]),
        ):
            for name in names:
                problem = self.problem(provider, {**config, key: name})
                self.assertIn(
                    f"password_providers.0.config.{key}: {self.folder() / name}: ", problem
                )


class SecretTests(ComposedCase):
    """Secrets in the configuration."""

    def test_printed(self) -> None:
        """A configuration, and all that is made from it, is printed without secrets."""
        self.write("secret", "Bearer sesame-1\n")
        self.write("ldap-password", "sesame-2\n")
        self.write("users.yaml", f"users: {{alice: {{password_hash: '{WONDERLAND}'}}}}\n")
        self.write("passwd", f"alice:{WONDERLAND}\n")
        request = {"name": "{localpart}", "key": "sesame-3", "password": "{password}"}
        sqlite = self.sqlite("alice")
        sqlite["config"]["pepper"] = "sesame-4"
        entries: list[tuple[str, dict[str, Any]]] = [
            ("BcryptProvider", {"path": "users.yaml", "pepper": "sesame-5"}),
            ("PasswdProvider", {"path": "passwd", "pepper": "sesame-6"}),
            ("HtpasswdProvider", {"path": "passwd"}),
            ("HTTPProvider", {"endpoint": "http://127.0.0.1", "authorization_file": "secret"}),
            ("HTTPProvider", {"url": "http://127.0.0.1", "request": request}),
            (
                "LDAPProvider",
                {
                    "servers": ["ldaps://ldap.example"],
                    "base": "dc=example",
                    "bind_dn": "cn=x",
                    "bind_password_file": "ldap-password",
                },
            ),
            (
                "SQLProvider",
                {"postgresql": "host=x password=sesame-7", "queries": POSTGRESQL},
            ),
            (
                "CredProvider",
                {
                    "checker": "twisted.cred.checkers.InMemoryUsernamePasswordDatabaseDontUse",
                    "arguments": {"alice": "sesame-8"},
                },
            ),
        ]
        self.configure(
            *(
                {"module": f"{PROVIDERS}.{name}", "config": config, "name": f"number-{number}"}
                for number, (name, config) in enumerate(entries)
            ),
            sqlite,
        )
        plan = self.load()
        printed = repr(plan)
        for name, _ in entries:
            self.assertIn(name, printed)
        for secret in (WONDERLAND, *(f"sesame-{number}" for number in range(1, 9))):
            self.assertNotIn(secret, printed)


class CommandTests(ComposedCase):
    """The command line, with providers that have threads and connections."""

    def run_command(self, *arguments: str) -> Deferred[subprocess.CompletedProcess[str]]:
        """Run a command in a process of its own, while the reactor runs."""
        from twisted.internet.threads import deferToThread

        command = [sys.executable, "-m", "synapse_login_module.cli", *arguments]
        done: Deferred[subprocess.CompletedProcess[str]] = deferToThread(
            subprocess.run, command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )
        return done

    async def test_login_token(self) -> None:
        """A command asks a provider that needs to be started, and ends."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        http = self.http(backend.url)
        http["config"]["status_url"] = f"{backend.url}/status/{{user_id}}"
        http["config"]["status_path"] = "account.status"
        store = {
            "module": "synapse_login_module.stores.SQLiteTokenStore",
            "config": {"path": "sessions.db"},
        }
        self.configure(self.sqlite("bob"), http, token_store=store)
        make_files(self.folder() / "login.yaml")
        for name in ("alice", "bob"):
            done = await self.run_command(
                "create-login-token", "-c", str(self.folder() / "login.yaml"), name
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout.strip())
