"""The contract of password providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.interfaces import (
    IDiagnosable,
    IFindsAccounts,
    INamesAdministrators,
    IPasswordProvider,
)
from synapse_login_module.model import (
    AccountStatus,
    EmailIdentifier,
    Finding,
    Level,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
)
from synapse_login_module.testing.fakes import SERVER_NAME

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object


class ProviderContract(TestCase):
    """The base class of contracts of providers."""

    def make_provider(self) -> IPasswordProvider | Deferred[IPasswordProvider]:
        """Make the provider under test."""
        raise NotImplementedError

    async def _provider(self) -> IPasswordProvider:
        provider: Any = self.make_provider()
        return await provider if isinstance(provider, Deferred) else provider  # type: ignore[no-any-return]


class PasswordProviderContract(ProviderContract):
    """The contract of :class:`~synapse_login_module.interfaces.IPasswordProvider`.

    The backend needs an account ``@alice:example.com`` with the password ``wonderland``, and no
    account of the name ``nobody``.

    :cvar knows_accounts: whether the provider can report the status of an account without a
        password.
    :cvar ignores_case: whether the backend has to find ``alice`` in any spelling of upper and lower
        case. If not, another spelling may be unknown.
    """

    knows_accounts = True
    ignores_case = False

    async def test_interface(self) -> None:
        """It provides the interface, and its methods return Deferreds."""
        provider = await self._provider()
        verifyObject(IPasswordProvider, provider)
        self.assertNotIn(" ", provider.name)
        for answer in (
            provider.authenticate(_user("nobody"), "x"),
            provider.account_status(str(_user("nobody"))),
        ):
            self.assertIsInstance(answer, Deferred)
            await answer

    async def test_right_password(self) -> None:
        """It accepts a right password, and returns the account with the full user ID."""
        provider = await self._provider()
        account = await provider.authenticate(_user("alice"), "wonderland")
        assert account is not None
        self.assertEqual(account.user_id, "@alice:example.com")

    async def test_subject(self) -> None:
        """It returns one subject and one user ID for an account, however the name is typed.

        The status of that subject is the one that came with the password, if one came.
        """
        provider = await self._provider()
        known = set()
        for name in ("alice", "alice", "Alice", "ALICE"):
            try:
                account = await provider.authenticate(_user(name), "wonderland")
            except InvalidCredentials:
                account = None
            if account is None:
                self.assertNotEqual(name, "alice")
                self.assertFalse(self.ignores_case, f"{name} is to be alice")
                continue
            subject = account.subject or account.user_id
            known.add((account.user_id, subject))
            self.assertIn(account.status, (None, AccountStatus.ACTIVE))
            self.assertIn(account.admin, (None, False, True))
            status = await provider.account_status(subject)
            self.assertIs(
                status, AccountStatus.ACTIVE if self.knows_accounts else AccountStatus.UNVERIFIABLE
            )
        self.assertEqual(len(known), 1, known)

    async def test_wrong_password(self) -> None:
        """It fails with InvalidCredentials for wrong passwords, among them empty and odd ones.

        If the error names the account, it names the user ID that a login would give.
        """
        provider = await self._provider()
        for password in ("looking-glass", "", "wonderland\0", "*", "\U0001f916" * 400):
            with self.assertRaises(InvalidCredentials, msg=repr(password)) as raised:
                await provider.authenticate(_user("alice"), password)
            self.assertIn(raised.exception.user_id, (None, "@alice:example.com"))

    async def test_unknown_user(self) -> None:
        """It returns None for unknown users, whatever their names look like."""
        provider = await self._provider()
        for name in (
            "nobody",
            "",
            "*",
            "a*",
            "alice)(uid=*",
            "alice' OR '1'='1",
            "al\0ice",
            "é" * 200,
        ):
            self.assertIsNone(await provider.authenticate(_user(name), "wonderland"), repr(name))

    async def test_user_of_another_server(self) -> None:
        """It returns None for a user of another server."""
        provider = await self._provider()
        stranger = UserIdentifier(UserId("alice", "elsewhere.example"))
        self.assertIsNone(await provider.authenticate(stranger, "wonderland"))

    async def test_account_status(self) -> None:
        """It reports its accounts as active, and returns None for others.

        If it cannot report a status without a password, its ``verifiable`` is false.
        """
        provider = await self._provider()
        alice, nobody, unknown = [
            await provider.account_status(subject)
            for subject in (str(_user("alice")), str(_user("nobody")), "nobody")
        ]
        verifiable = getattr(provider, "verifiable", True)
        if self.knows_accounts:
            self.assertEqual((alice, nobody, unknown), (AccountStatus.ACTIVE, None, None))
            self.assertTrue(verifiable)
        else:
            self.assertEqual((alice, nobody, unknown), (AccountStatus.UNVERIFIABLE,) * 3)
            self.assertFalse(verifiable)
        self.assertIsNone(await provider.account_status("@alice:elsewhere.example"))


class FindsAccountsContract(ProviderContract):
    """The contract of :class:`~synapse_login_module.interfaces.IFindsAccounts`.

    The backend needs the accounts of :class:`PasswordProviderContract`.
    """

    async def test_find(self) -> None:
        """It finds an account without a password, and no accounts that do not exist."""
        provider: Any = await self._provider()
        verifyObject(IFindsAccounts, provider)
        found = await provider.find(_user("alice"))
        account = await provider.authenticate(_user("alice"), "wonderland")
        self.assertEqual((found.user_id, found.subject), (account.user_id, account.subject))
        for identifier in (
            _user("nobody"),
            UserIdentifier(UserId("alice", "elsewhere.example")),
            EmailIdentifier("nobody@example.com"),
            PhoneIdentifier("4477009001230"),
        ):
            self.assertIsNone(await provider.find(identifier), identifier)


class NamesAdministratorsContract(ProviderContract):
    """The contract of :class:`~synapse_login_module.interfaces.INamesAdministrators`.

    The backend needs the accounts of :class:`PasswordProviderContract`. Alice is an administrator,
    and ``other_user`` is none.

    :cvar other_user: the local part and the password of another account.
    """

    other_user = ("bob", "can-we-fix-it")

    async def test_administrators(self) -> None:
        """It says the same with a password and without, and nothing of unknown accounts."""
        provider: Any = await self._provider()
        verifyObject(INamesAdministrators, provider)
        self.assertIs(provider.names_administrators, True)
        for name, password, expected in (
            ("alice", "wonderland", True),
            (*self.other_user, False),
        ):
            account = await provider.authenticate(_user(name), password)
            self.assertIs(account.admin, expected)
            self.assertIs(await provider.is_administrator(account.subject), expected)
        for subject in ("nobody", "@nobody:example.com", "@alice:elsewhere.example"):
            self.assertIsNone(await provider.is_administrator(subject), subject)


class DiagnosableContract(ProviderContract):
    """The contract of :class:`~synapse_login_module.interfaces.IDiagnosable`.

    The backend is well, and has the accounts of :class:`PasswordProviderContract`.
    """

    async def test_diagnose(self) -> None:
        """It reports no failure of a backend that is well, on one line each, without a secret."""
        provider: Any = await self._provider()
        verifyObject(IDiagnosable, provider)
        findings = await provider.diagnose()
        self.assertTrue(findings)
        for each in findings:
            self.assertIsInstance(each, Finding)
            self.assertIsNot(each.level, Level.FAILED, each)
            self.assertEqual(bool(each.advice), each.level is not Level.OK, each)
            for text in (each.what, each.found, each.advice):
                self.assertTrue(text.isprintable(), each)
                self.assertNotIn("wonderland", text)
        account = await provider.authenticate(_user("alice"), "wonderland")
        self.assertEqual(account.user_id, "@alice:example.com")


def _user(localpart: str) -> UserIdentifier:
    return UserIdentifier(UserId(localpart, SERVER_NAME))
