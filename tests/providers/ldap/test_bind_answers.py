"""What the answers to binds say."""

from __future__ import annotations

from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.ldap.bind_answers import answer_of
from synapse_login_module.providers.ldap.messages import Result
from synapse_login_module.providers.ldap.policies import POLICY, PolicyError, policy_error
from synapse_login_module.providers.ldap.result_codes import (
    CONSTRAINT_VIOLATION,
    INVALID_CREDENTIALS,
    SUCCESS,
)
from tests.providers.ldap.case import SEARCH, LDAPCase
from tests.providers.ldap.wire import FakeLDAP
from tests.support.slapd import PEOPLE, READER_DN

DIAGNOSIS = "80090308: LdapErr: DSID-0C09042A, comment: AcceptSecurityContext error, data {}, v3839"

REASONS = {
    "525": (None, False),
    "52e": (None, True),
    "52f": (None, True),
    "530": (AccountStatus.NOT_PERMITTED, True),
    "531": (AccountStatus.NOT_PERMITTED, True),
    "532": (AccountStatus.PASSWORD_EXPIRED, True),
    "533": (AccountStatus.DEACTIVATED, True),
    "701": (AccountStatus.DEACTIVATED, True),
    "773": (AccountStatus.PASSWORD_EXPIRED, True),
    "775": (None, False),
    "7": (None, True),
    "5330": (None, True),
}
"""Active Directory's reasons: what they prove, and whether the password was looked at."""


class AnswerTests(SynchronousTestCase):
    """The reading of one result."""

    def test_active_directory(self) -> None:
        """Each reason proves what it proves; one that is not known is a wrong password."""
        for data, expected in REASONS.items():
            answer = answer_of(Result(INVALID_CREDENTIALS, DIAGNOSIS.format(data)))
            self.assertEqual((answer.status, answer.was_checked), expected, data)

    def test_no_reasons(self) -> None:
        """A message that only looks like one, and one with another code, prove nothing."""
        for code, message in (
            (INVALID_CREDENTIALS, "data 533"),
            (INVALID_CREDENTIALS, ""),
            (CONSTRAINT_VIOLATION, DIAGNOSIS.format("533")),
        ):
            self.assertIsNone(answer_of(Result(code, message)).status)

    def test_policies(self) -> None:
        """A password that must be changed is no login. One that has expired is good while the bind
        succeeds.
        """
        expired, active = AccountStatus.PASSWORD_EXPIRED, AccountStatus.ACTIVE
        for code, policy, expected in (
            (SUCCESS, None, (active, True)),
            (SUCCESS, PolicyError.MUST_CHANGE, (expired, True)),
            (SUCCESS, PolicyError.EXPIRED, (active, True)),
            (INVALID_CREDENTIALS, PolicyError.EXPIRED, (expired, True)),
            (INVALID_CREDENTIALS, PolicyError.LOCKED, (None, False)),
            (CONSTRAINT_VIOLATION, PolicyError.LOCKED, (None, False)),
            (CONSTRAINT_VIOLATION, PolicyError.EXPIRED, (None, False)),
        ):
            answer = answer_of(Result(code, "", policy=policy))
            self.assertEqual((answer.status, answer.was_checked), expected, (code, policy))


class ControlTests(SynchronousTestCase):
    """The controls of a response."""

    def read(self, value: bytes | None) -> PolicyError | None:
        """Read the value of the newer control."""
        return policy_error([(POLICY, None, value)], True)

    def test_values(self) -> None:
        """Lengths are read in each form; what is not known is no error."""
        for value, expected in (
            ("", None),
            ("3000", None),
            ("3003810100", PolicyError.EXPIRED),
            ("3003810101", PolicyError.LOCKED),
            ("3003810102", PolicyError.MUST_CHANGE),
            ("30840000 0003810102", PolicyError.MUST_CHANGE),
            ("3003810105", None),
            ("3005a003800100", None),
            ("3008a003800100810102", PolicyError.MUST_CHANGE),
        ):
            self.assertIs(self.read(bytes.fromhex(value)), expected, value)
        self.assertIs(self.read(None), None)

    def test_malformed(self) -> None:
        """Octets that are no control are an error, and nothing else."""
        for value in ("30", "3003", "300381", "3003810500", "30038185", "308108020100"):
            with self.assertRaises(ValueError):
                self.read(bytes.fromhex(value))

    def test_older(self) -> None:
        """The older control says the same by the result of the bind; the newer one comes first."""
        older = (b"2.16.840.1.113730.3.4.4", None, b"0")
        self.assertIs(policy_error([older], True), PolicyError.MUST_CHANGE)
        self.assertIs(policy_error([older], False), PolicyError.EXPIRED)
        grace = (POLICY, None, bytes.fromhex("3005a003810105"))
        self.assertIs(policy_error([older, grace], True), None)
        self.assertIs(policy_error([(b"1.2.3", None, b"")], True), None)
        self.assertIs(policy_error(None, True), None)


class TimeTests(LDAPCase):
    """The time of a refusal."""

    async def test_locked_out(self) -> None:
        """An account that is locked out is refused in the time of a wrong password, and does not
        count among those.
        """
        data = ["52e"]
        entry = pureldap.LDAPSearchResultEntry(f"uid=bob,{PEOPLE}".encode(), [(b"uid", [b"bob"])])

        def answer(request: object) -> list[object]:
            if isinstance(request, pureldap.LDAPSearchRequest):
                return [entry, pureldap.LDAPSearchResultDone(SUCCESS)]
            if request.dn == READER_DN.encode():  # type: ignore[attr-defined]
                return [pureldap.LDAPBindResponse(SUCCESS)]
            message = DIAGNOSIS.format(data[0]).encode()
            return [pureldap.LDAPBindResponse(INVALID_CREDENTIALS, errorMessage=message)]

        server = FakeLDAP(answer)
        self.addCleanup(server.stop)
        provider = self.provider({**SEARCH, "servers": [server.url]})
        await self.assert_rejected(provider, "bob")
        seen = list(provider._binds.times._seen)
        data[0] = "775"
        for password in ("looking-glass", "can-we-fix-it"):
            with self.assertRaises(InvalidCredentials) as raised:
                await self.log_in(provider, "bob", password)
            self.assertEqual(raised.exception.reason, "wrong_password")
        self.assertEqual(list(provider._binds.times._seen), seen)
        self.assertEqual(len(seen), 1)
