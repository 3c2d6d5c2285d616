"""Tests for twisted.cred's checkers as providers."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

from twisted.cred.checkers import FilePasswordDB, ICredentialsChecker
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass

from synapse_login_module import testing
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    ProviderUnavailable,
    UnusableAccount,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.cred import CredProvider
from tests.providers.case import PASSWORD, ProviderCase, email, fake_hashing, lines, phone, user
from tests.support.accounts import ALICE
from tests.support.waiting import until

HERE = __name__

VOUCHED = Account(ALICE, subject="alice")


@implementer(ICredentialsChecker)
class ScriptedChecker:
    """Does what the test says.

    :param answer: returned, or raised when it is an exception.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[bytes, bytes]] = []
        self.threads: set[int] = set()

    def requestAvatarId(self, credentials: Any) -> Any:
        """Answer."""
        self.asked.append((credentials.username, credentials.password))
        self.threads.add(threading.get_ident())
        if callable(self.answer):
            return self.answer()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@implementer(ICredentialsChecker)
class AnonymousChecker:
    """Checks no passwords."""

    credentialInterfaces = (IAnonymous,)

    def requestAvatarId(self, credentials: Any) -> Any:
        """Accept every password."""
        return ()


class CredCase(ProviderCase):
    """Checkers."""

    def file_provider(self, **config: Any) -> CredProvider:
        """One of Twisted's own: a file of names and passwords."""
        path = self.write("passwords", "alice:wonderland\nbob:builder\n")
        built: CredProvider = self.build(
            CredProvider,
            {
                "checker": "twisted.cred.checkers.FilePasswordDB",
                "arguments": {"filename": str(path)},
                **config,
            },
        )
        return built

    def scripted(self, answer: Any, **config: Any) -> CredProvider:
        """One that answers so."""
        built: CredProvider = self.build(
            CredProvider,
            {"checker": f"{HERE}.ScriptedChecker", "arguments": {"answer": answer}, **config},
        )
        self.checker: ScriptedChecker = built._checker
        return built


class CredContractTests(testing.PasswordProviderContract, CredCase):
    """The contract where every refusal goes on to the next, but for refusals themselves."""

    knows_accounts = False

    def make_provider(self) -> IPasswordProvider:
        return self.file_provider(unknown="next")

    async def test_wrong_password(self) -> None:
        """A checker does not tell a wrong password from an unknown user: it goes on to the next."""
        provider = self.file_provider(unknown="next")
        for password in ("looking-glass", "", "wonderland\0", "*", "\ud800"):
            self.assertIsNone(await provider.authenticate(user("alice"), password))


class RejectingCredContractTests(testing.PasswordProviderContract, CredCase):
    """The contract where every refusal is final."""

    knows_accounts = False

    def make_provider(self) -> IPasswordProvider:
        return self.file_provider()

    async def test_interface(self) -> None:
        """A refusal of an unknown user is one of the interface's answers."""
        provider = self.file_provider()
        await self.fails(provider.authenticate(user("nobody"), "x"), InvalidCredentials)

    async def test_unknown_user(self) -> None:
        """An unknown user is refused like a wrong password."""
        provider = self.file_provider()
        for name in ("nobody", "*", "alice)(uid=*", "alice:wonderland"):
            asked = provider.authenticate(user(name), PASSWORD)
            if ":" in name:
                self.assertIsNone(await asked)
            else:
                await self.fails(asked, InvalidCredentials)


class EchoingCredContractTests(CredContractTests):
    """The contract for a checker that ignores case and returns the name as it was typed."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        arguments = {"filename": str(self.folder() / "passwords"), "caseSensitive": False}
        return self.file_provider(unknown="next", arguments=arguments)


class CredTests(CredCase):
    """Checkers of all sorts."""

    def test_interfaces(self) -> None:
        """The class is a plugin and implements a provider; Twisted's file is what we say it is."""
        self.assertTrue(IPluginClass.providedBy(CredProvider))
        self.assertTrue(verifyClass(IPasswordProvider, CredProvider))
        self.assertTrue(ICredentialsChecker.implementedBy(FilePasswordDB))

    async def test_avatar_ids(self) -> None:
        """The avatar ID is a local part or a user ID, as bytes or text, now or later."""
        for avatar_id in (
            *("alice", b"alice", ALICE, ALICE.encode()),
            *(lambda: succeed(b"alice"), lambda: succeed("alice")),
        ):
            account = await self.scripted(avatar_id).authenticate(user("Alice"), PASSWORD)
            self.assertEqual(account, VOUCHED)

    async def test_unusable_avatar_ids(self) -> None:
        """Any other avatar ID is an outage: anonymous, empty, or a user of another server."""
        for avatar_id in ((), None, 7, b"", "", "@alice:elsewhere.example", b"\xff\xfe\n", "@a:b"):
            asked = self.scripted(avatar_id).authenticate(user("alice"), PASSWORD)
            await self.fails(asked, UnusableAccount)

    async def test_impossible_names(self) -> None:
        """A name that makes no user ID is refused, and the log says whose and where."""
        for avatar_id, typed in (("a:b", "alice"), ("aliçe", "aliçe"), ("\u212aate", "kate")):
            events = self.catch_log()
            asked = self.scripted(avatar_id).authenticate(user(typed), PASSWORD)
            error = await self.fails(asked, InvalidCredentials)
            self.assertEqual(error.reason, "bad_user_id")
            (line,) = lines(events, LogLevel.warn)
            self.assertEqual(line, f"cred: {avatar_id!r} cannot log in: its name makes no user ID")

    async def test_echo(self) -> None:
        """What was asked for, given back in whatever case, is one account; a user ID that is
        another's stays as it is.
        """
        for typed in ("alice", "Alice", "ALICE"):
            for avatar_id in (typed, f"@{typed}:example.com"):
                account = await self.scripted(avatar_id).authenticate(user(typed), PASSWORD)
                self.assertEqual(account, VOUCHED)
        account = await self.scripted("@Old:example.com").authenticate(user("alice"), PASSWORD)
        assert account is not None
        self.assertEqual((account.user_id, account.subject), ("@Old:example.com",) * 2)

    async def test_refusals(self) -> None:
        """UnauthorizedLogin is a refusal, raised or fired, of whatever subclass."""

        class TooEarly(UnauthorizedLogin):
            pass

        for answer in (
            *(UnauthorizedLogin(), TooEarly("x")),
            lambda: fail(UnauthorizedLogin()),
        ):
            asked = self.scripted(answer).authenticate(user("alice"), PASSWORD)
            await self.fails(asked, InvalidCredentials)
            asked = self.scripted(answer, unknown="next").authenticate(user("alice"), PASSWORD)
            self.assertIsNone(await asked)

    async def test_other_errors(self) -> None:
        """Every other error is an outage; its text, which may hold a password, is not passed on."""
        for answer in (
            *(ValueError(PASSWORD), LoginFailed(PASSWORD), OSError(PASSWORD)),
            lambda: fail(RuntimeError(PASSWORD)),
        ):
            asked = self.scripted(answer).authenticate(user("alice"), PASSWORD)
            problem = str(await self.fails(asked, ProviderUnavailable))
            self.assertNotIn(PASSWORD, problem)
            self.assertIn("in the checker", problem)

    async def test_our_errors(self) -> None:
        """A checker that knows this package may fail in its words."""
        asked = self.scripted(ProviderUnavailable("the tea party")).authenticate(user("alice"), "x")
        self.assertEqual(str(await self.fails(asked, ProviderUnavailable)), "the tea party")

    async def test_usernames(self) -> None:
        """The checker gets the local part, or the whole user ID, as UTF-8."""
        await self.scripted("alice").authenticate(user("aliçe"), "pä")
        self.assertEqual(self.checker.asked, [("aliçe".encode(), "pä".encode())])
        await self.scripted("alice", username="user_id").authenticate(user("alice"), "x")
        self.assertEqual(self.checker.asked, [(ALICE.encode(), b"x")])

    async def test_identifiers(self) -> None:
        """E-mail addresses and telephone numbers are asked for where the checker knows them."""
        provider = self.scripted("alice")
        for identifier in (email(), phone(), user("alice", "elsewhere.example"), user("")):
            self.assertIsNone(await provider.authenticate(identifier, PASSWORD))
        self.assertEqual(self.checker.asked, [])
        provider = self.scripted("alice", identifiers=["email", "phone"])
        for identifier in (email(), phone()):
            account = await provider.authenticate(identifier, PASSWORD)
            self.assertEqual(account, VOUCHED)
        self.assertIsNone(await provider.authenticate(user("alice"), PASSWORD))
        names = [name for name, _ in self.checker.asked]
        self.assertEqual(names, [b"alice@example.com", b"447700900123"])

    async def test_no_decoys(self) -> None:
        """It hashes nothing: a refusal is one and the same for all."""
        environment = self.environment()
        config = {"checker": f"{HERE}.ScriptedChecker", "arguments": {"answer": None}}
        provider = self.build(CredProvider, config, environment)
        await self.fails(provider.authenticate(user("alice"), "x"), ProviderUnavailable)
        self.assertEqual(fake_hashing(environment).decoys, [])

    async def test_status(self) -> None:
        """No user of this server can be checked."""
        provider = self.scripted(None)
        self.assertFalse(provider.verifiable)
        for subject in (ALICE, "alice"):
            self.assertIs(await provider.account_status(subject), AccountStatus.UNVERIFIABLE)
        for stranger in ("@alice:elsewhere.example", "@", ""):
            self.assertIsNone(await provider.account_status(stranger))

    async def test_threads(self) -> None:
        """A checker that blocks can have threads of its own, and uses no others."""
        provider = self.scripted("alice", threads=1)
        self.assertEqual(await provider.authenticate(user("alice"), PASSWORD), VOUCHED)
        self.assertNotIn(threading.get_ident(), self.checker.threads)
        provider = self.scripted(lambda: succeed("alice"), threads=1)
        self.assertEqual(await provider.authenticate(user("alice"), PASSWORD), VOUCHED)
        provider = self.scripted(UnauthorizedLogin(), threads=1)
        await self.fails(provider.authenticate(user("alice"), PASSWORD), InvalidCredentials)

    async def test_blocked(self) -> None:
        """While its threads are blocked others wait, and too many are an outage at once."""
        blocked = threading.Event()
        self.addCleanup(blocked.set)

        def answer() -> str:
            blocked.wait()
            return "alice"

        provider = self.scripted(answer, threads=1)
        waiting = [provider.authenticate(user("alice"), PASSWORD) for _ in range(65)]
        await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)
        waiting[-1].cancel()
        await self.fails(waiting.pop(), CancelledError)
        blocked.set()
        for each in waiting:
            self.assertEqual(await each, VOUCHED)

    async def test_cancelled(self) -> None:
        """A client that goes away cancels what the checker is at, and that is no outage."""
        cancelled: list[Any] = []
        never: Deferred[Any] = Deferred(cancelled.append)
        asked = self.scripted(lambda: never).authenticate(user("alice"), PASSWORD)
        asked.cancel()
        await self.fails(asked, CancelledError)
        self.assertEqual(cancelled, [never])

    async def test_cancelled_in_a_thread(self) -> None:
        """A refusal that comes after the login was cancelled is not logged as an error."""
        began, free = threading.Event(), threading.Event()
        self.addCleanup(free.set)

        def answer() -> Deferred[Any]:
            began.set()
            free.wait()
            return fail(UnauthorizedLogin())

        provider = self.scripted(answer, threads=1)
        asked = provider.authenticate(user("alice"), PASSWORD)
        next_asked = provider.authenticate(user("bob"), PASSWORD)
        await until(began.is_set)
        asked.cancel()
        await self.fails(asked, CancelledError)
        free.set()
        await self.fails(next_asked, InvalidCredentials)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])


class CredConfigTests(SynchronousTestCase):
    """Its configuration."""

    def problem(self, **config: Any) -> str:
        """What is wrong with a configuration, on one line."""
        with self.assertRaises(ConfigError) as raised:
            parsed = CredProvider.parse_config(config, Path())
            CredProvider(parsed, testing.environment())
        problem = str(raised.exception)
        self.assertNotIn("\n", problem)
        return problem

    def test_no_checker(self) -> None:
        """A class that is not there, or is no checker, stops the start."""
        for path, problem in (
            ("nowhere.Checker", "checker: cannot import it"),
            ("checker", "checker: String should match pattern"),
            ("builtins.dict", "checker: it is no class that implements ICredentialsChecker"),
            ("os.getcwd", "checker: it is no class that implements ICredentialsChecker"),
            (f"{HERE}.AnonymousChecker", "checker: it does not check a name and a password"),
        ):
            self.assertTrue(self.problem(checker=path).startswith(problem))

    def test_arguments(self) -> None:
        """Arguments that the class does not take stop the start."""
        problem = self.problem(checker=f"{HERE}.ScriptedChecker", arguments={"x": 1})
        self.assertTrue(problem.startswith("arguments: TypeError: "), problem)

    def test_keys(self) -> None:
        """The other keys have their values."""
        checker = f"{HERE}.ScriptedChecker"
        for key, value in (
            ("unknown", "ignore"),
            ("identifiers", []),
            ("identifiers", ["fax"]),
            ("username", "email"),
            ("threads", 0),
            ("thread", 1),
        ):
            self.assertTrue(self.problem(checker=checker, **{key: value}).startswith(key))
