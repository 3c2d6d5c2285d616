"""Tests for PAM: the contract on the real library, and each result of a scripted one."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from synapse_login_module import testing
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    ProviderBusy,
    ProviderUnavailable,
    UnusableAccount,
)
from synapse_login_module.interfaces import IFindsAccounts, IPasswordProvider
from synapse_login_module.model import AccountStatus, Level
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.pam import libpam, nss
from synapse_login_module.providers.pam.codes import Code, name_of
from synapse_login_module.providers.pam.config import parse
from synapse_login_module.providers.pam.libpam import LibPAM
from synapse_login_module.providers.pam.nss import UnixUser
from synapse_login_module.providers.pam.provider import PAMProvider
from tests.providers.case import PASSWORD, email, fake_hashing, lines, phone, reactor, user
from tests.providers.pam.case import ALICE_USER, USERS, PAMCase, ScriptedPAM, seconds, users_of
from tests.support.accounts import ALICE
from tests.support.pam import SERVICE
from tests.support.waiting import until

BOB_USER = UnixUser("bob", 1002, 1002)
REFUSALS = {
    Code.AUTH_ERR: "wrong_password",
    Code.MAXTRIES: "pam_maxtries",
    Code.PERM_DENIED: "pam_perm_denied",
    Code.ACCT_EXPIRED: "pam_acct_expired",
    Code.NEW_AUTHTOK_REQD: "pam_new_authtok_reqd",
    Code.AUTHTOK_EXPIRED: "pam_authtok_expired",
    Code.CRED_EXPIRED: "pam_cred_expired",
}
STATUSES = {
    Code.SUCCESS: AccountStatus.ACTIVE,
    Code.ACCT_EXPIRED: AccountStatus.DEACTIVATED,
    Code.USER_UNKNOWN: None,
    Code.AUTH_ERR: AccountStatus.LOCKED,
    Code.PERM_DENIED: AccountStatus.LOCKED,
    Code.MAXTRIES: AccountStatus.LOCKED,
    Code.NEW_AUTHTOK_REQD: AccountStatus.LOCKED,
    Code.AUTHTOK_EXPIRED: AccountStatus.LOCKED,
    Code.CRED_EXPIRED: AccountStatus.LOCKED,
}


class ContractTests(
    testing.PasswordProviderContract,
    testing.FindsAccountsContract,
    testing.DiagnosableContract,
    PAMCase,
):
    """The contract on the real library, with users of the name service."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.matrix()


class ByNameContractTests(testing.PasswordProviderContract, PAMCase):
    """The contract where names are the subjects."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.matrix(subject="name")


class WithoutNSSContractTests(testing.PasswordProviderContract, PAMCase):
    """The contract where only PAM knows the users. Its module has to tell who is unknown, which the
    one of the other tests does not.
    """

    def make_provider(self) -> IPasswordProvider:
        return self.scripted(nss=False, account_checks=True)


class UnverifiableContractTests(
    testing.PasswordProviderContract, testing.DiagnosableContract, PAMCase
):
    """The contract where accounts cannot be looked at."""

    knows_accounts = False

    def make_provider(self) -> IPasswordProvider:
        return self.matrix(nss=False, unknown="next")

    async def test_wrong_password(self) -> None:
        """The module does not tell a wrong password from an unknown user: the next is asked."""
        provider = self.matrix(nss=False, unknown="next")
        for password in ("looking-glass", "", "wonderland\0", "*", "\ud800"):
            self.assertIsNone(await provider.authenticate(user("alice"), password))
        for name in ("alice", "nobody"):
            provider = self.matrix(nss=False)
            await self.fails(provider.authenticate(user(name), "x"), InvalidCredentials)


class LibraryTests(PAMCase):
    """The real library, with Debian's own modules."""

    def library(self, *service: str) -> LibPAM:
        """The library, with a service of these lines."""
        self.service().write(*service)
        return LibPAM(SERVICE, str(self.service().services))

    def test_account(self) -> None:
        """A right password and a refused account are told apart."""
        library = self.library("auth required MATRIX", "account required pam_deny.so")
        checked = library.authenticate(b"alice", b"wonderland")
        self.assertEqual((checked.code, checked.user), (Code.SUCCESS, b"alice"))
        self.assertEqual(checked.account, library.account(b"alice"))
        self.assertNotEqual(checked.account, Code.SUCCESS)
        self.assertEqual(library.authenticate(b"alice", b"x"), (Code.AUTH_ERR, Code.IGNORE, b""))

    def test_delay(self) -> None:
        """The delay that a module asks for is not waited for."""
        library = self.library(
            "auth optional pam_faildelay.so delay=3000000", "auth required MATRIX"
        )
        took = seconds(lambda: self.assertEqual(library.authenticate(b"alice", b"x").code, 7))
        self.assertLess(took, 1.0)

    def test_question(self) -> None:
        """A module that asks visibly, as for a code, has no answer."""
        library = self.library("auth required MATRIX echo")
        self.assertEqual(library.authenticate(b"alice", b"wonderland").code, Code.CONV_ERR)

    def test_messages(self) -> None:
        """What modules say to the user is passed over."""
        library = self.library("auth required MATRIX verbose", "account required MATRIX verbose")
        self.assertEqual(library.authenticate(b"alice", b"wonderland")[:2], (0, 0))
        self.assertEqual(library.authenticate(b"alice", b"x").code, Code.AUTH_ERR)

    def test_no_module(self) -> None:
        """A module that is missing is an outage."""
        library = self.library("auth required pam_no_such_module.so")
        self.assertEqual(library.authenticate(b"alice", b"x").code, Code.MODULE_UNKNOWN)

    def test_concurrent(self) -> None:
        """Calls of several threads at once do not get in each other's way."""
        library = self.library("auth required MATRIX", "account required MATRIX")
        self.service().know({f"user{each}": f"secret{each}" for each in range(8)})
        wrong: list[Any] = []

        def work(each: int) -> None:
            for _ in range(50):
                name = f"user{each}".encode()
                good = library.authenticate(name, f"secret{each}".encode())
                bad = library.authenticate(name, f"secret{each + 1}".encode())
                if (good, bad.code) != ((0, 0, name), Code.AUTH_ERR):
                    wrong.append((good, bad))

        threads = [threading.Thread(target=work, args=(each,)) for each in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


class ResultTests(PAMCase):
    """Each result of a library, as a login and as a look at an account."""

    async def test_passwords(self) -> None:
        """Each result of ``pam_authenticate`` is a refusal with its reason, or an outage."""
        provider = self.scripted(pam := ScriptedPAM())
        for code in Code:
            if code in (Code.SUCCESS, Code.USER_UNKNOWN):
                continue
            pam.code = code
            asked = provider.authenticate(user("alice"), PASSWORD)
            if code in REFUSALS:
                error = await self.fails(asked, InvalidCredentials)
                self.assertEqual((error.reason, error.user_id), (REFUSALS[code], ALICE))
            else:
                outage = await self.fails(asked, ProviderUnavailable)
                self.assertIn(f"PAM_{code.name}", str(outage))
                self.assertEqual(isinstance(outage, UnusableAccount), code is Code.CONV_ERR)
        pam.code = Code.USER_UNKNOWN
        self.assertIsNone(await provider.authenticate(user("alice"), PASSWORD))
        pam.code = 99
        outage = await self.fails(
            provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable
        )
        self.assertIn("result 99", str(outage))
        self.assertEqual(name_of(Code.AUTH_ERR), "PAM_AUTH_ERR")

    async def test_accounts(self) -> None:
        """Each result of ``pam_acct_mgmt`` is the same at the login and later, and none is told
        without the right password.
        """
        provider = self.scripted(pam := ScriptedPAM())
        for code in Code:
            pam.account_code = code
            login = provider.authenticate(user("alice"), PASSWORD)
            look = provider.account_status("id:1001:alice")
            if code in STATUSES:
                account = await login
                status = None if account is None else account.status
                self.assertEqual((status, await look), (STATUSES[code],) * 2, code)
            else:
                for asked in (login, look):
                    outage = await self.fails(asked, ProviderUnavailable)
                    self.assertEqual(str(outage), f"pam_acct_mgmt answered PAM_{code.name}")
            await self.fails(provider.authenticate(user("alice"), "x"), InvalidCredentials)

    async def test_name_service_ends(self) -> None:
        """A user whom PAM does not know any more is not unknown if the name service went down."""
        users = users_of(*USERS)
        pam = ScriptedPAM()
        pam.passwords.clear()

        def by_name(name: str) -> UnixUser | None:
            if pam.asked or pam.looked_at:
                raise ProviderUnavailable("the name service is down")
            return users.by_name(name)

        provider = self.scripted(pam, replace(users, by_name=by_name))
        await self.fails(provider.account_status("id:1001:alice"), ProviderUnavailable)
        pam.looked_at.clear()
        await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)

    async def test_no_account_checks(self) -> None:
        """Without account checks, only the name service says what becomes of an account; PAM says
        it at the login.
        """
        provider = self.scripted(pam := ScriptedPAM(), account_checks=False)
        pam.account_code = Code.ACCT_EXPIRED
        self.assertIs(await provider.account_status("id:1001:alice"), AccountStatus.ACTIVE)
        self.assertIsNone(await provider.account_status("id:1002:bob"))
        self.assertEqual(pam.looked_at, [])
        account = await provider.authenticate(user("alice"), PASSWORD)
        assert account is not None
        self.assertIs(account.status, AccountStatus.DEACTIVATED)

    async def test_odd_passwords(self) -> None:
        """A password that PAM cannot be given is wrong, and PAM is not asked."""
        provider = self.scripted(pam := ScriptedPAM())
        pam.code = Code.SUCCESS
        for password in ("", f"{PASSWORD}\0", "\0", "x" * 512):
            await self.fails(provider.authenticate(user("alice"), password), InvalidCredentials)
        self.assertEqual(pam.asked, [])
        self.assertIsNotNone(await provider.authenticate(user("alice"), "x" * 511))

    async def test_kinds(self) -> None:
        """Addresses and telephone numbers are left to the next provider."""
        provider = self.scripted(pam := ScriptedPAM())
        for identifier in (email(), phone()):
            self.assertIsNone(await provider.authenticate(identifier, PASSWORD))
        self.assertEqual(pam.asked, [])


class WhoseTests(PAMCase):
    """Whose account it is."""

    async def subject(self, provider: PAMProvider, name: str = "alice") -> Any:
        """The subject and the user ID of a login."""
        account = await provider.authenticate(user(name), PASSWORD)
        return None if account is None else (account.subject, account.user_id)

    async def test_subjects(self) -> None:
        """The subject is the number and the name, or either."""
        for kind, subject in (("both", "id:1001:alice"), ("uid", "id:1001"), ("name", "alice")):
            provider = self.scripted(subject=kind)
            self.assertEqual(await self.subject(provider), (subject, ALICE))
            self.assertIs(await provider.account_status(subject), AccountStatus.ACTIVE)

    async def test_reused(self) -> None:
        """A name with another number, and a number with another name, are other accounts."""
        other = ALICE_USER._replace(name="carol")
        provider = self.scripted(users=users_of(other, ALICE_USER._replace(uid=1002)))
        self.assertIsNone(await provider.account_status("id:1001:alice"))
        self.assertIsNone(await provider.account_status("id:1002:carol"))
        self.assertIs(await provider.account_status("id:1002:alice"), AccountStatus.ACTIVE)
        self.assertIs(await provider.account_status("id:1002"), AccountStatus.ACTIVE)
        for odd in ("id:", "id:x", "id:1001x", "id:-1", "id:²", f"id:{2**32}", "id:1001:", "id::"):
            self.assertIsNone(await provider.account_status(odd), odd)

    async def test_system_users(self) -> None:
        """The superuser, users of the system and nobody are no accounts, and PAM never hears of
        them.
        """
        pam = ScriptedPAM()
        pam.passwords = dict.fromkeys((each.name for each in USERS), PASSWORD)
        for min_uid, names in ((1000, ("root", "daemon", "nobody")), (1, ("root", "nobody"))):
            provider = self.scripted(pam, min_uid=min_uid)
            for name in names:
                self.assertIsNone(await self.subject(provider, name))
                self.assertIsNone(await provider.account_status(name))
        self.assertEqual((pam.asked, pam.looked_at), ([], []))
        self.assertEqual(
            await self.subject(self.scripted(pam, min_uid=1), "daemon"),
            ("id:1:daemon", "@daemon:example.com"),
        )

    async def test_spelling(self) -> None:
        """A name is looked for as it was typed, then in lower case; the name service spells it."""
        bob = UnixUser("Bob", 1003, 1003)
        pam = ScriptedPAM()
        pam.passwords["Bob"] = PASSWORD
        provider = self.scripted(pam, users_of(ALICE_USER, bob))
        self.assertEqual(await self.subject(provider, "ALICE"), ("id:1001:alice", ALICE))
        self.assertEqual(await self.subject(provider, "Bob"), ("id:1003:Bob", "@bob:example.com"))
        self.assertIsNone(await self.subject(provider, "bob"))

    async def test_renamed(self) -> None:
        """A module that makes another user of a name says whose account it is."""
        provider = self.scripted(pam := ScriptedPAM())
        pam.passwords["al"] = PASSWORD
        pam.renames = {"al": "alice", "alice": "root"}
        self.assertIsNone(await self.subject(provider, "al"), "the name service does not know al")
        self.assertIsNone(await self.subject(provider), "the superuser is no account")
        self.assertEqual(await self.subject(self.scripted(pam, nss=False), "al"), ("alice", ALICE))

    async def test_odd_names(self) -> None:
        """Without the name service, only plain names are asked about."""
        provider = self.scripted(pam := ScriptedPAM(), nss=False)
        pam.code = Code.SUCCESS
        for odd in ("-x", "../alice", "a/b", "al ice", "é", "al\\ice", ".alice"):
            self.assertIsNone(await self.subject(provider, odd), odd)
        self.assertEqual(pam.asked, [])
        self.assertEqual(await self.subject(provider, "Alice"), ("alice", ALICE))

    async def test_case_without_name_service(self) -> None:
        """Two users whose names differ in case alone do not become one account."""
        provider = self.scripted(pam := ScriptedPAM(), nss=False, account_checks=True)
        pam.passwords["Alice"] = "of-another-person"
        asked = provider.authenticate(user("Alice"), "of-another-person")
        await self.fails(asked, InvalidCredentials)
        self.assertEqual(await self.subject(provider, "Alice"), ("alice", ALICE))
        self.assertIs(await provider.account_status("alice"), AccountStatus.ACTIVE)

    async def test_no_user_id(self) -> None:
        """A name that makes no user ID cannot log in, and the log says why."""
        pam = ScriptedPAM()
        pam.passwords = {"käse": PASSWORD}
        provider = self.scripted(pam, users_of(UnixUser("käse", 1004, 1004)))
        events = self.catch_log()
        error = await self.fails(provider.authenticate(user("käse"), PASSWORD), InvalidCredentials)
        self.assertEqual(error.reason, "bad_user_id")
        self.assertIn("its name makes no user ID", lines(events)[0])
        self.assertIsNone(await provider.find(user("käse")))

    async def test_full_name(self) -> None:
        """The full name is the display name; who is found has it too."""
        provider = self.scripted()
        for account in (
            await provider.authenticate(user("alice"), PASSWORD),
            await provider.find(user("alice")),
        ):
            assert account is not None
            self.assertEqual(account.display_name, "Alice Liddell")
            self.assertIs(account.status, AccountStatus.ACTIVE)

    def test_finds(self) -> None:
        """Without the name service no account can be found without its password."""
        for nss_is_asked in (True, False):
            provider = self.scripted(nss=nss_is_asked)
            self.assertEqual(IFindsAccounts.providedBy(provider), nss_is_asked)

    async def test_groups(self) -> None:
        """Only members of a group log in, by their primary group too; others are unknown."""
        numbers = {"matrix": 500, "staff": 1001}
        self.patch(nss, "number_of_group", numbers.get)
        members = {500}
        self.patch(nss, "groups_of", lambda user: {user.gid, *members})
        pam = ScriptedPAM()
        for groups, of_alice, is_known in (
            (["matrix"], {500}, True),
            (["matrix"], set(), False),
            (["matrix", "staff"], set(), True),
        ):
            members.clear()
            members.update(of_alice)
            provider = self.scripted(pam, groups=groups)
            self.assertEqual(await self.subject(provider) is not None, is_known, groups)
            status = await provider.account_status("id:1001:alice")
            self.assertEqual(status is not None, is_known)
        provider = self.scripted(pam, groups=["no-such-group"])
        with self.assertRaises(ProviderUnavailable):
            await provider.account_status("id:1001:alice")


class TimeTests(PAMCase):
    """What takes how long, and on which thread."""

    def hang(self, pam: ScriptedPAM) -> tuple[threading.Event, threading.Event]:
        """Have the library hang: an event that tells that it does, and one that ends it."""
        began, released = threading.Event(), threading.Event()
        self.addCleanup(released.set)

        def work() -> None:
            began.set()
            released.wait()

        pam.work = work
        return began, released

    async def test_even(self) -> None:
        """An unknown user, a wrong password and a locked account take the same time, whatever PAM
        takes, and each costs one decoy in all. A right password does not wait.
        """
        environment = self.environment()
        hashing = fake_hashing(environment)
        provider = self.scripted(environment=environment, failure_time=400)
        for name, password, decoys in (
            ("nobody", PASSWORD, 0),  # the provider chain hashes that one
            ("root", PASSWORD, 0),
            ("alice", "x", 1),
            ("alice", "", 1),
        ):
            hashing.decoys.clear()
            began = reactor.seconds()
            await provider.authenticate(user(name), password).addErrback(
                lambda failure: failure.trap(InvalidCredentials)
            )
            self.assertTrue(0.4 <= reactor.seconds() - began < 0.9, name)
            self.assertEqual(len(hashing.decoys), decoys)
        began = reactor.seconds()
        await provider.authenticate(user("alice"), PASSWORD)
        self.assertLess(reactor.seconds() - began, 0.3)

    async def test_too_slow(self) -> None:
        """A PAM that is slower than that is a warning, once."""
        provider = self.scripted(pam := ScriptedPAM(), failure_time=20)
        pam.work = partial(threading.Event().wait, 0.05)
        events = self.catch_log()
        for _ in range(2):
            await self.fails(provider.authenticate(user("alice"), "x"), InvalidCredentials)
        (line,) = lines(events)
        self.assertIn("raise failure_time above that", line)

    async def test_crowd(self) -> None:
        """Twenty wrong passwords, each of which waits, hold no thread: a right one is at once."""
        self.service().write(
            "auth optional pam_faildelay.so delay=2000000",
            "auth required MATRIX",
            "account required MATRIX",
        )
        provider = self.matrix(threads=1, failure_time=500)
        asked = [provider.authenticate(user("alice"), "x") for _ in range(20)]
        began = reactor.seconds()
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        took = reactor.seconds() - began
        self.assertLess(took, 0.4)
        for each in asked:
            await self.fails(each, InvalidCredentials)

    async def test_hanging(self) -> None:
        """Modules that hang are outages after the timeout. When all threads hang, each login is an
        outage at once, and looks at accounts go on. They work again when the modules do.
        """
        provider = self.scripted(
            pam := ScriptedPAM(),
            users_of(ALICE_USER, BOB_USER),
            threads=2,
            queue=1,
            timeout=100,
            account_checks=False,
        )
        _, released = self.hang(pam)
        names = ("alice", "bob", "alice", "alice")
        asked = [provider.authenticate(user(name), PASSWORD) for name in names]
        busy = await self.fails(asked.pop(), ProviderBusy)
        self.assertIn("3 pieces of work", str(busy))
        for each in asked:
            outage = await self.fails(each, ProviderUnavailable)
            self.assertEqual(str(outage), "pam: no answer in 0.1 seconds")
        await until(lambda: provider._for_logins._hanging == 2)
        began = reactor.seconds()
        outage = await self.fails(
            provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable
        )
        self.assertEqual(str(outage), "pam: all threads hang (2)")
        self.assertLess(reactor.seconds() - began, 0.09)
        self.assertIs(await provider.account_status("alice"), AccountStatus.ACTIVE)
        released.set()

        async def works() -> bool:
            return await provider.authenticate(user("alice"), PASSWORD) is not None

        await until(lambda: not provider._for_logins._calls)
        self.assertTrue(await works())

    async def test_hanging_for_one(self) -> None:
        """A module that hangs for one user takes half of the threads: others log in, however often
        that user's name is tried, in any case.
        """
        pam = ScriptedPAM()
        pam.passwords["bob"] = PASSWORD
        provider = self.scripted(pam, users_of(ALICE_USER, BOB_USER), threads=4, timeout=300)
        released = threading.Event()
        self.addCleanup(released.set)

        def work() -> None:
            if pam.asked[-1][0] == b"alice":
                released.wait()

        pam.work = work
        for _ in range(2):
            names = ("alice", "ALICE", "Alice", "alice")
            asked = [provider.authenticate(user(name), "x") for name in names]
            self.assertIsNotNone(await provider.authenticate(user("bob"), PASSWORD))
            for each in asked:
                await self.fails(each, ProviderUnavailable)
        self.assertIsNotNone(await provider.authenticate(user("bob"), PASSWORD))
        released.set()
        await until(lambda: not provider._for_logins._calls)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_stop(self) -> None:
        """Stopping does not wait for a module that hangs for longer than its grace."""
        provider = self.scripted(pam := ScriptedPAM(), threads=1)
        began, _ = self.hang(pam)
        asked = provider.authenticate(user("alice"), PASSWORD)
        await until(began.is_set)
        self.assertLess(seconds(provider.stopService), 3.0)
        outage = await self.fails(asked, ProviderUnavailable)
        self.assertEqual(str(outage), "the service is stopping")

    async def test_cancelled(self) -> None:
        """A login that is cancelled is neither an outage nor counted as one that hangs."""
        provider = self.scripted(pam := ScriptedPAM(), threads=1)
        began, released = self.hang(pam)
        asked = provider.authenticate(user("alice"), PASSWORD)
        await until(began.is_set)
        asked.cancel()
        await self.fails(asked, CancelledError)
        waiting = provider.authenticate(user("alice"), PASSWORD)
        released.set()
        self.assertIsNotNone(await waiting)

    async def test_threads(self) -> None:
        """No call is made on the reactor's thread, and threads that hash give way to it."""
        provider = self.scripted(pam := ScriptedPAM())
        threads: dict[int, int] = {}

        def work() -> None:
            thread = threading.get_native_id()
            threads[thread] = os.getpriority(os.PRIO_PROCESS, thread)

        pam.work = work
        await provider.authenticate(user("alice"), PASSWORD)
        await provider.account_status("alice")
        self.assertNotIn(threading.get_native_id(), threads)
        for_login, for_status = threads.values()
        self.assertGreater(for_login, for_status)


class DiagnosisTests(PAMCase):
    """What the doctor finds."""

    async def findings(self, provider: PAMProvider) -> list[tuple[Level, str, str]]:
        """The findings that are not well, and the number of those that are."""
        found = await provider.diagnose()
        return [(each.level, each.what, each.found) for each in found if each.level != Level.OK]

    async def test_mistakes(self) -> None:
        """Each mistake in the service is found."""
        provider = self.matrix()
        self.assertEqual(await self.findings(provider), [])
        for service, what, found in (
            ("auth required pam_permit.so", "pam_authenticate", "accepts any password"),
            ("auth required pam_no_such.so", "pam_authenticate", "PAM_MODULE_UNKNOWN"),
        ):
            self.service().write(service, "account required pam_permit.so")
            for level, about, text in await self.findings(provider):
                self.assertEqual((level, about), (Level.FAILED, what))
                self.assertIn(found, text)
        (self.service().services / SERVICE).unlink()
        (first, *_) = await self.findings(provider)
        self.assertIs(first[0], Level.WARNING)
        self.assertIn("so PAM uses that of other", first[2])

    async def test_privilege(self) -> None:
        """A process that may not ask about others is told what to do."""
        provider = self.scripted(pam := ScriptedPAM())
        pam.account_code = Code.AUTHINFO_UNAVAIL
        self.patch(type(provider._config.users), "example", lambda self: ALICE_USER)
        (found,) = [each for each in await provider.diagnose() if each.level is Level.FAILED]
        self.assertEqual(found.found, "pam_acct_mgmt answered PAM_AUTHINFO_UNAVAIL")
        self.assertIn("group shadow", found.advice)

    async def test_no_group(self) -> None:
        """A group that does not exist is found."""
        self.patch(nss, "number_of_group", lambda name: None)
        provider = self.scripted(groups=["matrix"])
        found = await self.findings(provider)
        failures = [each for each in found if each[0] is Level.FAILED]
        self.assertEqual(failures, [(Level.FAILED, "group matrix", "it does not exist")])


class ConfigTests(SynchronousTestCase):
    """The configuration."""

    def test_interfaces(self) -> None:
        """The class is a plugin and implements a provider."""
        self.assertTrue(IPluginClass.providedBy(PAMProvider))
        self.assertTrue(verifyClass(IPasswordProvider, PAMProvider))

    def test_mistakes(self) -> None:
        """Each mistake is named."""
        for config, path in (
            ({"service": "../login"}, "service"),
            ({"service": ""}, "service"),
            ({"min_uid": 0}, "min_uid"),
            ({"groups": ["a b"]}, "groups.0"),
            ({"nss": False, "subject": "uid"}, "subject"),
            ({"nss": False, "groups": ["matrix"]}, "groups"),
            ({"unknown": "next"}, "unknown"),
            ({"failure_time": 10_000}, "failure_time"),
            ({"threads": 0}, "threads"),
        ):
            with self.assertRaises(ConfigError) as raised:
                parse(config)
            self.assertEqual(raised.exception.path, path)

    def test_defaults(self) -> None:
        """Accounts are looked at by PAM where the name service tells whose they are."""
        self.assertTrue(parse({}).account_checks)
        self.assertFalse(parse({"nss": False}).account_checks)
        self.assertEqual(parse({}).not_tried, ["the PAM service synapse-login"])

    def test_no_library(self) -> None:
        """A system without Linux-PAM is one line."""
        self.patch(libpam, "_LIBRARY", "libpam.so.none")
        with self.assertRaises(ConfigError) as raised:
            parse({})
        self.assertIn("libpam.so.none cannot be loaded", str(raised.exception))
