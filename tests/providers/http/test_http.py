"""Tests for the HTTP provider, against a service on a socket and against ones that misbehave."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
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
from synapse_login_module.providers.http.provider import HTTPProvider
from tests.providers.backends import HTTPBackend, WildServer
from tests.providers.case import (
    PASSWORD,
    NoAnswer,
    ProviderCase,
    email,
    fake_hashing,
    lines,
    phone,
    reactor,
    user,
)
from tests.support.accounts import ALICE
from tests.support.certificates import Authority
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.waiting import until

MAPPED = {
    "request": {"who": "{localpart}", "secret": "{password}", "for": ["matrix", 1]},
    "email_request": {"who": "{email}", "secret": "{password}"},
    "phone_request": {"who": "{phone}", "secret": "{password}"},
    "answer": {
        "success": "auth.success",
        "user_id": "auth.mxid",
        "display_name": "auth.profile.display_name",
        "emails": "auth.profile.three_pids.0.address",
    },
    "unknown_user_codes": [404],
    "status_path": "account.status",
}
"""A mapping of the tests' service."""


VOUCHED = Account(ALICE, subject="alice")

RIGHT: dict[str, Any] = {"success": True, "mxid": ALICE}

WRONG_SHAPES: Sequence[object] = (
    None,
    [],
    "secret-of-the-service",
    {},
    {"success": "true"},
    {"success": 1},
    {"success": None},
    {"success": True, "mxid": ""},
    {"success": True, "mxid": 7},
    {"success": True, "mxid": "@:example.com"},
    {"success": True, "mxid": "@alice"},
    {"success": True, "mxid": "@al\nice:example.com"},
    {"success": True, "mxid": "@alice:elsewhere.example"},
    {"success": True, "mxid": f"@{'a' * 250}:example.com"},
    {**RIGHT, "profile": {"display_name": 7}},
    {**RIGHT, "profile": {"three_pids": {}}},
    {**RIGHT, "profile": {"three_pids": ["x"]}},
    {**RIGHT, "profile": {"three_pids": [{"medium": "email"}]}},
    {**RIGHT, "profile": {"three_pids": [{"medium": "email", "address": 7}]}},
)
"""What may not stand under ``auth``."""


class HTTPCase(ProviderCase):
    """A service, and providers that ask it."""

    def setUp(self) -> None:
        self.backend = HTTPBackend()
        self.addCleanup(self.backend.stop)
        self.service = self.backend.service

    def provider(self, **config: Any) -> HTTPProvider:
        """A provider that asks the service by the REST password provider's protocol."""
        built: HTTPProvider = self.build(
            HTTPProvider, {"endpoint": self.backend.url, "timeout": "20s", **config}
        )
        return built

    def mapped(self, **config: Any) -> HTTPProvider:
        """Make a provider with a request and a response of the service's own shape."""
        self.service.unknown_code = 404
        built: HTTPProvider = self.build(
            HTTPProvider,
            {
                "url": f"{self.backend.url}/login",
                "status_url": f"{self.backend.url}/status/{{user_id}}",
                "timeout": "20s",
                **MAPPED,
                **config,
            },
        )
        return built


class RestContractTests(testing.PasswordProviderContract, testing.DiagnosableContract, HTTPCase):
    """The contract, by the REST protocol, for a service that tells unknown users apart."""

    knows_accounts = False

    def make_provider(self) -> IPasswordProvider:
        self.service.unknown_code = 404
        return self.provider(unknown_user_codes=[404])


class MappedContractTests(testing.PasswordProviderContract, testing.DiagnosableContract, HTTPCase):
    """The contract, by a mapping, with statuses."""

    def make_provider(self) -> IPasswordProvider:
        return self.mapped()


class EchoingContractTests(RestContractTests):
    """The contract, for a service that ignores case and repeats the name that was sent."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        self.service.ignores_case = True
        return super().make_provider()


class CodeAloneContractTests(
    testing.PasswordProviderContract, testing.DiagnosableContract, HTTPCase
):
    """The contract, for a service that ignores case and has no names in its response."""

    knows_accounts = False
    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        self.service.ignores_case = True
        return self.mapped(
            answer={"success": "auth.success"},
            email_request=None,
            phone_request=None,
            status_url=None,
        )


class RepeatingContractTests(MappedContractTests):
    """The contract, by a mapping, for a service that ignores case and repeats the user ID."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        self.service.ignores_case = True
        return super().make_provider()


class RestTests(HTTPCase):
    """The REST password provider's protocol."""

    def test_interfaces(self) -> None:
        """The class is a plugin and implements a provider."""
        self.assertTrue(IPluginClass.providedBy(HTTPProvider))
        self.assertTrue(verifyClass(IPasswordProvider, HTTPProvider))

    async def test_request(self) -> None:
        """The request has the protocol's path and body."""
        await self.provider().authenticate(user("alice"), PASSWORD)
        (seen,) = self.service.seen
        self.assertEqual(seen.path, "/_matrix-internal/identity/v1/check_credentials")
        self.assertEqual(seen.body, {"user": {"id": ALICE, "password": PASSWORD}})
        self.assertEqual(seen.headers["content-type"], "application/json")
        self.assertNotIn("accept-encoding", seen.headers)
        self.assertNotIn("authorization", seen.headers)

    async def test_slash(self) -> None:
        """A slash at the end of the endpoint makes no difference."""
        provider = self.provider(endpoint=f"{self.backend.url}/")
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_profile(self) -> None:
        """Display name and e-mail addresses are read from the profile."""
        self.assertEqual(
            await self.provider().authenticate(user("alice"), PASSWORD),
            Account(ALICE, "Alice", ("alice@example.com",), subject="alice"),
        )

    async def test_no_profile(self) -> None:
        """A profile may be missing, in part or whole."""
        for profile in (None, {}, {"display_name": None, "three_pids": None}, {"display_name": ""}):
            self.service.profile = profile  # type: ignore[assignment]
            self.assertEqual(await self.provider().authenticate(user("alice"), PASSWORD), VOUCHED)

    async def test_no_user_id(self) -> None:
        """Without a user ID in the response, which the REST password provider ignores, the account
        is the one whose name was sent.
        """
        for auth in ({"success": True}, {"success": True, "mxid": None}):
            self.answer({"auth": auth})
            account = await self.provider().authenticate(user("alice"), PASSWORD)
            self.assertEqual(account, VOUCHED)

    async def test_spelling(self) -> None:
        """A name is one account in any case, even if the service repeats it."""
        for typed in ("alice", "Alice", "ALICE"):
            for mxid in (ALICE, f"@{typed}:example.com", typed, None):
                self.answer({"auth": {"success": True, "mxid": mxid}})
                account = await self.provider().authenticate(user(typed), PASSWORD)
                self.assertEqual(account, VOUCHED)

    async def test_another_name(self) -> None:
        """A name other than the one that was sent is the account's."""
        for mxid, user_id, subject in (
            ("@Old:example.com", "@Old:example.com", "@Old:example.com"),
            ("Old", "@old:example.com", "Old"),
        ):
            self.answer({"auth": {"success": True, "mxid": mxid}})
            account = await self.provider().authenticate(user("alice"), PASSWORD)
            self.assertEqual(account, Account(user_id, subject=subject))

    async def test_impossible_names(self) -> None:
        """A name that makes no user ID is refused once the password was right, and logged; where
        unknown users are told apart, in their time.
        """
        environment = self.environment()
        config = {"endpoint": self.backend.url, "unknown_user_codes": [404]}
        provider = self.build(HTTPProvider, config, environment)
        for typed, mxid in (("aliçe", None), ("\u212aate", None), ("alice", "a b")):
            events = self.catch_log()
            self.answer({"auth": {"success": True, "mxid": mxid}})
            error = await self.fails(
                provider.authenticate(user(typed), PASSWORD), InvalidCredentials
            )
            self.assertEqual(error.reason, "bad_user_id")
            self.assertEqual(
                lines(events, LogLevel.warn),
                [f"http: {mxid or typed!r} cannot log in: its name makes no user ID"],
            )
            self.assertEqual(fake_hashing(environment).decoys.pop(), PASSWORD)

    async def test_refused(self) -> None:
        """A wrong password is refused, and so is an unknown user, if the service does not tell them
        apart.
        """
        provider = self.provider()
        await self.fails(provider.authenticate(user("alice"), "x"), InvalidCredentials)
        await self.fails(provider.authenticate(user("nobody"), "x"), InvalidCredentials)

    async def test_email(self) -> None:
        """The protocol has user IDs only, so e-mail addresses are left to the next provider."""
        provider = self.provider()
        self.assertIsNone(await provider.authenticate(email(), PASSWORD))
        self.assertIsNone(await provider.authenticate(phone(), PASSWORD))
        self.assertEqual(self.service.seen, [])

    async def test_odd_passwords(self) -> None:
        """Any text may be a password, and is sent unchanged."""
        provider = self.provider()
        for password in ("", "{user_id}", '"},{', "\0", "p\ud800", "\U0001f916" * 1000):
            self.service.passwords[ALICE] = password
            self.assertIsNotNone(await provider.authenticate(user("alice"), password))

    async def test_not_asked(self) -> None:
        """Nothing is sent for users of another server, or for invalid names."""
        provider = self.provider()
        for stranger in (
            user("alice", "elsewhere.example"),
            user(""),
            user("a\0"),
            user("é" * 200),
        ):
            self.assertIsNone(await provider.authenticate(stranger, PASSWORD))
        self.assertEqual(self.service.seen, [])

    async def test_codes(self) -> None:
        """401 and 403 are refusals, whatever the body; the codes can be configured."""
        for code in (401, 403):
            self.service.answer = (code, b"\0")
            await self.fails(
                self.provider().authenticate(user("alice"), PASSWORD), InvalidCredentials
            )
        await self.fails(
            self.provider(reject_codes=[400]).authenticate(user("alice"), PASSWORD),
            ProviderUnavailable,
        )

    async def test_unknown(self) -> None:
        """A user that the service does not know is left to the next provider."""
        self.service.unknown_code = 404
        provider = self.provider(unknown_user_codes=[404])
        self.assertIsNone(await provider.authenticate(user("nobody"), PASSWORD))

    async def test_unknown_takes_as_long(self) -> None:
        """If the service tells unknown users apart, a refusal hashes a decoy, as they do."""
        environment = self.environment()
        config = {"endpoint": self.backend.url, "unknown_user_codes": [404]}
        provider = self.build(HTTPProvider, config, environment)
        await self.fails(provider.authenticate(user("alice"), "x"), InvalidCredentials)
        self.assertEqual(fake_hashing(environment).decoys, ["x"])

    async def test_garbage(self) -> None:
        """An invalid response is an outage, never a refusal, and is not quoted."""
        for code, body in (
            (500, b"{}"),
            (502, b"<html>"),
            (404, b"{}"),
            (429, b"{}"),
            (302, b""),
            (200, b""),
            (200, b"<html>secret-of-the-service"),
            (200, b"\xff\xfe"),
            (200, b"[" * 60_000),
            (200, b"9" * 60_000),
            (200, b"[]"),
            (200, b"null"),
            (200, b"{}"),
            *((200, json.dumps({"auth": auth}).encode()) for auth in WRONG_SHAPES),
        ):
            self.service.answer = (code, body)
            asked = self.provider().authenticate(user("alice"), PASSWORD)
            error = await self.fails(asked, ProviderUnavailable)
            self.assertNotIn("secret-of-the-service", str(error))
            self.assertNotIn("\n", str(error))

    async def test_redirects(self) -> None:
        """A redirect is not followed: no other server gets the password."""
        self.service.headers = {"Location": f"{self.backend.url}/login"}
        for code in (301, 302, 303, 307, 308):
            self.service.answer = (code, b"")
            asked = self.provider().authenticate(user("alice"), PASSWORD)
            self.assertIn(str(code), str(await self.fails(asked, ProviderUnavailable)))
        self.assertEqual(len(self.service.seen), 5)

    async def test_cookies(self) -> None:
        """A cookie of one login is not sent with the next."""
        self.service.headers = {"Set-Cookie": "session=alice; Path=/"}
        provider = self.provider()
        for _ in range(2):
            await provider.authenticate(user("alice"), PASSWORD)
        self.assertNotIn("cookie", self.service.seen[1].headers)

    async def test_connections_are_kept(self) -> None:
        """Logins one after another use one connection."""
        provider = self.provider()
        for _ in range(5):
            await provider.authenticate(user("alice"), PASSWORD)
        self.assertEqual(len({seen.connection for seen in self.service.seen}), 1)

    async def test_stopped(self) -> None:
        """After the stop no connection is kept."""
        provider = self.provider()
        await provider.authenticate(user("alice"), PASSWORD)
        self.assertEqual(len(self.backend.site.channels), 1)
        await provider.stopService()
        await until(lambda: not self.backend.site.channels)

    async def test_status(self) -> None:
        """Without a status URL no user of this server can be checked, and no other is known."""
        provider = self.provider()
        for user_id, expected in (
            (ALICE, AccountStatus.UNVERIFIABLE),
            ("@nobody:example.com", AccountStatus.UNVERIFIABLE),
            ("@alice:elsewhere.example", None),
            ("alice", AccountStatus.UNVERIFIABLE),
            ("", None),
        ):
            self.assertIs(await provider.account_status(user_id), expected, user_id)
        self.assertFalse(provider.verifiable)
        self.assertTrue(self.mapped().verifiable)

    def answer(self, answer: object) -> None:
        """Set the service's response."""
        self.service.answer = (200, json.dumps(answer).encode())


class MappedTests(HTTPCase):
    """JSON of any shape."""

    async def test_subject(self) -> None:
        """The account is looked at by its id, not by its name."""
        provider = self.mapped(
            answer={"user_id": "who", "subject": "id", "status": "state"},
            status_url=f"{self.backend.url}/status/{{subject}}",
            unknown_user_codes=[404],
        )
        for given, asked_by in (("u-17/x", "u-17/x"), (17, "17"), (0, "0"), ("id:1", "id:1")):
            subject = f"id:{asked_by}"
            answer = {"who": "alice", "id": given, "state": "locked"}
            self.service.answer = (200, json.dumps(answer).encode())
            account = await provider.authenticate(user("ALICE"), PASSWORD)
            self.assertEqual(account, Account(ALICE, status=AccountStatus.LOCKED, subject=subject))
            self.service.answer = (200, b'{"account": {"status": "active"}}')
            self.assertIs(await provider.account_status(subject), AccountStatus.ACTIVE)
            self.assertEqual(self.service.seen[-1].path, f"/status/{asked_by}")
        self.service.answer = (404, b"")
        self.assertIsNone(await provider.account_status("id:u-17/x"))
        asked = len(self.service.seen)
        for name in (ALICE, "alice", "17", "u-17/x"):
            self.assertIs(await provider.account_status(name), AccountStatus.UNVERIFIABLE, name)
        self.assertIsNone(await provider.account_status("@alice:elsewhere.example"))
        self.assertIsNone(await provider.account_status("id:.."))
        self.assertEqual(len(self.service.seen), asked)

    async def test_name_like_an_id(self) -> None:
        """An account whose name is another's id is never taken for it, even if ids come later."""
        url = f"{self.backend.url}/status/{{subject}}"
        by_name = self.mapped(answer={"user_id": "who"}, status_url=url)
        by_id = self.mapped(answer={"user_id": "who", "subject": "id"}, status_url=url)
        self.service.answer = (200, b'{"who": "17"}')
        named = await by_name.authenticate(user("17"), PASSWORD)
        self.service.answer = (200, b'{"who": "alice", "id": 17}')
        victim = await by_id.authenticate(user("alice"), PASSWORD)
        assert named is not None
        assert victim is not None
        self.assertEqual((named.subject, victim.subject), ("17", "id:17"))
        asked = len(self.service.seen)
        self.assertIsNone(await by_name.account_status(victim.subject))
        self.assertEqual(len(self.service.seen), asked)
        self.service.answer = (200, b'{"who": "id:17"}')
        refused = by_name.authenticate(user("alice"), PASSWORD)
        self.assertEqual((await self.fails(refused, InvalidCredentials)).reason, "bad_user_id")

    async def test_unusable_subject(self) -> None:
        """A response without an id, or with one that cannot be a subject, is an outage."""
        provider = self.mapped(
            answer={"user_id": "who", "subject": "id"},
            status_url=f"{self.backend.url}/status/{{subject}}",
        )
        unusable: tuple[object, ...] = (None, "", True, 1.5, [], "a\nb", ALICE, "x" * 510)
        for given in unusable:
            self.service.answer = (200, json.dumps({"who": "alice", "id": given}).encode())
            problem = await self.fails(
                provider.authenticate(user("alice"), PASSWORD), UnusableAccount
            )
            self.assertEqual(str(problem), "id is no id (text or a number)")

    async def test_status_with_the_password(self) -> None:
        """A status in the answer is taken; where it is left out it is asked for, and nonsense is an
        outage.
        """
        provider = self.mapped(answer={"status": "state"}, email_request=None, phone_request=None)
        for given, expected in (
            ("active", AccountStatus.ACTIVE),
            ("deactivated", AccountStatus.DEACTIVATED),
            (None, None),
        ):
            self.service.answer = (200, json.dumps({"state": given}).encode())
            account = await provider.authenticate(user("alice"), PASSWORD)
            assert account is not None
            self.assertIs(account.status, expected)
        self.service.answer = (200, b'{"state": "gone"}')
        await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)

    async def test_own_spelling(self) -> None:
        """Without an id, the account is asked for by its name as the service spells it."""
        for name, path, subject, user_id in (
            ("Alice", "localpart", "Alice", ALICE),
            ("Alice", "user_id", "@Alice:example.com", ALICE),
            ("Alice", "subject", "Alice", ALICE),
            ("@Alice:example.com", "localpart", "Alice", "@Alice:example.com"),
            ("@Alice:example.com", "subject", "@Alice:example.com", "@Alice:example.com"),
        ):
            provider = self.mapped(
                answer={"user_id": "who"}, status_url=f"{self.backend.url}/status/{{{path}}}"
            )
            self.service.answer = (200, json.dumps({"who": name}).encode())
            account = await provider.authenticate(user("alice"), PASSWORD)
            self.assertEqual(account, Account(user_id, subject=name))
            self.service.answer = (200, b'{"account": {"status": "active"}}')
            self.assertIs(await provider.account_status(name), AccountStatus.ACTIVE)
            self.assertEqual(self.service.seen[-1].path, f"/status/{subject}")

    async def test_repeated(self) -> None:
        """A name that is repeated as it was typed is the service's own where the service takes no
        other spelling of it, or says the same for that; it is asked in small letters to see.
        """
        provider = self.mapped(answer={"user_id": "auth.mxid", "success": "auth.success"})
        self.service.passwords = {"@Alice:example.com": PASSWORD, ALICE: "another"}
        account = await provider.authenticate(user("Alice"), PASSWORD)
        self.assertEqual(account, Account("@Alice:example.com", subject="@Alice:example.com"))
        self.assertEqual([seen.body["who"] for seen in self.service.seen], ["Alice", "alice"])
        account = await provider.authenticate(user("alice"), "another")
        self.assertEqual(account, Account(ALICE, subject=ALICE))
        self.assertEqual(len(self.service.seen), 3)
        own = {"auth": {"success": True, "mxid": "Alice"}}
        self.service.answer = (200, json.dumps(own).encode())
        for typed in ("Alice", "ALICE", "alice"):
            account = await provider.authenticate(user(typed), PASSWORD)
            self.assertEqual(account, Account(ALICE, subject="Alice"))

    async def test_request(self) -> None:
        """The request is the template, filled in once: braces in a value stay."""
        self.service.passwords["@{password}:example.com"] = "{localpart}"
        await self.mapped().authenticate(user("{password}"), "{localpart}")
        (seen,) = self.service.seen
        self.assertEqual(
            seen.body, {"who": "{password}", "secret": "{localpart}", "for": ["matrix", 1]}
        )

    async def test_third_party(self) -> None:
        """An account is found by its e-mail address and by its telephone number."""
        provider = self.mapped()
        expected = Account(ALICE, "Alice", ("alice@example.com",), subject=ALICE)
        for identifier in (user("alice"), email(), phone()):
            self.assertEqual(await provider.authenticate(identifier, PASSWORD), expected)
            await self.fails(provider.authenticate(identifier, "x"), InvalidCredentials)
        for unknown in (email("bob@example.com"), phone("447700900124")):
            self.assertIsNone(await provider.authenticate(unknown, PASSWORD))

    async def test_code_alone(self) -> None:
        """Without paths, a status of 200 to 299 means that the password of the user is right."""
        provider = self.mapped(answer=None, email_request=None, phone_request=None)
        for code in (200, 204):
            self.service.answer = (code, b"true")
            self.assertEqual(await provider.authenticate(user("alice"), PASSWORD), VOUCHED)
        self.service.answer = (401, b"")
        await self.fails(provider.authenticate(user("alice"), PASSWORD), InvalidCredentials)

    async def test_statuses(self) -> None:
        """The status is that of the service: active, locked, deactivated or unknown."""
        provider = self.mapped()
        for status, expected in (
            ("active", AccountStatus.ACTIVE),
            ("locked", AccountStatus.LOCKED),
            ("deactivated", AccountStatus.DEACTIVATED),
            ("unknown", None),
        ):
            self.service.statuses[ALICE] = status
            self.assertIs(await provider.account_status(ALICE), expected)
        self.assertIsNone(await provider.account_status("@nobody:example.com"))

    async def test_locked(self) -> None:
        """The right password of a locked account is right."""
        self.service.statuses[ALICE] = "locked"
        provider = self.mapped()
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        await self.fails(provider.authenticate(user("alice"), "x"), InvalidCredentials)

    async def test_status_garbage(self) -> None:
        """An unknown status is an outage, so that no session ends for it."""
        for code, body in (
            (404, b"not found"),
            (500, b"{}"),
            (200, b"{}"),
            (200, b'{"account": {"status": null}}'),
            (200, b'{"account": {"status": true}}'),
            (200, b'{"account": {"status": "gone"}}'),
            (200, b'{"account": {"status": "unverifiable"}}'),
        ):
            self.service.answer = (code, body)
            asked = self.mapped(unknown_user_codes=[410]).account_status(ALICE)
            await self.fails(asked, ProviderUnavailable)

    async def test_status_of_odd_names(self) -> None:
        """A name cannot change the path of the request."""
        provider = self.mapped(status_url=f"{self.backend.url}/status/{{localpart}}")
        for localpart in (".", "..", "a/b", "a?b", "../x", "%2e"):
            self.service.seen.clear()
            self.assertIsNone(await provider.account_status(f"@{localpart}:example.com"))
            for seen in self.service.seen:
                self.assertEqual(seen.path, f"/status/{localpart}")


class SecretTests(HTTPCase):
    """The shared secret."""

    async def test_sent(self) -> None:
        """The file's content is the Authorization header, in every request."""
        self.write("secret", "Bearer swordfish\n")
        provider = self.mapped(authorization_file="secret")
        await provider.authenticate(user("alice"), PASSWORD)
        await provider.account_status(ALICE)
        self.assertEqual(
            {seen.headers["authorization"] for seen in self.service.seen}, {"Bearer swordfish"}
        )

    async def test_changed(self) -> None:
        """A new secret counts from the next request on, a broken one does not."""
        self.write("secret", "Bearer swordfish")
        provider = self.provider(authorization_file="secret")
        events = self.catch_log()
        for content, expected in (
            ("Bearer a-new-one", "Bearer a-new-one"),
            ("two\nlines", "Bearer a-new-one"),
        ):
            self.write("secret", content)
            await provider.authenticate(user("alice"), PASSWORD)
            self.assertEqual(self.service.seen[-1].headers["authorization"], expected)
        self.assertNotIn("a-new-one", "".join(lines(events, LogLevel.debug)))


class OutageTests(ProviderCase):
    """Servers that are down, or misbehave in processes of their own."""

    async def outage(self, url: str, **config: Any) -> str:
        """What is said of a login there: an outage, on one line and without the password."""
        provider = self.build(HTTPProvider, {"endpoint": url, "timeout": "20s", **config})
        events = self.catch_log()
        asked = provider.authenticate(user("alice"), "the-password-itself")
        problem = str(await self.fails(asked, ProviderUnavailable))
        # Data that came with the response is still to be read.
        await deferLater(reactor, 0)
        self.assertNotIn("\n", problem)
        for text in (problem, *lines(events, LogLevel.debug)):
            self.assertNotIn("the-password-itself", text)
        return problem

    def wild(self, mode: str) -> WildServer:
        """A server that misbehaves in this way."""
        server = WildServer(mode, self.folder())
        self.addCleanup(server.kill)
        return server

    async def test_down_before_the_start(self) -> None:
        """A service that does not listen is an outage; once it listens, logins succeed."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        self.assertEqual(await self.outage(url), "ConnectionRefusedError")
        provider = self.build(HTTPProvider, {"endpoint": url})
        await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)
        backend = HTTPBackend(port=port)
        self.addCleanup(backend.stop)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_hanging(self) -> None:
        """No answer within the timeout is an outage, and the connection is given up."""
        server = self.wild("hang")
        problem = await self.outage(server.url, timeout=200)
        self.assertEqual(problem, "no whole answer in 0.2 seconds")

    async def test_hanging_in_the_middle(self) -> None:
        """A response that never ends is an outage."""
        server = self.wild("half")
        problem = await self.outage(server.url, timeout=200)
        self.assertEqual(problem, "no whole answer in 0.2 seconds")

    async def test_dying(self) -> None:
        """A server that dies before its answer or in the middle of it is an outage."""
        for mode in ("die", "die_early"):
            problem = await self.outage(self.wild(mode).url)
            self.assertTrue(problem.startswith("Connection"), problem)

    async def test_garbage(self) -> None:
        """Data that is not HTTP is an outage."""
        self.assertEqual(await self.outage(self.wild("garbage").url), "ParseError")

    async def test_endless_line(self) -> None:
        """The connection is aborted during a line that never ends."""
        server = self.wild("line")
        await self.outage(server.url)
        await until(partial(was_cut_off, server))

    async def test_ten_megabytes(self) -> None:
        """An answer of 10 MB is cut off, announced or not."""
        for mode in ("big", "big_unsaid"):
            server = self.wild(mode)
            problem = await self.outage(server.url)
            self.assertEqual(problem, "an answer of more than 65536 bytes")
            await until(partial(was_cut_off, server))

    async def test_endless_head(self) -> None:
        """A head without an end is cut off, and so are announcements of an answer."""
        for mode in ("heads", "informs"):
            server = self.wild(mode)
            problem = await self.outage(server.url)
            self.assertEqual(problem, "an answer of more than 65536 bytes")
            await until(partial(was_cut_off, server))

    async def test_dripping(self) -> None:
        """The timeout includes the whole response, even one that comes a byte at a time."""
        problem = await self.outage(self.wild("drip").url, timeout=200)
        self.assertEqual(problem, "no whole answer in 0.2 seconds")

    async def test_compressed(self) -> None:
        """A compressed answer is not unpacked."""
        self.assertIn("compressed", await self.outage(self.wild("zipped").url))

    async def test_closed_in_between(self) -> None:
        """A kept connection that the server closes during the next request is no outage."""
        server = self.wild("once")
        provider = self.build(HTTPProvider, {"endpoint": server.url})
        for _ in range(4):
            self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_back_again(self) -> None:
        """After an outage the next login succeeds."""
        backend = HTTPBackend()
        provider = self.build(HTTPProvider, {"endpoint": backend.url})
        await provider.authenticate(user("alice"), PASSWORD)
        await backend.stop()
        await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)
        backend.start()
        self.addCleanup(backend.stop)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_too_many(self) -> None:
        """Requests beyond the limit of requests at once fail without being sent."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        backend.service.held = []
        provider = self.build(HTTPProvider, {"endpoint": backend.url, "connections": 3})
        held = [provider.authenticate(user("alice"), PASSWORD) for _ in range(3)]
        problem = await self.fails(provider.authenticate(user("alice"), "x"), ProviderUnavailable)
        self.assertEqual(str(problem), "3 requests are under way already")
        waiting = backend.service.held
        await until(lambda: len(waiting) == 3)
        backend.service.held = None
        for request in waiting:
            request.setResponseCode(403)
            request.finish()
        for each in held:
            await self.fails(each, InvalidCredentials)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_cancelled(self) -> None:
        """A client that goes away cancels the request, and that is no outage."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        waiting = backend.service.held = []
        provider = self.build(HTTPProvider, {"endpoint": backend.url})
        asked = provider.authenticate(user("alice"), PASSWORD)
        await until(lambda: waiting)
        asked.cancel()
        await self.fails(asked, CancelledError)
        await until(lambda: not backend.site.channels)

    async def test_cancelled_early(self) -> None:
        """The same while the host's name is looked up."""
        provider = self.build(HTTPProvider, {"endpoint": "http://auth.example:8090"})
        NoAnswer(self)
        asked = provider.authenticate(user("alice"), PASSWORD)
        asked.cancel()
        await self.fails(asked, CancelledError)

    async def test_cancelled_while_connecting(self) -> None:
        """The same while it is connected to a host that does not answer."""
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            clients = [socket.socket() for _ in range(3)]
            for client in clients:
                self.addCleanup(client.close)
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            asked = self.build(HTTPProvider, {"endpoint": url}).authenticate(user("alice"), "x")
            await until(lambda: any(isinstance(each, Client) for each in reactor.getWriters()))
            asked.cancel()
            await self.fails(asked, CancelledError)

    async def test_many_at_once(self) -> None:
        """As many logins at once as connections all succeed."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        provider = self.build(HTTPProvider, {"endpoint": backend.url, "connections": 50})
        asked = [provider.authenticate(user("alice"), PASSWORD) for _ in range(50)]
        accounts = await gatherResults(asked)
        self.assertEqual({account.user_id for account in accounts}, {ALICE})


def was_cut_off(server: WildServer) -> bool:
    """Say whether a server was cut off before it had sent all."""
    return "cut off" in server.said()


def was_ended(server: WildServer) -> bool:
    """Say whether a server's connection has ended."""
    return "the connection is over" in server.said()


class TLSTests(ProviderCase):
    """Certificates, the server's and the client's."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.write("ca.pem", self.authority.certificate)

    def served(self, tls: Any) -> HTTPBackend:
        """A service behind TLS."""
        backend = HTTPBackend(tls)
        self.addCleanup(backend.stop)
        return backend

    def provider(self, backend: HTTPBackend, **config: Any) -> HTTPProvider:
        """A provider that asks it."""
        built: HTTPProvider = self.build(HTTPProvider, {"endpoint": backend.url, **config})
        return built

    async def test_good(self) -> None:
        """A certificate of the configured authority for this host is accepted."""
        backend = self.served(self.authority.sign("127.0.0.1").server())
        provider = self.provider(backend, ca_file="ca.pem")
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_not_tls(self) -> None:
        """A server that speaks no TLS is an outage."""
        backend = self.served(None)
        asked = self.provider(
            backend, endpoint=backend.url.replace("http:", "https:"), ca_file="ca.pem"
        ).authenticate(user("alice"), PASSWORD)
        await self.fails(asked, ProviderUnavailable)

    async def test_mutual(self) -> None:
        """A server that wants a certificate gets ours; when we have none that is an outage."""
        backend = self.served(self.authority.sign("127.0.0.1").server(clients=self.authority))
        own = self.authority.sign("client.example")
        self.write("own.pem", own.certificate)
        self.write("own.key", own.key)
        config = {"ca_file": "ca.pem", "certificate_file": "own.pem", "private_key_file": "own.key"}
        provider = self.provider(backend, **config)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        nameless = self.provider(backend, ca_file="ca.pem")
        await self.fails(nameless.authenticate(user("alice"), PASSWORD), ProviderUnavailable)

    async def test_deaf(self) -> None:
        """A server that does not hear that TLS is over keeps neither us from stopping nor, in the
        middle of its answer, a connection open.
        """
        for mode in ("deaf", "half_deaf"):
            server = WildServer(mode, self.folder(), self.authority.sign("127.0.0.1"))
            self.addCleanup(server.kill)
            config = {"endpoint": server.url, "ca_file": "ca.pem", "timeout": 1000}
            provider = self.build(HTTPProvider, config)
            asked = provider.authenticate(user("alice"), PASSWORD)
            if mode == "deaf":
                self.assertIsNotNone(await asked)
                await provider.stopService()
            else:
                await self.fails(asked, ProviderUnavailable)
            await until(partial(was_ended, server))


class WarningTests(ProviderCase):
    """Warnings at the start."""

    def test_in_the_clear(self) -> None:
        """It warns of passwords that go over a network unencrypted."""
        events = self.catch_log()
        for endpoint in ("https://auth.example", "http://127.0.0.1:1", "http://localhost:1"):
            self.build(HTTPProvider, {"endpoint": endpoint})
        self.assertEqual(lines(events), [])
        self.build(HTTPProvider, {"endpoint": "http://auth.example:8090"})
        self.assertEqual(lines(events), ["http: passwords go unencrypted to auth.example"])


class HTTPConfigTests(SynchronousTestCase):
    """Its configuration."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def problem(self, config: Mapping[str, Any]) -> str:
        """Return the error of a configuration, which is one line."""
        with self.assertRaises(ConfigError) as raised:
            HTTPProvider.parse_config(config, self.folder)
        problem = str(raised.exception)
        self.assertNotIn("\n", problem)
        return problem

    def test_one_of_two(self) -> None:
        """It takes either an endpoint or a URL."""
        for config in ({}, {"endpoint": "http://a", "url": "http://a"}):
            self.assertEqual(self.problem(config), "takes either endpoint or url")
        self.assertEqual(self.problem({"url": "http://a"}), "request: it says what is sent to url")
        for key in ("request", "answer", "email_request"):
            self.assertTrue(self.problem({"endpoint": "http://a", key: {}}).startswith(key))

    def test_urls(self) -> None:
        """A URL is of HTTP or HTTPS, without a password."""
        for url in ("", "a", "ftp://a", "http://", "http://a:x", "http://a b", "http://é", "//a"):
            self.assertEqual(
                self.problem({"endpoint": url}), "endpoint: not an http:// or https:// URL"
            )
        for url in ("http://me:secret@a", "http://a#b"):
            self.assertIn("a URL without user and password", self.problem({"endpoint": url}))

    def test_status_url(self) -> None:
        """A status URL names the user, and its host does not depend on the user."""
        for url in ("http://a/", "http://a/{email}", "http://a/{user_id}/{x}", "http://{user_id}/"):
            self.assertTrue(
                self.problem({"endpoint": "http://a", "status_url": url}).startswith("status_url")
            )
        by_id = {
            "url": "http://a",
            "request": {"u": "{user_id}", "p": "{password}"},
            "answer": {"subject": "id"},
        }
        for path in ("{user_id}", "{localpart}", "{subject}/{localpart}"):
            problem = self.problem({**by_id, "status_url": f"http://a/{path}"})
            self.assertIn("status_url: it holds {subject}, since there is answer.subject", problem)
        HTTPProvider.parse_config({**by_id, "status_url": "http://a/{subject}"}, Path())

    def test_requests(self) -> None:
        """A request uses the user and the password, and no unknown placeholder."""
        for key, request, problem in (
            ("request", {"p": "{password}"}, "{user_id} or {localpart} is not in it"),
            ("request", {"u": "{user_id}"}, "{password} is not in it"),
            ("request", {"u": "{user}"}, "there is no {user}, but localpart, password, user_id"),
            ("email_request", {"u": "{user_id}"}, "there is no {user_id}, but email, password"),
            ("phone_request", {"p": "{password}"}, "{phone} is not in it"),
            ("request", {"u": "{user_id}{password}", "x": {1}}, "it is not JSON"),
        ):
            good = {"u": "{user_id}", "p": "{password}"}
            config = {"url": "http://a", "request": good, "answer": {"user_id": "id"}, key: request}
            self.assertEqual(self.problem(config), f"{key}: {problem}")

    def test_whose(self) -> None:
        """A login by e-mail address needs the user ID in the response."""
        config = {
            "url": "http://a",
            "request": {"u": "{user_id}", "p": "{password}"},
            "email_request": {"u": "{email}", "p": "{password}"},
        }
        self.assertIn("answer.user_id: email_request", self.problem(config))

    def test_codes(self) -> None:
        """The codes of refusals are 400 to 499."""
        for codes in ([200], [500], ["401"], 401):
            for key in ("reject_codes", "unknown_user_codes"):
                self.assertTrue(self.problem({"endpoint": "http://a", key: codes}).startswith(key))

    def test_files(self) -> None:
        """A file that cannot be used is rejected, and not quoted."""
        (self.folder / "nonsense").write_text("secret\nnonsense")
        (self.folder / "broken").write_text(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        )
        (self.folder / "empty").write_text("\n")
        for key, name in (
            ("authorization_file", "missing"),
            ("authorization_file", "nonsense"),
            ("authorization_file", "empty"),
            ("ca_file", "missing"),
            ("ca_file", "nonsense"),
            ("ca_file", "broken"),
        ):
            problem = self.problem({"endpoint": "http://a", key: name})
            self.assertTrue(problem.startswith(f"{key}: {self.folder / name}: "), problem)
            self.assertNotIn("secret", problem)

    def test_certificate_and_key(self) -> None:
        """A certificate and its key go together, and fit."""
        authority = Authority()
        first, second = authority.sign("127.0.0.1"), authority.sign("127.0.0.1")
        (self.folder / "first.pem").write_bytes(first.certificate)
        (self.folder / "second.key").write_bytes(second.key)
        config = {"endpoint": "https://a", "certificate_file": "first.pem"}
        self.assertIn("go together", self.problem(config))
        config["private_key_file"] = "second.key"
        self.assertTrue(self.problem(config).startswith("private_key_file: "))

    def test_unknown_key(self) -> None:
        """An unknown key is rejected."""
        self.assertEqual(self.problem({"endpoint": "http://a", "polcy": 1}), "polcy: unknown key")
