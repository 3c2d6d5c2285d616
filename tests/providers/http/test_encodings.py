"""Tests for forms, Basic authentication, headers and secrets of the HTTP provider."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.errors import ConfigError, InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus
from synapse_login_module.providers.http.provider import HTTPProvider
from synapse_login_module.providers.http.templates import look_up
from tests.providers.backends import HTTPBackend, WildServer
from tests.providers.case import PASSWORD, email, lines, phone, user
from tests.providers.http.test_http import MAPPED, HTTPCase
from tests.support.accounts import ALICE
from tests.support.folders import temporary_folder
from tests.test_secrecy import everything

FORM: dict[str, Any] = {
    "encoding": "form",
    **{
        f"{kind}request": {"who": f"{{{name}}}", "secret": "{password}"}
        for kind, name in (("", "localpart"), ("email_", "email"), ("phone_", "phone"))
    },
}
BASIC: dict[str, Any] = {
    "encoding": "basic",
    **{
        f"{kind}request": {"user": f"{{{name}}}", "password": "{password}"}
        for kind, name in (("", "localpart"), ("email_", "email"), ("phone_", "phone"))
    },
}


class EncodedCase(HTTPCase):
    """A service that takes forms and Basic authentication."""

    def form(self, **config: Any) -> HTTPProvider:
        """A provider that posts forms."""
        return self.mapped(**{**FORM, **config})

    def basic(self, **config: Any) -> HTTPProvider:
        """A provider that logs in with the user's own name and password."""
        return self.mapped(url=f"{self.backend.url}/basic", **{**BASIC, **config})


class FormContractTests(testing.PasswordProviderContract, testing.DiagnosableContract, EncodedCase):
    """The contract, by a form."""

    def make_provider(self) -> IPasswordProvider:
        return self.form()


class BasicContractTests(
    testing.PasswordProviderContract, testing.DiagnosableContract, EncodedCase
):
    """The contract, by Basic authentication, for a service that ignores case."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        self.service.ignores_case = True
        return self.basic()


class BasicByCodeContractTests(
    testing.PasswordProviderContract, testing.DiagnosableContract, EncodedCase
):
    """The contract, by a GET with Basic authentication whose status is all that counts."""

    knows_accounts = False
    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        self.service.ignores_case = self.service.by_code = True
        return self.basic(answer=None, email_request=None, phone_request=None, status_url=None)


class FormTests(EncodedCase):
    """Forms."""

    async def test_request(self) -> None:
        """A form is posted, whose values cannot add a field or end the body."""
        provider = self.form(request={"who": "{localpart}", "secret": "{password}", "a b": "ä&="})
        for name, password in (
            ("alice", PASSWORD),
            ("a&secret=x", "x&who=bob+%26\r\n"),
            ("a=b", "ü \U0001f916;=#"),
            ("{password}", "{localpart}"),
        ):
            self.service.passwords = {f"@{name}:example.com": password}
            self.assertIsNotNone(await provider.authenticate(user(name), password))
            seen = self.service.seen[-1]
            self.assertEqual(seen.body, {"who": name, "secret": password, "a b": "ä&="})
            self.assertEqual(seen.headers["content-type"], "application/x-www-form-urlencoded")
            self.assertEqual(seen.method, "POST")

    async def test_third_party(self) -> None:
        """An account is found by its e-mail address and by its telephone number."""
        provider = self.form()
        expected = Account(ALICE, "Alice", ("alice@example.com",), subject=ALICE)
        for identifier in (user("alice"), email(), phone()):
            self.assertEqual(await provider.authenticate(identifier, PASSWORD), expected)
            await self.fails(provider.authenticate(identifier, "x"), InvalidCredentials)

    async def test_no_utf_8(self) -> None:
        """A password that UTF-8 cannot hold is refused, and the service is not asked."""
        for provider in (self.form(), self.basic()):
            asked = provider.authenticate(user("alice"), "p\ud800")
            await self.fails(asked, InvalidCredentials)
        self.assertEqual(self.service.seen, [])


class BasicTests(EncodedCase):
    """Basic authentication with the user's own name and password."""

    async def test_request(self) -> None:
        """Name and password are sent as UTF-8, by GET without a body or by POST with an empty
        one.
        """
        self.service.passwords = {"@ali¢e:example.com": "p:ß€:"}
        for method in ("GET", "POST"):
            provider = self.basic(method=method)
            self.assertIsNotNone(await provider.authenticate(user("ali¢e"), "p:ß€:"))
            seen = self.service.seen[-1]
            pair = base64.b64encode("ali¢e:p:ß€:".encode()).decode()
            self.assertEqual(seen.headers["authorization"], f"Basic {pair}")
            self.assertEqual(seen.method, method)
            self.assertNotIn("content-type", seen.headers)
            self.assertEqual(seen.headers.get("content-length"), "0" if method == "POST" else None)

    async def test_colon(self) -> None:
        """A name with a colon is unknown, and nothing is sent: it would be another name."""
        provider = self.basic()
        for address in ('"a:b"@example.com', "a:b@example.com"):
            self.assertIsNone(await provider.authenticate(email(address), PASSWORD))
        self.assertEqual(self.service.seen, [])

    async def test_control_characters(self) -> None:
        """A password with control characters is refused, and nothing is sent."""
        provider = self.basic()
        for password in ("a\0", "a\r\nX: y", "\x7f"):
            await self.fails(provider.authenticate(user("alice"), password), InvalidCredentials)
        self.assertEqual(self.service.seen, [])

    async def test_secret_of_the_service(self) -> None:
        """The service's own secret is sent with looks at accounts, and never with a login."""
        self.write("secret", "Basic c2VydmljZTpzZWNyZXQ=")
        provider = self.basic(authorization_file="secret")
        await provider.authenticate(user("alice"), PASSWORD)
        await provider.account_status(ALICE)
        login, look = (seen.headers["authorization"] for seen in self.service.seen)
        self.assertEqual(login, "Basic " + base64.b64encode(b"alice:wonderland").decode())
        self.assertEqual(look, "Basic c2VydmljZTpzZWNyZXQ=")


class HeaderTests(EncodedCase):
    """Headers and secrets."""

    async def test_sent(self) -> None:
        """Headers of the configuration and of the file are sent with every request."""
        self.write("headers", "# the key of the service\n\nX-Key:  s:3f9c \nAccept: text/x\n")
        provider = self.form(headers={"OCS-APIRequest": "true"}, headers_file="headers")
        await provider.authenticate(user("alice"), PASSWORD)
        await provider.account_status(ALICE)
        for seen in self.service.seen:
            self.assertEqual(seen.headers["x-key"], "s:3f9c")
            self.assertEqual(seen.headers["ocs-apirequest"], "true")
            self.assertEqual(seen.headers["accept"], "text/x")

    async def test_secrets(self) -> None:
        """A secret of the file is a value of the form, and the last good one if the file breaks."""
        self.write("secrets", "client_secret: a:b c\n")
        request = {"who": "{localpart}", "secret": "{password}", "own": "{secret.client_secret}"}
        provider = self.form(request=request, secrets_file="secrets")
        events = self.catch_log()
        for content, expected in (
            ("client_secret: a:b c", "a:b c"),
            ("client_secret: {password}&x=", "{password}&x="),
            ("another: 1", "{password}&x="),
            ("client_secret a", "{password}&x="),
        ):
            self.write("secrets", content)
            await provider.authenticate(user("alice"), PASSWORD)
            self.assertEqual(self.service.seen[-1].body["own"], expected)
        said = lines(events)
        self.assertIn("there is no secret named client_secret in it", said[0])
        self.assertIn("line 1: not of the form NAME: VALUE", said[1])

    async def test_silence(self) -> None:
        """Nothing of a request or of a response is logged, whatever goes wrong."""
        self.write("headers", "X-Key: the-key-itself")
        self.write("secrets", "own: the-secret-itself")
        request = {"who": "{localpart}", "secret": "{password}", "own": "{secret.own}"}
        events = self.catch_log()
        config = {"headers_file": "headers", "secrets_file": "secrets", "timeout": 200}
        forms = self.form(request=request, **config)
        for provider in (forms, self.basic(headers_file="headers", timeout=200)):
            for code in (200, 302, 401, 404, 500):
                self.service.answer = (code, b"the-answer-itself")
                try:
                    await provider.authenticate(user("alice"), "the-password-itself")
                except (InvalidCredentials, ProviderUnavailable) as error:
                    self.assertNotIn("itself", str(error))
            await provider.diagnose()
            self.service.answer = None
        await self.backend.stop()
        await self.fails(forms.authenticate(user("alice"), "the-pass-itself"), ProviderUnavailable)
        self.assertTrue(events)  # those of the service, at least: its end may be logged later
        for event in events:
            for text in everything(event):
                self.assertNotIn("-itself", text)
                self.assertNotIn(base64.b64encode(b"alice:the-pass").decode()[:16], text)
        self.assertNotIn("itself", repr(vars(forms)["_config"]))

    async def test_hostile(self) -> None:
        """A server that misbehaves is an outage for forms and Basic authentication too."""
        for mode, expected in (
            ("die", "Connection"),
            ("garbage", "ParseError"),
            ("big_unsaid", "an answer of more than 65536 bytes"),
            ("drip", "no whole answer in 0.3 seconds"),
        ):
            server = WildServer(mode, self.folder())
            self.addCleanup(server.kill)
            seconds = 300 if mode == "drip" else "20s"
            for keys in (FORM, BASIC):
                config = {**MAPPED, **keys, "url": server.url, "timeout": seconds}
                provider = self.build(HTTPProvider, config)
                asked = provider.authenticate(user("alice"), PASSWORD)
                problem = str(await self.fails(asked, ProviderUnavailable))
                self.assertIn(expected, problem, mode)
                if mode == "die":
                    break  # it is dead

    async def test_redirects(self) -> None:
        """A redirect is not followed: no other server gets the form, the user or the key."""
        elsewhere = HTTPBackend()
        self.addCleanup(elsewhere.stop)
        self.write("headers", "X-Key: k")
        self.service.headers = {"Location": f"{elsewhere.url}/login"}
        for provider in (self.form(headers_file="headers"), self.basic(headers_file="headers")):
            for code in (301, 302, 303, 307, 308):
                self.service.answer = (code, b"")
                asked = provider.authenticate(user("alice"), PASSWORD)
                self.assertIn(str(code), str(await self.fails(asked, ProviderUnavailable)))
        self.assertEqual(elsewhere.service.seen, [])


class AnswerTests(EncodedCase):
    """What else is read in answers."""

    async def test_reject_if(self) -> None:
        """A rejection whose body does not say so is an outage."""
        provider = self.form(reject_codes=[400, 401], reject_if={"error": ["wrong", "locked"]})
        for body, kind in (
            (b'{"error": "wrong"}', InvalidCredentials),
            (b'{"error": "locked"}', InvalidCredentials),
            (b'{"error": "bad client"}', ProviderUnavailable),
            (b'{"error": ["wrong"]}', ProviderUnavailable),
            (b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}", ProviderUnavailable),
            (b"{}", ProviderUnavailable),
            (b"wrong", ProviderUnavailable),
        ):
            self.service.answer = (401, body)
            await self.fails(provider.authenticate(user("alice"), PASSWORD), kind)
        self.service.answer = (403, b'{"error": "wrong"}')
        await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)

    async def test_status_values(self) -> None:
        """A status may be any value that the configuration gives a meaning."""
        values = {True: "active", False: "deactivated", "gone": "unknown", 7: "locked"}
        provider = self.form(status_values=values, status_path="on")
        for given, expected in (
            (True, AccountStatus.ACTIVE),
            ("true", AccountStatus.ACTIVE),
            (False, AccountStatus.DEACTIVATED),
            ("gone", None),
            (7, AccountStatus.LOCKED),
        ):
            self.service.answer = (200, json.dumps({"on": given}).encode())
            self.assertIs(await provider.account_status(ALICE), expected)
        unknown: tuple[object, ...] = (None, "active", 1, [], {})
        for wrong in unknown:
            self.service.answer = (200, json.dumps({"on": wrong}).encode())
            await self.fails(provider.account_status(ALICE), ProviderUnavailable)


class OneTimeCodeTests(EncodedCase):
    """Passwords that hold a code which is good once (``one_time_codes``)."""

    def once(self, **config: Any) -> HTTPProvider:
        """A provider whose passwords are sent once."""
        environment = replace(self.environment(), one_time_codes=True)
        built: HTTPProvider = self.build(HTTPProvider, config, environment)
        return built

    async def test_closed_in_between(self) -> None:
        """A connection that is closed without an answer is an outage: the service may have used the
        code.
        """
        server = WildServer("once", self.folder())
        self.addCleanup(server.kill)
        provider = self.once(endpoint=server.url)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        problem = await self.fails(
            provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable
        )
        self.assertIn("Connection", str(problem))
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_repeated_name(self) -> None:
        """A name that is repeated with its capitals is not asked about again, and is not taken for
        the account in small letters.
        """
        config = {key: MAPPED[key] for key in ("request", "answer")}
        provider = self.once(url=f"{self.backend.url}/login", **config)
        self.service.ignores_case = True
        for typed in ("Alice", "alice"):
            account = await provider.authenticate(user(typed), PASSWORD)
            assert account is not None
            self.assertEqual(account.user_id, f"@{typed}:example.com")
        self.assertEqual([seen.body["who"] for seen in self.service.seen], ["Alice", "alice"])


class TokenPathTests(SynchronousTestCase):
    """Paths into a JSON Web Token."""

    def test_claims(self) -> None:
        """The claims are read; what is no token has none."""
        good = jwt({"sub": "u-1", "n": {"list": [1]}})
        self.assertEqual(look_up({"id_token": good}, "id_token.jwt.sub"), "u-1")
        self.assertEqual(look_up({"t": [good]}, "t.0.jwt.n.list.0"), 1)
        self.assertEqual(look_up({"t": {"jwt": 5}}, "t.jwt"), 5)
        for bad in (
            "",
            "a.b",
            "a.!.c",
            "a..c",
            f"a.{'W' * 60_001}.c",
            "ä.ä.ä",
            "a.eA.c",
            "a.b.c.d",
        ):
            self.assertIsNone(look_up({"t": bad}, "t.jwt.sub"), bad[:9])
        self.assertIsNone(look_up({"t": good}, "t.x"))
        self.assertIsNone(look_up({"t": jwt("[" * 60_000)}, "t.jwt.sub"))


def jwt(claims: object) -> str:
    """A token of these claims, with a signature that is none."""
    text = claims if isinstance(claims, str) else json.dumps(claims)
    return f"e30.{base64.urlsafe_b64encode(text.encode()).decode().rstrip('=')}.c2ln"


class EncodingConfigTests(SynchronousTestCase):
    """The configuration."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def problem(self, config: Mapping[str, Any]) -> str:
        """Return the error of a configuration, which is one line."""
        with self.assertRaises(ConfigError) as raised:
            HTTPProvider.parse_config({"url": "http://a", **MAPPED, **config}, self.folder)
        problem = str(raised.exception)
        self.assertNotIn("\n", problem)
        return problem

    def test_requests(self) -> None:
        """What cannot be sent is said."""
        good = {"user": "{localpart}", "password": "{password}"}
        pair = "with encoding: basic, it has user and password, and no more"
        texts = "with encoding: form, its names and values are texts"
        for config, problem in (
            ({**FORM, "request": {"u": "{localpart}", "p": ["{password}"]}}, f"request: {texts}"),
            ({**FORM, "request": {"u": "{localpart}{password}", "n": 1}}, f"request: {texts}"),
            ({**BASIC, "request": {**good, "x": "y"}}, f"request: {pair}"),
            ({**BASIC, "request": {"user": "{localpart}{password}"}}, f"request: {pair}"),
            ({**BASIC, "request": {**good, "user": "{user_id}"}}, "a user has no colon"),
            ({**BASIC, "request": {**good, "user": "a:{localpart}"}}, "a user has no colon"),
            ({**FORM, "method": "GET"}, "method: encoding: form needs POST"),
            ({"method": "GET"}, "method: encoding: json needs POST"),
            ({**BASIC, "authorization_file": "x"}, "authorization_file: with encoding: basic,"),
            ({"request": {"u": "{localpart}{password}{secret.a}"}}, "secrets_file: {secret.a}"),
            ({"encoding": "xml"}, "encoding: "),
            ({"method": "PUT"}, "method: "),
            ({"reject_if": {"error": [None]}}, "reject_if.error: must be text, a number"),
            ({"status_values": {True: "on"}}, "status_values.true: "),
        ):
            self.assertIn(problem, self.problem(config))

    def test_with_endpoint(self) -> None:
        """The REST protocol has its own request."""
        for key, value in (("encoding", "form"), ("method", "POST"), ("reject_if", {"a": "b"})):
            with self.assertRaises(ConfigError) as raised:
                HTTPProvider.parse_config({"endpoint": "http://a", key: value}, self.folder)
            self.assertEqual(
                str(raised.exception), f"{key}: it goes with url: the endpoint's protocol is fixed"
            )

    def test_headers(self) -> None:
        """A header that the request has anyway, or that would be more than one, is rejected."""
        for name, value in (
            ("Host", "b"),
            ("content-LENGTH", "0"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
            ("Authorization", "x"),
            ("Content-Type", "x"),
            ("X-Key", "secret\r\nHost: b"),
            ("X-Key", "secret\nx"),
            ("X-Key", "secret\0"),
            ("X-Key", "sécret"),
            ("X-Key", ""),
            ("X Key", "secret"),
            ("X-Key\r\nY", "secret"),
            ("X:", "secret"),
            ("", "secret"),
        ):
            problem = self.problem({"headers": {name: value}})
            self.assertTrue(problem.startswith("headers"), problem)
            self.assertNotIn("secret", problem)
        self.assertIn("given twice", self.problem({"headers": {"A": "1", "a": "2"}}))
        self.assertIn("headers.X", self.problem({"headers": {"X": 7}}))

    def test_files(self) -> None:
        """A file that cannot be used is rejected, and not quoted."""
        for content, problem in (
            (b"Host: secret", "Host: this header cannot be set"),
            (b"authorization: secret", "see authorization_file"),
            (b"X: a\nsecret", "line 2: not of the form NAME: VALUE"),
            (b"X secret: a", "line 1: not of the form NAME: VALUE"),
            (b"X:", "line 1: not of the form NAME: VALUE"),
            (b"X: secret\nX: b", "line 2: the same name as in an earlier line"),
            (b"X: secret\nx: b", "it is given twice"),
            (b"X: a\rsecret: b", "X: its value is not one line of ASCII text"),
            ("X: sécret".encode(), "X: its value is not one line of ASCII text"),
            (b"\xff", "not text in UTF-8"),
        ):
            (self.folder / "headers").write_bytes(content)
            said = self.problem({"headers_file": "headers"})
            self.assertTrue(said.startswith(f"headers_file: {self.folder / 'headers'}: "), said)
            self.assertIn(problem, said)
            self.assertNotIn("secret", said)
        self.assertIn("secrets_file: ", self.problem({"secrets_file": "missing"}))

    def test_names_of_secrets(self) -> None:
        """A secret of any name that the file may have is one, and no text that is sent as it is."""
        (self.folder / "secrets").write_bytes(b"client: x")
        for name in ("client-secret", "client.secret", "cli+ent"):
            request = {"u": "{localpart}{password}", "s": f"{{secret.{name}}}"}
            said = self.problem({"request": request, "secrets_file": "secrets"})
            self.assertIn(f"there is no secret named {name} in it", said)
