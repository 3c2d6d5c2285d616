"""Tests for the password providers."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyClass

from synapse_login_module import compose, testing
from synapse_login_module.common import filewatch
from synapse_login_module.config.settings import ProviderPlugin
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    Overloaded,
)
from synapse_login_module.hashes import parse_hash
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import (
    Account,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
)
from synapse_login_module.passwords import hash_password
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.files.bcrypt import BcryptProvider
from synapse_login_module.providers.files.users import UserIndex
from tests.support.folders import temporary_folder

SERVER = testing.SERVER_NAME
WONDERLAND = hash_password("wonderland", "", 4)
BUILDER = hash_password("builder", "", 4)


def user(localpart: str, server: str = SERVER) -> UserIdentifier:
    """The user of that name."""
    return UserIdentifier(UserId(localpart, server))


def an_account(password_hash: Any = WONDERLAND, **more: Any) -> dict[str, Any]:
    """An entry of a users file."""
    return {"password_hash": password_hash, **more}


class HandPool:
    """A thread pool without threads, which works at once or when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.held = False

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], None], function: Callable[[], Any]
    ) -> None:
        """Do the work at once, or keep it."""

        def work() -> None:
            try:
                result = function()
            except Exception:
                done(False, Failure())
            else:
                done(True, result)

        self.waiting.append(work)
        if not self.held:
            self.work()

    def work(self) -> None:
        """Do the work that was kept."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()


class HandReactor(Clock):
    """A reactor with such a pool, which runs calls from threads at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = HandPool()

    def getThreadPool(self) -> HandPool:
        """The pool."""
        return self.pool

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call."""
        function(*arguments)


def bcrypt_provider(
    config: Mapping[str, Any], folder: Path = Path(), reactor: Any = None
) -> BcryptProvider:
    """A provider of this configuration."""
    parsed = BcryptProvider.parse_config(config, folder)
    return BcryptProvider(parsed, testing.environment(reactor=reactor or HandReactor()))


class InlineContractTests(
    testing.PasswordProviderContract,
    testing.FindsAccountsContract,
    testing.DiagnosableContract,
    TestCase,
):
    """The contract, with the accounts in the configuration itself."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return bcrypt_provider({"users": {"alice": an_account()}})


class FileContractTests(
    testing.PasswordProviderContract,
    testing.FindsAccountsContract,
    testing.DiagnosableContract,
    TestCase,
):
    """The contract, with the accounts in a file."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        path = Path(self.mktemp())
        path.write_text(yaml.safe_dump({"users": {"alice": an_account()}}))
        return bcrypt_provider({"path": str(path)})


class WrappedContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, for a provider with all wrappers that the configuration can add."""

    def make_provider(self) -> IPasswordProvider:
        plugin = ProviderPlugin.model_validate(
            {
                "module": "a.b",
                "circuit_breaker": {},
                "cache": {"lifetime": "1m"},
                "on_unavailable": "next",
            }
        )
        mine = bcrypt_provider({"users": {"alice": an_account()}})
        return compose.wrap(plugin, mine, Clock(), compose.meter(Counter()))


class BcryptTestCase(SynchronousTestCase):
    """A case with helpers that ask a provider."""

    def authenticate(
        self, provider: IPasswordProvider, identifier: Identifier, password: str = "wonderland"
    ) -> Account | None:
        """Log in; return the account."""
        return self.successResultOf(provider.authenticate(identifier, password))

    def status(
        self, provider: IPasswordProvider, user_id: str = "@alice:example.com"
    ) -> AccountStatus | None:
        """Look at an account; return its status."""
        return self.successResultOf(provider.account_status(user_id))

    def problem(self, config: Mapping[str, Any], folder: Path = Path()) -> ConfigError:
        """Return the error of a configuration, and assert that it is one line without a hash."""
        with self.assertRaises(ConfigError) as raised:
            BcryptProvider.parse_config(config, folder)
        error: ConfigError = raised.exception
        self.assertNotIn("\n", str(error))
        self.assertNotIn(WONDERLAND, str(error))
        return error


class BcryptProviderTests(BcryptTestCase):
    """Accounts with bcrypt hashes, in a file or in the configuration."""

    def test_interfaces(self) -> None:
        """The class is a plugin and implements a provider."""
        self.assertTrue(IPluginClass.providedBy(BcryptProvider))
        self.assertTrue(verifyClass(IPasswordProvider, BcryptProvider))

    def test_account(self) -> None:
        """A login returns all that the file has of the account."""
        provider = bcrypt_provider(
            {
                "users": {
                    "alice": an_account(
                        emails=["Alice@example.com", "a@example.org"], display_name="Alice"
                    )
                }
            }
        )
        self.assertEqual(
            self.authenticate(provider, user("alice")),
            Account(
                "@alice:example.com",
                "Alice",
                ("Alice@example.com", "a@example.org"),
                status=AccountStatus.ACTIVE,
                subject="alice",
            ),
        )

    def test_spelling(self) -> None:
        """The user ID is made from the name as it is stored, however the client spells it; the name
        as it is stored is the account's subject.
        """
        provider = bcrypt_provider({"users": {"Alice": an_account()}})
        for spelled in ("alice", "Alice", "ALICE"):
            account = self.authenticate(provider, user(spelled))
            assert account is not None
            self.assertEqual((account.user_id, account.subject), ("@alice:example.com", "Alice"))
        for subject in ("Alice", "@Alice:example.com"):
            self.assertIs(self.status(provider, subject), AccountStatus.ACTIVE)
        for subject in ("alice", "ALICE", "@alice:example.com"):
            self.assertIsNone(self.status(provider, subject))

    def test_impossible_names(self) -> None:
        """A name that makes no user ID is a mistake in the configuration: nothing logs in by it."""
        for name in ("käse", "\u212aate", "a,b"):
            with self.assertRaises(ConfigError) as raised:
                bcrypt_provider({"users": {name: an_account(), "kate": an_account(BUILDER)}})
            self.assertEqual(raised.exception.path, f"users.{name}")
            self.assertIn("not a local part of a user ID", raised.exception.problem)

    def test_third_party(self) -> None:
        """An account is found by its e-mail addresses and telephone numbers too."""
        provider = bcrypt_provider(
            {
                "users": {
                    "alice": an_account(emails=["Alice@Example.com"], phones=["447700900123"]),
                    "bob": an_account(BUILDER, emails=["bob@example.com"]),
                }
            }
        )
        for identifier, password, expected in (
            (EmailIdentifier("alice@example.com"), "wonderland", "@alice:example.com"),
            (PhoneIdentifier("447700900123"), "wonderland", "@alice:example.com"),
            (EmailIdentifier("bob@example.com"), "builder", "@bob:example.com"),
        ):
            account = self.authenticate(provider, identifier, password)
            assert account is not None
            self.assertEqual(account.user_id, expected)
            self.failureResultOf(provider.authenticate(identifier, "x"), InvalidCredentials)
        for unknown in (EmailIdentifier("carol@example.com"), PhoneIdentifier("447700900124")):
            self.assertIsNone(self.authenticate(provider, unknown))

    def test_pepper(self) -> None:
        """A password is right only with its pepper."""
        users = {"alice": an_account(hash_password("wonderland", "salty", 4))}
        good = bcrypt_provider({"users": users, "pepper": "salty"})
        self.assertIsNotNone(self.authenticate(good, user("alice")))
        bad = bcrypt_provider({"users": users})
        self.failureResultOf(bad.authenticate(user("alice"), "wonderland"), InvalidCredentials)

    def test_long_password(self) -> None:
        """A password of 71, 72, 73 or very many bytes is right or wrong, and not an error."""
        for length in (71, 72, 73, 10_000):
            users = {"alice": an_account(hash_password("a" * length, "pepper", 4))}
            provider = bcrypt_provider({"users": users, "pepper": "pepper"})
            self.assertIsNotNone(self.authenticate(provider, user("alice"), "a" * length))
            self.failureResultOf(
                provider.authenticate(user("alice"), "b" * length), InvalidCredentials
            )

    def test_status(self) -> None:
        """The status is that of the file; an account with both flags is deactivated."""
        provider = bcrypt_provider(
            {
                "users": {
                    "alice": an_account(),
                    "bob": an_account(locked=True),
                    "carol": an_account(deactivated=True),
                    "dora": an_account(deactivated=True, locked=True),
                }
            }
        )
        for user_id, expected in (
            ("@alice:example.com", AccountStatus.ACTIVE),
            ("@bob:example.com", AccountStatus.LOCKED),
            ("@carol:example.com", AccountStatus.DEACTIVATED),
            ("@dora:example.com", AccountStatus.DEACTIVATED),
            ("alice", AccountStatus.ACTIVE),
            ("bob", AccountStatus.LOCKED),
            ("@emma:example.com", None),
            ("emma", None),
            ("@alice:elsewhere.example", None),
            ("@:example.com", None),
            ("", None),
        ):
            self.assertIs(self.status(provider, user_id), expected, user_id)

    def test_locked_or_deactivated(self) -> None:
        """The password of a locked or deactivated account is right or wrong as ever."""
        for flag in ("locked", "deactivated"):
            provider = bcrypt_provider({"users": {"alice": an_account(**{flag: True})}})
            self.assertIsNotNone(self.authenticate(provider, user("alice")))
            self.failureResultOf(provider.authenticate(user("alice"), "x"), InvalidCredentials)

    def test_unknown_users_are_not_hashed(self) -> None:
        """An unknown user is left to the next provider, and nothing is hashed."""
        environment = testing.environment(reactor=HandReactor())
        hashing = testing.FakeHashing()
        hashing.failure = ZeroDivisionError()
        config = BcryptProvider.parse_config({"users": {"alice": an_account()}}, Path())
        provider = BcryptProvider(config, replace(environment, hashing=hashing))
        self.assertIsNone(self.authenticate(provider, user("bob")))
        self.assertIsNone(self.authenticate(provider, user("alice", "elsewhere.example")))

    def test_overloaded(self) -> None:
        """When the hashing queue is full, a login fails with ``Overloaded``."""
        hashing = testing.FakeHashing()
        hashing.failure = Overloaded(1.0)
        config = BcryptProvider.parse_config({"users": {"alice": an_account()}}, Path())
        environment = replace(testing.environment(reactor=HandReactor()), hashing=hashing)
        provider = BcryptProvider(config, environment)
        self.failureResultOf(provider.authenticate(user("alice"), "wonderland"), Overloaded)

    def test_usual_cost(self) -> None:
        """It reports the cost of its hashes, so that a decoy costs as much."""
        hashing = testing.FakeHashing()
        environment = replace(testing.environment(reactor=HandReactor()), hashing=hashing)
        users = {
            "alice": an_account(),
            "bob": an_account(hash_password("x", "", 5)),
            "carol": an_account(hash_password("y", "", 5)),
        }
        BcryptProvider(BcryptProvider.parse_config({"users": users}, Path()), environment)
        self.assertEqual(hashing.kinds, [new_hashes(5).kind])
        BcryptProvider(BcryptProvider.parse_config({"users": {}}, Path()), environment)
        self.assertEqual(hashing.kinds, [new_hashes(5).kind])


class BcryptConfigTests(BcryptTestCase):
    """Its configuration."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def test_one_of_two(self) -> None:
        """It takes either a file or the accounts themselves."""
        for config in ({}, {"path": "users.yaml", "users": {}}, {"pepper": "x"}):
            self.assertIn("either path or users", str(self.problem(config)))

    def test_unknown_key(self) -> None:
        """An unknown key is rejected by its name."""
        error = self.problem({"users": {}, "peper": "x"})
        self.assertEqual(
            (error.path, error.problem), ("peper", "unknown key: did you mean pepper?")
        )

    def test_relative_path(self) -> None:
        """A path is relative to the configuration."""
        (self.folder / "users.yaml").write_text(yaml.safe_dump({"users": {"alice": an_account()}}))
        provider = bcrypt_provider({"path": "users.yaml"}, self.folder)
        self.assertIsNotNone(self.authenticate(provider, user("alice")))

    def test_inline_mistake(self) -> None:
        """A mistake in the accounts themselves is named by its path."""
        error = self.problem({"users": {"alice": an_account("ilovebananas")}})
        self.assertEqual(error.path, "users.alice.password_hash")
        self.assertNotIn("ilovebananas", str(error))

    def test_file_mistakes(self) -> None:
        """The error of a file names the file, and the place of the mistake in it."""
        path = self.folder / "users.yaml"
        for text, expected in (
            (None, "No such file"),
            ("users: [", "line"),
            ("users:\n  alice: {}\n  alice: {}\n", "twice"),
            ("- users\n", "mapping"),
            ("users: {alice: {password_hash: x}}\n", "users.alice.password_hash"),
            ("users: {}\nmore: x\n", "more"),
            ("", "the file is empty"),
        ):
            if text is not None:
                path.write_text(text)
            error = self.problem({"path": "users.yaml"}, self.folder)
            self.assertEqual(error.path, "path")
            self.assertIn("users.yaml", error.problem)
            self.assertIn(expected, error.problem)


class DirectoryTests(SynchronousTestCase):
    """The accounts of a mapping."""

    def read(self, **users: Any) -> UserIndex:
        """Make the index of some accounts."""
        return UserIndex.read({"users": users})

    def problem(self, given: Mapping[str, Any]) -> ConfigError:
        """Return the error of a mapping."""
        with self.assertRaises(ConfigError) as raised:
            UserIndex.read(given)
        error: ConfigError = raised.exception
        return error

    def find(self, directory: UserIndex, localpart: str) -> str | None:
        """Find the account of a user ID."""
        return directory.find(user(localpart), SERVER)

    def test_case(self) -> None:
        """An account is found by its name in any case."""
        directory = self.read(Alice=an_account(), bob=an_account())
        for spelled in ("alice", "Alice", "ALICE"):
            self.assertEqual(self.find(directory, spelled), "Alice")
        self.assertIsNone(self.find(directory, "alic"))

    def test_one_user_id(self) -> None:
        """Names that differ in case alone are a mistake: they would make one user ID. A letter that
        only ``str.lower`` makes the same is none of a user ID.
        """
        error = self.problem({"users": {"alice": an_account(), "Alice": an_account()}})
        self.assertEqual(error.path, "users.Alice")
        self.assertIn("Alice differs from alice in case alone", error.problem)
        error = self.problem({"users": {"kate": an_account(), "\u212aate": an_account()}})
        self.assertIn("not a local part", error.problem)

    def test_other_server(self) -> None:
        """A user ID of another server finds no account, even if its name differs only in case."""
        directory = self.read(alice=an_account())
        for server in ("elsewhere.example", "", "Example.com", "example.com:443", "example.com."):
            self.assertIsNone(directory.find(user("alice", server), SERVER))

    def test_email(self) -> None:
        """An e-mail address finds its account, whatever the case that it is stored in."""
        directory = self.read(
            alice=an_account(emails=["Alice@Example.com", "a@example.org"]), bob=an_account()
        )
        for address in ("alice@example.com", "a@example.org"):
            self.assertEqual(directory.find(EmailIdentifier(address), SERVER), "alice")
        self.assertEqual(
            self.read(alice=an_account(emails=[" Straße@X.EXAMPLE "])).by_email,
            {"strasse@x.example": "alice"},
        )
        for address in ("bob@example.com", "", "alice"):
            self.assertIsNone(directory.find(EmailIdentifier(address), SERVER))

    def test_no_email(self) -> None:
        """A text that is not an e-mail address is a mistake."""
        for address in ("alice", "a@b@c"):
            error = self.problem({"users": {"alice": an_account(emails=[address])}})
            self.assertEqual(
                (error.path, error.problem), ("users.alice.emails.0", "not an e-mail address")
            )

    def test_phone(self) -> None:
        """A telephone number finds its account."""
        directory = self.read(alice=an_account(phones=["447700900123", "4930901820"]))
        for msisdn in ("447700900123", "4930901820"):
            self.assertEqual(directory.find(PhoneIdentifier(msisdn), SERVER), "alice")
        self.assertIsNone(directory.find(PhoneIdentifier("447700900124"), SERVER))

    def test_kinds_apart(self) -> None:
        """A name of one kind finds no account by a name of another."""
        directory = self.read(**{"447700900123": an_account(), "bob": an_account(phones=["12345"])})
        self.assertIsNone(directory.find(PhoneIdentifier("447700900123"), SERVER))
        self.assertIsNone(directory.find(EmailIdentifier("bob"), SERVER))
        self.assertIsNone(self.find(directory, "12345"))

    def test_duplicates(self) -> None:
        """An e-mail address or number of two accounts is refused, naming the second, in whatever
        case; one that an account has twice is not.
        """
        for field, first, second in (
            ("emails", "alice@example.com", "alice@example.com"),
            ("emails", "alice@example.com", "ALICE@example.COM"),
            ("phones", "447700900123", "447700900123"),
        ):
            error = self.problem(
                {
                    "users": {
                        "alice": an_account(**{field: [first]}),
                        "bob": an_account(**{field: [second]}),
                    }
                }
            )
            self.assertEqual(error.path, f"users.bob.{field}")
            self.read(alice=an_account(**{field: [first, second]}))

    def test_mistakes(self) -> None:
        """Every mistake is named by its path."""
        for given, path in (
            ({}, "users"),
            ({"users": []}, "users"),
            ({"users": {"alice": None}}, "users.alice"),
            ({"users": {"alice": {}}}, "users.alice.password_hash"),
            ({"users": {"alice": {"password_hash": 5}}}, "users.alice.password_hash"),
            ({"users": {"alice": an_account("$1$x$y")}}, "users.alice.password_hash"),
            ({"users": {"alice": an_account("disabled")}}, "users.alice.password_hash"),
            (
                {"users": {"alice": an_account(WONDERLAND[:28] + "/" + WONDERLAND[29:])}},
                "users.alice.password_hash",
            ),
            ({"users": {"alice": an_account(emails="a@b")}}, "users.alice.emails"),
            ({"users": {"alice": an_account(emails=[5])}}, "users.alice.emails.0"),
            ({"users": {"alice": an_account(phones=["+44"])}}, "users.alice.phones.0"),
            ({"users": {"alice": an_account(phones=[447])}}, "users.alice.phones.0"),
            ({"users": {"alice": an_account(phones=[""])}}, "users.alice.phones.0"),
            ({"users": {"alice": an_account(phones=["٤٤"])}}, "users.alice.phones.0"),
            ({"users": {"alice": an_account(locked="yes")}}, "users.alice.locked"),
            ({"users": {"alice": an_account(deactivated=1)}}, "users.alice.deactivated"),
            ({"users": {"alice": an_account(display_name=5)}}, "users.alice.display_name"),
            ({"users": {"alice": an_account(lockd=True)}}, "users.alice.lockd"),
        ):
            self.assertEqual(self.problem(given).path, path, given)

    def test_bad_names(self) -> None:
        """A text that cannot be the local part of a user ID is no name."""
        for name in ("", "@alice", "alice:example.com", "al\nice", "al\0ice", "älice", "a" * 256):
            self.assertIn("local part", str(self.problem({"users": {name: an_account()}})))
        self.read(**{"a" * 255: an_account(), "alice=/+._-": an_account()})

    def test_usual_cost(self) -> None:
        """Hashes are counted by their kind."""
        costly = hash_password("x", "", 5)
        directory = self.read(a=an_account(costly), b=an_account(), c=an_account(BUILDER))
        cheap = parse_hash(BUILDER).kind
        self.assertEqual(directory.kinds, {cheap: 2, parse_hash(costly).kind: 1})
        self.assertEqual(self.read().kinds, {})


class ReloadTests(BcryptTestCase):
    """A users file that changes."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.reactor = HandReactor()
        self.moment = 1_000_000_000
        self.write({"alice": an_account()})
        self.hashing = testing.FakeHashing()
        config = BcryptProvider.parse_config({"path": str(self.path)}, Path())
        environment = testing.environment(reactor=self.reactor)
        self.provider = BcryptProvider(config, replace(environment, hashing=self.hashing))

    def write(self, users: Any) -> None:
        """Write the file in place, at a later moment."""
        self.write_text(yaml.safe_dump({"users": users}))

    def write_text(self, text: str) -> None:
        """Write the file in place, at a later moment."""
        self.path.write_text(text)
        self.moment += 1_000_000_000
        os.utime(self.path, ns=(self.moment, self.moment))

    def knows(self, localpart: str, password: str = "wonderland") -> bool:
        """Say whether the password is right at the moment."""
        deferred = self.provider.authenticate(user(localpart), password)
        results: list[Any] = []
        deferred.addCallbacks(results.append, lambda failure: failure.trap(InvalidCredentials))
        return bool(results and results[0])

    def errors(self, events: list[Any]) -> list[str]:
        """The errors among log events."""
        return [formatEvent(event) for event in events if event["log_level"] is LogLevel.error]

    def test_changed(self) -> None:
        """A change counts from the next login on, for passwords, accounts and statuses alike."""
        self.write({"alice": an_account(BUILDER, locked=True), "bob": an_account()})
        self.assertTrue(self.knows("bob"))
        self.assertFalse(self.knows("alice"))
        self.assertTrue(self.knows("alice", "builder"))
        self.assertIs(self.status(self.provider), AccountStatus.LOCKED)
        self.write({"bob": an_account()})
        self.assertIsNone(self.status(self.provider))

    def test_status_first(self) -> None:
        """A change counts from the next refresh on too."""
        self.write({"alice": an_account(deactivated=True)})
        self.assertIs(self.status(self.provider), AccountStatus.DEACTIVATED)

    def test_read_once(self) -> None:
        """A file that did not change is not read again."""
        self.reactor.pool.held = True
        self.assertTrue(self.knows("alice"))
        self.assertEqual(self.reactor.pool.waiting, [])
        self.reactor.pool.held = False
        self.write({"bob": an_account()})
        self.assertTrue(self.knows("bob"))
        self.reactor.pool.held = True
        self.assertTrue(self.knows("bob"))
        self.assertEqual(self.reactor.pool.waiting, [])

    def test_not_on_the_reactor_thread(self) -> None:
        """The file is read on a thread, and the login waits for it."""
        self.reactor.pool.held = True
        self.write({"bob": an_account()})
        asked = self.provider.authenticate(user("bob"), "wonderland")
        self.assertNoResult(asked)
        self.reactor.pool.work()
        self.assertIsNotNone(self.successResultOf(asked))

    def test_replaced(self) -> None:
        """A file put in place by a rename counts, even when it is as old and long as the old."""
        old = os.stat(self.path)
        other = self.path.with_suffix(".new")
        text = self.path.read_text()
        other.write_text(text.replace("alice", "carol"))
        os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
        self.assertEqual(os.stat(other).st_size, old.st_size)
        os.replace(other, self.path)
        self.assertTrue(self.knows("carol"))
        self.assertFalse(self.knows("alice"))

    def test_same_moment(self) -> None:
        """A change within the same moment of the clock counts when the length changed."""
        before = os.stat(self.path)
        self.path.write_text(yaml.safe_dump({"users": {"someone_else": an_account()}}))
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertTrue(self.knows("someone_else"))

    def test_broken(self) -> None:
        """A broken new version is logged once, by its mistake, and the last good one kept."""
        for text in (
            "users: [",
            "users: {}",
            "users: {alice: {password_hash: ilovebananas}}",
            "nonsense",
            "",
            "users:\n  alice: &a {x: *a}\n",
            "\0\1\2",
            "users: " + "[" * 100_000,
        ):
            with capturedLogs() as events:
                self.write_text(text)
                for _ in range(3):
                    self.assertTrue(self.knows("alice"))
                    self.assertIs(self.status(self.provider), AccountStatus.ACTIVE)
            (error,) = self.errors(list(events))
            self.assertIn(str(self.path), error)
            self.assertNotIn("ilovebananas", error)

    def test_empty_at_first(self) -> None:
        """A file may be empty at the start, which is logged; accounts that come later count."""
        self.write_text("users: {}")
        environment = replace(testing.environment(reactor=self.reactor), hashing=self.hashing)
        with capturedLogs() as events:
            config = BcryptProvider.parse_config({"path": str(self.path)}, Path())
            self.provider = BcryptProvider(config, environment)
        (event,) = events
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertFalse(self.knows("alice"))
        self.write({"alice": an_account()})
        self.assertTrue(self.knows("alice"))

    def test_mended(self) -> None:
        """Once it is mended the new version counts."""
        self.write_text("users: [")
        self.assertTrue(self.knows("alice"))
        self.write({"bob": an_account()})
        self.assertTrue(self.knows("bob"))
        self.assertFalse(self.knows("alice"))

    def test_mended_by_going_back(self) -> None:
        """The version that was good before is good again."""
        self.write_text("users: [")
        self.assertTrue(self.knows("alice"))
        with capturedLogs() as events:
            self.write({"alice": an_account()})
            self.assertTrue(self.knows("alice"))
        self.assertEqual(self.errors(list(events)), [])

    def test_removed(self) -> None:
        """A file that is gone is logged once, the last version kept, and one put back read."""
        text = self.path.read_text()
        with capturedLogs() as events:
            self.path.unlink()
            for _ in range(3):
                self.assertTrue(self.knows("alice"))
        self.assertEqual(len(self.errors(list(events))), 1)
        self.write_text(text.replace("alice", "carol"))
        self.assertTrue(self.knows("carol"))
        self.assertFalse(self.knows("alice"))

    def test_cost(self) -> None:
        """The new cost of the hashes is reported."""
        self.write({"alice": an_account(hash_password("x", "", 5))})
        self.assertTrue(self.knows("alice", "x"))
        self.assertEqual(self.hashing.kinds, [new_hashes(cost).kind for cost in (4, 5)])

    def test_changed_while_reading(self) -> None:
        """A change that comes while the file is read is not missed."""
        self.reactor.pool.held = True
        self.write({"bob": an_account()})
        first = self.provider.authenticate(user("bob"), "wonderland")
        self.reactor.pool.work()
        self.successResultOf(first)
        self.write({"carol": an_account()})
        second = self.provider.authenticate(user("carol"), "wonderland")
        self.write({"dora": an_account()})
        third = self.provider.authenticate(user("dora"), "wonderland")
        self.reactor.pool.held = False
        self.reactor.pool.work()
        self.successResultOf(second)
        self.assertIsNotNone(self.successResultOf(third))

    def test_changed_after_reading(self) -> None:
        """A change after the file was read, and before the result is delivered, is not missed."""
        self.reactor.pool.held = True
        self.write({"bob": an_account()})
        first = self.provider.authenticate(user("bob"), "wonderland")
        tell = self.reactor.callFromThread

        def change_first(function: Callable[..., object], *arguments: object) -> None:
            self.reactor.callFromThread = tell  # type: ignore[method-assign]
            self.write({"carol": an_account()})
            tell(function, *arguments)

        self.reactor.callFromThread = change_first  # type: ignore[method-assign]
        second = self.provider.authenticate(user("carol"), "wonderland")
        self.reactor.pool.work()
        self.assertNoResult(second)
        self.reactor.pool.work()
        self.assertIsNone(self.successResultOf(first))
        self.assertIsNotNone(self.successResultOf(second))

    def test_read_in_vain(self) -> None:
        """A change that cannot be read for a moment counts as soon as it can; that is logged
        once.
        """

        def fail(*_: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        self.write({"bob": an_account()})
        patch = self.patch(filewatch, "_open_at_once", fail)
        with capturedLogs() as events:
            for _ in range(3):
                self.assertTrue(self.knows("alice"))
        (error,) = self.errors(list(events))
        self.assertIn("cannot read it: Too many open files", error)
        patch.restore()
        self.assertFalse(self.knows("alice"))
        self.assertTrue(self.knows("bob"))

    def test_version_read_in_vain(self) -> None:
        """The version changes with a file that cannot be read for a moment, and again once it could
        be, which each look at the version tries. Else a lock would be seen much later.
        """

        def fail(*_: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        first = self.provider.version()
        patch = self.patch(filewatch, "_open_at_once", fail)
        self.write({"alice": an_account(locked=True)})
        changed = self.provider.version()
        self.assertNotEqual(changed, first)
        for _ in range(3):
            self.assertIs(self.status(self.provider), AccountStatus.ACTIVE)
            self.assertEqual(self.provider.version(), changed)
        patch.restore()
        read = self.provider.version()
        self.assertNotIn(read, (first, changed))
        self.reactor.pool.held = True
        self.assertIs(self.status(self.provider), AccountStatus.LOCKED)
        self.assertEqual(self.provider.version(), read)

    def test_asked_while_reading(self) -> None:
        """A login that comes while a change is being read is checked against the change."""
        self.write({"alice": an_account(deactivated=True)})
        self.reactor.pool.held = True
        first = self.provider.account_status("@alice:example.com")
        second = self.provider.account_status("@alice:example.com")
        self.reactor.pool.held = False
        self.reactor.pool.work()
        self.assertIs(self.successResultOf(first), AccountStatus.DEACTIVATED)
        self.assertIs(self.successResultOf(second), AccountStatus.DEACTIVATED)

    def test_cancelled_while_reading(self) -> None:
        """A change counts even when the client that came upon it first goes away."""
        self.write({"alice": an_account(deactivated=True)})
        self.reactor.pool.held = True
        gone = self.provider.authenticate(user("alice"), "wonderland")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.reactor.pool.held = False
        self.reactor.pool.work()
        self.assertIs(self.status(self.provider), AccountStatus.DEACTIVATED)
