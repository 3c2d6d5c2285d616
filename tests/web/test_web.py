"""Tests for the resource tree, over fakes and without sockets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from synapse_login_module import testing
from synapse_login_module.common.repeats import OF_ONE
from synapse_login_module.errors import (
    KeyUnavailable,
    Overloaded,
    ProviderUnavailable,
    StoreUnavailable,
)
from synapse_login_module.model import Account, Identifier, Rate, TokenPolicy
from synapse_login_module.providers import BcryptProvider
from synapse_login_module.testing import SERVER_NAME, FakeProvider
from synapse_login_module.web.site import LoginSite
from tests.support.accounts import ALICE, ALICE_PASSWORD, DEACTIVATED_PASSWORD, LOCKED_PASSWORD
from tests.support.configuration import password_hash
from tests.support.rig import Rig
from tests.support.site import MemoryWire, get, post, responses
from tests.support.web import Reply, WebCase

PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE")

V3 = "/_matrix/client/v3"
LOGIN = f"{V3}/login"
TOKENREFRESH = f"{V3}/tokenrefresh"
REFRESH = f"{V3}/refresh"
LOGOUT = f"{V3}/logout"
LOGOUT_ALL = f"{V3}/logout/all"
WHOAMI = f"{V3}/account/whoami"
GET_TOKEN = f"{V3}/login/get_token"

PASSWORD_LOGIN = {"type": "m.login.password", "user": "alice", "password": ALICE_PASSWORD}

POSTS = (LOGIN, TOKENREFRESH, REFRESH, LOGOUT, LOGOUT_ALL, GET_TOKEN)
"""Every path that takes a POST."""


def _every_path() -> dict[str, set[str]]:
    """List each path of the contract with its methods."""
    paths: dict[str, set[str]] = {
        "/health": {"GET", "HEAD"},
        "/_matrix/client/versions": {"GET", "HEAD"},
        "/_matrix/client/unstable/org.matrix.msc2918/refresh": {"POST"},
    }
    for prefix in PREFIXES:
        base = f"/_matrix/client/{prefix}"
        paths[f"{base}/login"] = {"GET", "HEAD", "POST"}
        paths[f"{base}/account/whoami"] = {"GET", "HEAD"}
        for name in ("tokenrefresh", "refresh", "logout", "logout/all", "login/get_token"):
            paths[f"{base}/{name}"] = {"POST"}
    return paths


EVERY_PATH = _every_path()


class ReticentProvider(FakeProvider):
    """A provider that does not set the status of the accounts that it returns."""

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check the password, and leave out the status."""
        asked = super().authenticate(identifier, password)
        return asked.addCallback(lambda account: account and replace(account, status=None))


class PathTests(WebCase):
    """The paths, and their methods."""

    def test_methods(self) -> None:
        """Each path has its methods under each prefix, and answers 405 to all others."""
        for path, methods in EVERY_PATH.items():
            for method in METHODS:
                reply = self.ask(method, path)
                if method in methods:
                    self.assertNotIn(reply.status, (404, 405), f"{method} {path}")
                    continue
                self.assertEqual(reply.status, 405, f"{method} {path}")
                allowed = set((reply.header("Allow") or "").split(", "))
                self.assertEqual(allowed, methods | {"OPTIONS"}, path)
                if method != "HEAD":
                    self.assert_error(reply, 405, "M_UNRECOGNIZED")

    def test_options(self) -> None:
        """Every path answers OPTIONS with an empty 204, so that a browser may go on."""
        for path in [*EVERY_PATH, "/", "/_matrix/client", "/nowhere/at/all"]:
            reply = self.ask("OPTIONS", path)
            self.assertEqual((reply.status, reply.body), (204, b""), path)
            self.assertIsNone(reply.header("Content-Type"))

    def test_unknown_paths(self) -> None:
        """A path outside the contract gets a 404 in JSON, for every method."""
        unknown = [
            "/",
            "/login",
            "/_matrix",
            "/_matrix/client",
            "/_matrix/client/",
            "/_matrix/client/v3",
            "/_matrix/client/v2/login",
            "/_matrix/client/r1/login",
            "/_matrix/client/api/login",
            "/_matrix/client/v3/login/",
            "/_matrix/client/v3/login/other",
            "/_matrix/client/v3//login",
            "/_matrix/client/v3/Login",
            "/_matrix/client/v3/refresh/x",
            "/_matrix/client/v3/versions",
            "/_matrix/client/unstable/org.matrix.msc2918/login",
            "/health/x",
            "/%00",
            "/%FF%FE/x",
            "/_matrix/client/v3/..%2flogin",
        ]
        for path in unknown:
            for method in ("GET", "POST", "PUT", "DELETE"):
                reply = self.ask(method, path)
                self.assert_error(reply, 404, "M_UNRECOGNIZED")
            self.assertEqual(self.ask("HEAD", path).status, 404, path)

    def test_head(self) -> None:
        """HEAD answers as GET does, without the body."""
        token = self.log_in()["access_token"]
        for path in (LOGIN, WHOAMI, "/_matrix/client/versions", "/health"):
            whole = self.ask("GET", path, token=token)
            head = self.ask("HEAD", path, token=token)
            self.assertEqual((head.status, head.body), (200, b""), path)
            self.assertTrue(whole.body)
            self.assertEqual(head.header("Content-Type"), whole.header("Content-Type"), path)
            self.assertEqual(head.header("Content-Length"), str(len(whole.body)), path)

    def test_query_is_no_part_of_the_path(self) -> None:
        """A query string does not change the path."""
        self.assertEqual(self.ask("GET", f"{LOGIN}?x=1&y").status, 200)

    def test_flows(self) -> None:
        """GET /login lists what POST /login takes."""
        for prefix in PREFIXES:
            reply = self.ask("GET", f"/_matrix/client/{prefix}/login")
            self.assertEqual(reply.status, 200)
            flows = [
                {"type": "m.login.password"},
                {"type": "m.login.token", "get_login_token": True},
            ]
            self.assertEqual(reply.json, {"flows": flows})

    def test_versions(self) -> None:
        """The versions that clients ask for first are there, and the feature of MSC 2918."""
        reply = self.ask("GET", "/_matrix/client/versions")
        self.assertEqual(reply.status, 200)
        self.assertLessEqual({"r0.6.1", "v1.3"}, set(reply.json["versions"]))
        self.assertIs(reply.json["unstable_features"]["org.matrix.msc2918"], True)

    def test_health(self) -> None:
        """/health answers 200 while the store can be reached, and 503 while it cannot."""
        reply = self.ask("GET", "/health")
        self.assertEqual((reply.status, reply.body), (200, b"OK"))
        self.rig.store.failure = StoreUnavailable("disk gone")
        reply = self.ask("GET", "/health")
        self.assertEqual(reply.status, 503)
        self.assertNotIn(b"disk gone", reply.body)
        self.assertIn(b"sessions cannot be kept", reply.body)
        self.rig.store.failure = None
        self.assertEqual(self.ask("GET", "/health").status, 200)

    def test_health_of_the_key(self) -> None:
        """/health names a token key that cannot sign, and nothing that the log alone should say."""
        self.rig.store.failure = KeyUnavailable("token key 1 is lost")
        reply = self.ask("GET", "/health")
        self.assertEqual(reply.status, 503)
        self.assertEqual(
            reply.body, b"the token key cannot sign at the moment: the log and show-keys say why\n"
        )

    def test_every_prefix_works(self) -> None:
        """A login and both refreshes succeed under every prefix."""
        for prefix in PREFIXES:
            base = f"/_matrix/client/{prefix}"
            pair = self.ask("POST", f"{base}/login", PASSWORD_LOGIN)
            self.assertEqual(pair.status, 200, prefix)
            for name in ("tokenrefresh", "refresh"):
                pair = self.ask(
                    "POST",
                    f"{base}/{name}",
                    {"refresh_token": pair.json["refresh_token"]},
                    token=pair.json["access_token"],
                )
                self.assertEqual(pair.status, 200, f"{prefix} {name}")
            for path, method in (("account/whoami", "GET"), ("logout", "POST")):
                reply = self.ask(method, f"{base}/{path}", token=pair.json["access_token"])
                self.assertEqual(reply.status, 200, f"{prefix} {path}")

    def test_msc2918(self) -> None:
        """/refresh is also served under its old name."""
        login = self.log_in()
        reply = self.ask(
            "POST",
            "/_matrix/client/unstable/org.matrix.msc2918/refresh",
            {"refresh_token": login["refresh_token"]},
        )
        self.assertEqual(reply.status, 200)


class LoginTests(WebCase):
    """Logins over POST /login that succeed."""

    def test_answer(self) -> None:
        """A login answers the user, the server, a device and both tokens, and nothing else."""
        reply = self.ask("POST", LOGIN, PASSWORD_LOGIN)
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.header("Content-Type"), "application/json")
        answer = reply.json
        self.assertEqual(
            set(answer), {"user_id", "home_server", "device_id", "access_token", "refresh_token"}
        )
        self.assertEqual((answer["user_id"], answer["home_server"]), (ALICE, SERVER_NAME))
        whoami = self.ask("GET", WHOAMI, token=answer["access_token"])
        self.assertEqual(whoami.json, {"user_id": ALICE, "device_id": answer["device_id"]})

    def test_identifiers(self) -> None:
        """The user can be named by each of the ways of the contract."""
        self.rig.accounts.passwords["alice@example.com"] = ALICE_PASSWORD
        self.rig.accounts.passwords["447700900123"] = ALICE_PASSWORD
        email, phone = "alice@example.com", "447700900123"
        for naming, user_id in (
            ({"user": "alice"}, ALICE),
            ({"user": ALICE}, ALICE),
            ({"medium": "email", "address": "alice@example.com"}, email),
            ({"medium": "email", "address": " Alice@Example.COM "}, email),
            ({"identifier": {"type": "m.id.user", "user": "alice"}}, ALICE),
            ({"identifier": {"type": "m.id.user", "user": ALICE}}, ALICE),
            (
                {
                    "identifier": {
                        "type": "m.id.thirdparty",
                        "medium": "email",
                        "address": "ALICE@example.com",
                    }
                },
                email,
            ),
            (
                {"identifier": {"type": "m.id.thirdparty", "medium": "msisdn", "address": phone}},
                phone,
            ),
            (
                {
                    "identifier": {
                        "type": "m.id.phone",
                        "country": "GB",
                        "phone": "+44 7700 900-123",
                    }
                },
                phone,
            ),
            ({"user": "nobody", "identifier": {"type": "m.id.user", "user": "alice"}}, ALICE),
        ):
            payload = {"type": "m.login.password", "password": ALICE_PASSWORD, **naming}
            reply = self.ask("POST", LOGIN, payload)
            self.assertEqual(reply.status, 200, f"{naming} {reply.body!r}")
            self.assertEqual(reply.json["user_id"], user_id, naming)

    def test_device(self) -> None:
        """A device given is kept, and logging in on it again ends its earlier session."""
        first = self.log_in(device_id="PHONE", initial_device_display_name="My phone")
        self.assertEqual(first["device_id"], "PHONE")
        other = self.log_in()
        self.log_in(device_id="PHONE")
        reply = self.ask("GET", WHOAMI, token=first["access_token"])
        self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")
        self.assertEqual(self.ask("GET", WHOAMI, token=other["access_token"]).status, 200)

    def test_device_id_length(self) -> None:
        """A device id may have 512 characters, and no more."""
        self.log_in(device_id="x" * 512)
        reply = self.ask("POST", LOGIN, {**PASSWORD_LOGIN, "device_id": "x" * 513})
        self.assert_error(reply, 400, "M_BAD_JSON")
        self.assertIn("device_id", reply.json["error"])

    def test_empty_device_id(self) -> None:
        """An empty device ID counts as none, so that users do not share a device by it."""
        first, second = self.log_in(device_id=""), self.log_in(device_id="")
        self.assertEqual(len({first["device_id"], second["device_id"], ""}), 3)
        reply = self.ask("GET", WHOAMI, token=first["access_token"])
        self.assertEqual(reply.json["device_id"], first["device_id"])

    def test_unknown_keys_and_nulls(self) -> None:
        """Unknown keys, and null for optional ones, are ignored."""
        self.log_in(
            device_id=None,
            initial_device_display_name=None,
            refresh_token=None,
            identifier=None,
            medium=None,
            address=None,
            org_example={"a": [1]},
        )

    def test_always_policy(self) -> None:
        """By default every login gets a refresh token, and the access token expires only if the
        client asked for one.
        """
        self.use(Rig(policy=TokenPolicy(refreshable_access_token=300_000)))
        silent = self.log_in()
        self.assertIn("refresh_token", silent)
        self.assertNotIn("expires_in_ms", silent)
        self.assertNotIn("expires_in_ms", self.log_in(refresh_token=False))
        asked = self.log_in(refresh_token=True)
        self.assertIn("refresh_token", asked)
        self.assertEqual(asked["expires_in_ms"], 300_000)

    def test_on_request_policy(self) -> None:
        """With the policy on_request, only clients that ask get a refresh token."""
        policy = TokenPolicy(nonrefreshable_access_token=60_000)
        self.use(Rig(always_refresh_token=False, policy=policy))
        self.assertIn("refresh_token", self.log_in(refresh_token=True))
        for answer in (self.log_in(), self.log_in(refresh_token=False)):
            self.assertNotIn("refresh_token", answer)
            self.assertEqual(answer["expires_in_ms"], 60_000)

    def test_login_token(self) -> None:
        """A login token logs in once, with all that a login may ask for."""
        made = self.successResultOf(self.rig.store.make_login_token(ALICE))
        payload = {
            "type": "m.login.token",
            "token": made.token,
            "device_id": "TV",
            "refresh_token": True,
        }
        reply = self.ask("POST", LOGIN, payload)
        self.assertEqual(reply.status, 200)
        self.assertEqual((reply.json["user_id"], reply.json["device_id"]), (ALICE, "TV"))
        self.assertIn("expires_in_ms", reply.json)
        self.assert_error(self.ask("POST", LOGIN, payload), 403, "M_FORBIDDEN")

    def test_content_type_does_not_matter(self) -> None:
        """A body is parsed as JSON under every content type."""
        body = json.dumps(PASSWORD_LOGIN).encode("ascii")
        for content_type in (b"text/plain", b"application/octet-stream", b"nonsense", b""):
            reply = self.ask("POST", LOGIN, body=body, headers={b"Content-Type": content_type})
            self.assertEqual(reply.status, 200, content_type)

    def test_seed_example(self) -> None:
        """The seed's own example request, byte for byte, logs in."""
        self.rig.accounts.passwords[f"@cheeky_monkey:{SERVER_NAME}"] = "ilovebananas"
        body = b"""{
            "type": "m.login.password",
            "user": "cheeky_monkey",
            "password": "ilovebananas"
        }"""
        reply = self.ask("POST", "/_matrix/client/api/v1/login", body=body)
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.json["user_id"], f"@cheeky_monkey:{SERVER_NAME}")


class LoginRefusalTests(WebCase):
    """Logins over POST /login that are rejected."""

    def test_one_answer_for_four_causes(self) -> None:
        """A wrong password, an unknown user, a user of another server and a bad login token get the
        same response.
        """
        made = self.successResultOf(self.rig.store.make_login_token(ALICE))
        used = {"type": "m.login.token", "token": made.token}
        self.assertEqual(self.ask("POST", LOGIN, used).status, 200)
        password = {"type": "m.login.password", "password": "wrong"}
        right = {"type": "m.login.password", "password": ALICE_PASSWORD}
        replies = [
            self.ask("POST", LOGIN, payload)
            for payload in (
                {**password, "user": "alice"},
                {**password, "user": "larry"},
                {**password, "user": "dora"},
                {**right, "user": "nobody"},
                {**right, "user": ""},
                {**right, "user": "@alice"},
                {**right, "user": "@alice:elsewhere.example"},
                {**right, "medium": "email", "address": "nobody@example.com"},
                {"type": "m.login.token", "token": "nonsense"},
                {"type": "m.login.token", "token": ""},
                {"type": "m.login.token", "token": made.token},
            )
        ]
        for reply in replies:
            self.assert_error(reply, 403, "M_FORBIDDEN")
        self.assertEqual(len({reply.body for reply in replies}), 1)
        self.assertEqual(len({reply.lasting_headers for reply in replies}), 1)

    def test_unknown_names_cost_a_hash(self) -> None:
        """An unknown user and a bad login token are given a decoy to hash, a known one is not."""
        self.ask("POST", LOGIN, {**PASSWORD_LOGIN, "user": "nobody"})
        self.assertEqual(len(self.rig.hashing.decoys), 1)
        self.ask("POST", LOGIN, {"type": "m.login.token", "token": "nonsense"})
        self.assertEqual(len(self.rig.hashing.decoys), 2)
        self.log_in()
        self.assertEqual(len(self.rig.hashing.decoys), 2)

    def test_deactivated(self) -> None:
        """With the right password, the response says that the account is deactivated."""
        payload = {**PASSWORD_LOGIN, "user": "dora", "password": DEACTIVATED_PASSWORD}
        reply = self.ask("POST", LOGIN, payload)
        self.assert_error(reply, 403, "M_USER_DEACTIVATED")

    def test_locked(self) -> None:
        """With the right password, the response says that the account is locked, and that its
        session is kept.
        """
        payload = {**PASSWORD_LOGIN, "user": "larry", "password": LOCKED_PASSWORD}
        reply = self.ask("POST", LOGIN, payload)
        self.assert_error(reply, 401, "M_USER_LOCKED")
        self.assertIs(reply.json["soft_logout"], True)

    def test_login_token_of_an_account_that_is_gone(self) -> None:
        """A login token does not work for an account that is locked, deactivated or gone."""
        for user, errcode in (
            ("larry", "M_USER_LOCKED"),
            ("dora", "M_USER_DEACTIVATED"),
            ("nobody", "M_USER_DEACTIVATED"),
        ):
            made = self.successResultOf(self.rig.store.make_login_token(f"@{user}:{SERVER_NAME}"))
            reply = self.ask("POST", LOGIN, {"type": "m.login.token", "token": made.token})
            self.assertEqual(reply.errcode, errcode)

    def test_login_type(self) -> None:
        """An unknown login type gets the response of the contract."""
        for kind in ("m.login.dummy", "", "m.login.sso", "M.LOGIN.PASSWORD", "m.login.password "):
            reply = self.ask("POST", LOGIN, {**PASSWORD_LOGIN, "type": kind})
            self.assert_error(reply, 400, "M_UNKNOWN")
            self.assertEqual(reply.json["error"], "Bad login type.")

    def test_fields_are_named(self) -> None:
        """The error names the field that is missing or has the wrong type."""
        user = {"type": "m.id.user", "user": "alice"}
        password = {"type": "m.login.password", "password": "x"}
        for field, payload in (
            ("type", {}),
            ("type", {"type": None}),
            ("type", {"type": 1}),
            ("type", {"type": ["m.login.password"]}),
            ("password", {"type": "m.login.password", "user": "alice"}),
            ("password", {"type": "m.login.password", "user": "alice", "password": None}),
            ("password", {"type": "m.login.password", "user": "alice", "password": 1}),
            ("password", {"type": "m.login.password", "user": "alice", "password": ["x"]}),
            ("user", {**password, "user": 5}),
            ("user", {**password, "user": {"a": 1}}),
            ("identifier", password),
            ("identifier", {**password, "identifier": "alice"}),
            ("identifier", {**password, "identifier": [user]}),
            ("identifier.type", {**password, "identifier": {}}),
            ("identifier.type", {**password, "identifier": {"type": 1}}),
            ("identifier.user", {**password, "identifier": {"type": "m.id.user"}}),
            ("identifier.user", {**password, "identifier": {**user, "user": 1}}),
            ("identifier.medium", {**password, "identifier": {"type": "m.id.thirdparty"}}),
            (
                "identifier.address",
                {**password, "identifier": {"type": "m.id.thirdparty", "medium": "email"}},
            ),
            ("identifier.country", {**password, "identifier": {"type": "m.id.phone"}}),
            (
                "identifier.phone",
                {**password, "identifier": {"type": "m.id.phone", "country": "GB"}},
            ),
            ("address", {**password, "medium": "email"}),
            ("medium", {**password, "address": "alice@example.com"}),
            ("medium", {**password, "medium": 1, "address": "alice@example.com"}),
            ("token", {"type": "m.login.token"}),
            ("token", {"type": "m.login.token", "token": 7}),
            ("device_id", {**PASSWORD_LOGIN, "device_id": 1}),
            ("device_id", {**PASSWORD_LOGIN, "device_id": "a\0b"}),
            ("initial_device_display_name", {**PASSWORD_LOGIN, "initial_device_display_name": 1}),
            ("refresh_token", {**PASSWORD_LOGIN, "refresh_token": "true"}),
            ("refresh_token", {**PASSWORD_LOGIN, "refresh_token": 1}),
        ):
            reply = self.ask("POST", LOGIN, payload)
            self.assert_error(reply, 400, "M_BAD_JSON")
            self.assertTrue(reply.json["error"].startswith(f"{field}: "), (field, reply.json))

    def test_medium(self) -> None:
        """A medium other than e-mail is rejected, and the error names it."""
        password = {"type": "m.login.password", "password": "x"}
        for field, naming in (
            ("medium", {"medium": "msisdn", "address": "447700900123"}),
            ("medium", {"medium": "", "address": "x"}),
            (
                "identifier.medium",
                {"identifier": {"type": "m.id.thirdparty", "medium": "fax", "address": "1"}},
            ),
        ):
            reply = self.ask("POST", LOGIN, {**password, **naming})
            self.assert_error(reply, 400, "M_UNKNOWN")
            self.assertIn(f"{field}:", reply.json["error"])

    def test_identifier_type(self) -> None:
        """An unknown identifier type is rejected, and the error names it."""
        for kind in ("m.id.unknown", "", "m.id.USER"):
            payload = {"type": "m.login.password", "password": "x", "identifier": {"type": kind}}
            reply = self.ask("POST", LOGIN, payload)
            self.assert_error(reply, 400, "M_INVALID_PARAM")
            self.assertIn("identifier.type", reply.json["error"])

    def test_telephone_number(self) -> None:
        """A text that is no telephone number is rejected, and the error names the field."""
        for phone in ("", "x", "+", "1" * 100):
            identifier = {"type": "m.id.phone", "country": "GB", "phone": phone}
            payload = {"type": "m.login.password", "password": "x", "identifier": identifier}
            reply = self.ask("POST", LOGIN, payload)
            self.assert_error(reply, 400, "M_INVALID_PARAM")
            self.assertIn("identifier.phone", reply.json["error"])

    def test_bodies_are_not_repeated(self) -> None:
        """No error repeats a password that the client sent."""
        secret = "hunter2-hunter2"
        for payload in (
            {**PASSWORD_LOGIN, "password": [secret]},
            {**PASSWORD_LOGIN, "password": {"x": secret}},
            {"type": "m.login.token", "token": [secret]},
            {"type": secret},
            {**PASSWORD_LOGIN, "password": secret},
            {**PASSWORD_LOGIN, "identifier": {"type": "m.id.user", "user": [secret]}},
        ):
            reply = self.ask("POST", LOGIN, payload)
            self.assertIn(reply.status, (400, 403))
            self.assertNotIn(secret.encode("ascii"), reply.body)


class LimitTests(WebCase):
    """The rate limits."""

    def assert_limited(self, reply: Reply) -> int:
        """Check that the response says twice when to retry; return the time in milliseconds."""
        self.assert_error(reply, 429, "M_LIMIT_EXCEEDED")
        milliseconds = reply.json["retry_after_ms"]
        self.assertIs(type(milliseconds), int)
        self.assertGreater(milliseconds, 0)
        self.assertEqual(reply.header("Retry-After"), str(-(-milliseconds // 1000)))
        assert isinstance(milliseconds, int)
        return milliseconds

    def test_failed_attempts(self) -> None:
        """After too many failures, even the right password has to wait."""
        self.use(Rig(rates=(None, None, Rate(0.5, 2))))
        wrong = {**PASSWORD_LOGIN, "password": "wrong"}
        for _ in range(2):
            self.assert_error(self.ask("POST", LOGIN, wrong), 403, "M_FORBIDDEN")
        wait = self.assert_limited(self.ask("POST", LOGIN, PASSWORD_LOGIN))
        self.rig.clock.advance(wait / 1000)
        self.log_in()

    def test_by_address(self) -> None:
        """An address is limited for all user names together."""
        self.use(Rig(rates=(Rate(0.5, 2), None, None)))
        self.log_in()
        self.assert_error(
            self.ask("POST", LOGIN, {**PASSWORD_LOGIN, "user": "nobody"}), 403, "M_FORBIDDEN"
        )
        self.assert_limited(self.ask("POST", LOGIN, PASSWORD_LOGIN))
        elsewhere = {b"X-Forwarded-For": b"203.0.113.77"}
        body = json.dumps(PASSWORD_LOGIN).encode("ascii")
        self.assertEqual(self.ask("POST", LOGIN, body=body, headers=elsewhere).status, 200)

    def test_by_account(self) -> None:
        """An account is limited for all addresses together."""
        self.use(Rig(rates=(None, Rate(0.5, 1), None)))
        self.log_in()
        body = json.dumps(PASSWORD_LOGIN).encode("ascii")
        elsewhere = {b"X-Forwarded-For": b"203.0.113.77"}
        self.assert_limited(self.ask("POST", LOGIN, body=body, headers=elsewhere))

    def test_overloaded(self) -> None:
        """A full hashing queue is a 429, and the attempt does not count."""
        self.use(Rig(rates=(Rate(0.001, 1), Rate(0.001, 1), Rate(0.001, 1))))
        for _ in range(3):
            self.rig.hashing.failure = Overloaded(1.0)
            reply = self.ask("POST", LOGIN, {**PASSWORD_LOGIN, "user": "nobody"})
            self.assertEqual(self.assert_limited(reply), 1000)
            self.rig.provider.failure = Overloaded(0.25)
            reply = self.ask("POST", LOGIN, PASSWORD_LOGIN)
            self.assertEqual(self.assert_limited(reply), 250)
            self.rig.hashing.failure = self.rig.provider.failure = None
        self.log_in()

    def test_failing_refreshes(self) -> None:
        """Failing refreshes are limited by address; one with a valid token never is."""
        self.use(Rig(rates=(Rate(0.5, 2), None, None)))
        pair = self.log_in()
        for path, status in ((TOKENREFRESH, 403), (REFRESH, 401)):
            reply = self.ask("POST", path, {"refresh_token": "x"}, token=pair["access_token"])
            self.assertEqual(reply.status, status)
        for path in (TOKENREFRESH, REFRESH):
            self.assert_limited(
                self.ask("POST", path, {"refresh_token": "x"}, token=pair["access_token"])
            )
        for path in (TOKENREFRESH, REFRESH) * 4:
            reply = self.ask(
                "POST",
                path,
                {"refresh_token": pair["refresh_token"]},
                token=pair["access_token"],
            )
            self.assertEqual(reply.status, 200)
            pair = reply.json


class RefreshTests(WebCase):
    """The two ways to refresh."""

    def refresh(self, path: str, refresh_token: object, token: str | None = None) -> Reply:
        """Refresh."""
        return self.ask("POST", path, {"refresh_token": refresh_token}, token=token)

    def test_answer(self) -> None:
        """Both ways answer a new pair with its lifetime, and nothing else."""
        for path in (TOKENREFRESH, REFRESH):
            login = self.log_in()
            reply = self.refresh(path, login["refresh_token"], login["access_token"])
            self.assertEqual(reply.status, 200)
            self.assertEqual(set(reply.json), {"access_token", "refresh_token", "expires_in_ms"})
            self.assertEqual(reply.json["expires_in_ms"], TokenPolicy().refreshable_access_token)
            for name in ("access_token", "refresh_token"):
                self.assertNotEqual(reply.json[name], login[name])
            whoami = self.ask("GET", WHOAMI, token=reply.json["access_token"])
            self.assertEqual(whoami.json["device_id"], login["device_id"])

    def test_strict_leaves_nothing(self) -> None:
        """After /tokenrefresh the old refresh token is refused, and so is the old access token."""
        login = self.log_in()
        new = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"]).json
        for access_token in (login["access_token"], new["access_token"]):
            reply = self.refresh(TOKENREFRESH, login["refresh_token"], access_token)
            self.assert_error(reply, 403, "M_FORBIDDEN")
        whoami = self.ask("GET", WHOAMI, token=login["access_token"])
        self.assert_error(whoami, 401, "M_UNKNOWN_TOKEN")
        self.assertIs(whoami.json["soft_logout"], True)
        self.assertEqual(self.ask("GET", WHOAMI, token=new["access_token"]).status, 200)

    def test_lenient_repeats(self) -> None:
        """/refresh answers the same pair again until it has been used."""
        login = self.log_in()
        first = self.refresh(REFRESH, login["refresh_token"])
        again = self.refresh(REFRESH, login["refresh_token"])
        self.assertEqual(first.json, again.json)
        self.assertEqual(self.ask("GET", WHOAMI, token=login["access_token"]).status, 200)
        self.assertEqual(self.ask("GET", WHOAMI, token=first.json["access_token"]).status, 200)
        reply = self.refresh(REFRESH, login["refresh_token"])
        self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")
        self.assertIs(reply.json["soft_logout"], True)

    def test_reuse(self) -> None:
        """A refresh token that was replaced long ago ends the session, on both paths."""
        for path, status, errcode in (
            (TOKENREFRESH, 403, "M_FORBIDDEN"),
            (REFRESH, 401, "M_UNKNOWN_TOKEN"),
        ):
            login = self.log_in()
            new = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"]).json
            self.rig.clock.advance(11)
            reply = self.refresh(path, login["refresh_token"], new["access_token"])
            self.assert_error(reply, status, errcode)
            whoami = self.ask("GET", WHOAMI, token=new["access_token"])
            self.assert_error(whoami, 401, "M_UNKNOWN_TOKEN")
            self.assertIs(whoami.json["soft_logout"], True)
            if path == REFRESH:
                self.assertIs(reply.json["soft_logout"], True)
            for each in (login, new):
                again = self.refresh(path, each["refresh_token"], each["access_token"])
                self.assert_error(again, status, errcode)
            logout = self.ask("POST", LOGOUT, {}, token=new["access_token"])
            self.assertIs(logout.json["soft_logout"], True)

    def test_unknown(self) -> None:
        """A text that is no refresh token gets a 403 on /tokenrefresh and a 401 on /refresh."""
        login = self.log_in()
        for nonsense in ("", "x", "\0", "é", login["access_token"], login["refresh_token"][:-1]):
            reply = self.refresh(TOKENREFRESH, nonsense, login["access_token"])
            self.assert_error(reply, 403, "M_FORBIDDEN")
            self.assert_error(self.refresh(REFRESH, nonsense), 401, "M_UNKNOWN_TOKEN")
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"])
        self.assertEqual(reply.status, 200)

    def test_fields_are_named(self) -> None:
        """The error names a refresh token that is missing or no text."""
        token = self.log_in()["access_token"]
        for path in (TOKENREFRESH, REFRESH):
            for payload in ({}, {"refresh_token": None}, {"refresh_token": 1}, {"x": "y"}):
                reply = self.ask("POST", path, payload, token=token)
                self.assert_error(reply, 400, "M_BAD_JSON")
                self.assertIn("refresh_token: ", reply.json["error"])

    def test_access_token_is_needed(self) -> None:
        """/tokenrefresh without an access token is 401, and consumes nothing."""
        login = self.log_in()
        reply = self.refresh(TOKENREFRESH, login["refresh_token"])
        self.assert_error(reply, 401, "M_MISSING_TOKEN")
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"])
        self.assertEqual(reply.status, 200)

    def test_access_token_may_not_be_needed(self) -> None:
        """If the configuration says so, /tokenrefresh needs no access token. One that is sent is
        still checked.
        """
        self.use(Rig(require_access_token=False))
        login, other = self.log_in(), self.log_in()
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], other["access_token"])
        self.assert_error(reply, 403, "M_FORBIDDEN")
        self.assertEqual(self.refresh(TOKENREFRESH, login["refresh_token"]).status, 200)

    def test_access_token_may_have_expired(self) -> None:
        """/tokenrefresh accepts an expired access token."""
        self.use(Rig(policy=TokenPolicy(refreshable_access_token=1000)))
        login = self.log_in(refresh_token=True)
        self.rig.clock.advance(2)
        self.assert_error(
            self.ask("GET", WHOAMI, token=login["access_token"]), 401, "M_UNKNOWN_TOKEN"
        )
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"])
        self.assertEqual(reply.status, 200)

    def test_other_session(self) -> None:
        """/tokenrefresh with another session's access token is 403, and consumes nothing."""
        login, other = self.log_in(), self.log_in()
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], other["access_token"])
        self.assert_error(reply, 403, "M_FORBIDDEN")
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], "nonsense")
        self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"])
        self.assertEqual(reply.status, 200)

    def test_authorization_is_ignored(self) -> None:
        """/refresh looks at no Authorization header and at no token in the query."""
        for header in (b"Bearer nonsense", b"Basic x", b"", b"\xff\xfe", b"Bearer \xc3"):
            login = self.log_in()
            body = json.dumps({"refresh_token": login["refresh_token"]}).encode("ascii")
            reply = self.ask(
                "POST",
                f"{REFRESH}?access_token=nonsense",
                body=body,
                headers={b"Authorization": header},
            )
            self.assertEqual(reply.status, 200, header)

    def test_expired(self) -> None:
        """An idle session is refused: 403 on /tokenrefresh, 401 with soft_logout on /refresh."""
        self.use(Rig(policy=TokenPolicy(refresh_token=60_000)))
        login = self.log_in()
        self.rig.clock.advance(60)
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"])
        self.assert_error(reply, 403, "M_FORBIDDEN")
        reply = self.refresh(REFRESH, login["refresh_token"])
        self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")
        self.assertIs(reply.json["soft_logout"], True)

    def test_locked_since(self) -> None:
        """If the account was locked since, the response says so, and the tokens are kept."""
        login = self.log_in()
        statuses = self.rig.accounts.statuses
        statuses[ALICE] = statuses[f"@larry:{SERVER_NAME}"]
        for path in (TOKENREFRESH, REFRESH):
            reply = self.refresh(path, login["refresh_token"], login["access_token"])
            self.assert_error(reply, 401, "M_USER_LOCKED")
            self.assertIs(reply.json["soft_logout"], True)
        del statuses[ALICE]
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"])
        self.assertEqual(reply.status, 200)

    def test_deactivated_since(self) -> None:
        """If the account was deactivated or removed since, there are no new tokens, and the session
        ends.
        """
        statuses = self.rig.accounts.statuses
        for remove in (False, True):
            for path, status in ((TOKENREFRESH, 403), (REFRESH, 401)):
                login = self.log_in()
                if remove:
                    password = self.rig.accounts.passwords.pop(ALICE)
                else:
                    statuses[ALICE] = statuses[f"@dora:{SERVER_NAME}"]
                reply = self.refresh(path, login["refresh_token"], login["access_token"])
                self.assertEqual(reply.status, status)
                whoami = self.ask("GET", WHOAMI, token=login["access_token"])
                self.assert_error(whoami, 401, "M_UNKNOWN_TOKEN")
                statuses.pop(ALICE, None)
                if remove:
                    self.rig.accounts.passwords[ALICE] = password

    def test_provider_down(self) -> None:
        """While the provider is unavailable, a refresh goes on."""
        login = self.log_in()
        self.rig.provider.failure = ProviderUnavailable("directory gone")
        reply = self.refresh(TOKENREFRESH, login["refresh_token"], login["access_token"])
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.refresh(REFRESH, reply.json["refresh_token"]).status, 200)


class SessionTests(WebCase):
    """Logouts, and whoami."""

    def test_no_token(self) -> None:
        """Without an access token they get a 401."""
        for method, path in (
            ("GET", WHOAMI),
            ("POST", LOGOUT),
            ("POST", LOGOUT_ALL),
            ("POST", GET_TOKEN),
        ):
            for headers in (None, {b"Authorization": b"Basic x"}, {b"Authorization": b"Bearer "}):
                reply = self.ask(method, path, headers=headers)
                self.assert_error(reply, 401, "M_MISSING_TOKEN")

    def test_unknown_token(self) -> None:
        """With an unknown access token they get a 401 without ``soft_logout``."""
        login = self.log_in()
        for method, path in (
            ("GET", WHOAMI),
            ("POST", LOGOUT),
            ("POST", LOGOUT_ALL),
            ("POST", GET_TOKEN),
        ):
            for token in ("nonsense", "é", login["refresh_token"], login["access_token"] + "x"):
                reply = self.ask(method, path, token=token)
                self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")
                self.assertNotIn("soft_logout", reply.json)

    def test_token_in_the_query(self) -> None:
        """The token may be in the query."""
        token = self.log_in()["access_token"]
        self.assertEqual(self.ask("GET", f"{WHOAMI}?access_token={token}").status, 200)
        self.assertEqual(self.ask("POST", f"{LOGOUT}?access_token={token}").status, 200)
        self.assertEqual(self.ask("GET", f"{WHOAMI}?access_token={token}").status, 401)

    def test_logout(self) -> None:
        """A logout ends one session. Its body is ignored."""
        for body in (b"", b"{}", b"nonsense", b"\xff"):
            login, other = self.log_in(), self.log_in()
            reply = self.ask("POST", LOGOUT, body=body, token=login["access_token"])
            self.assertEqual((reply.status, reply.json), (200, {}))
            for token, status in ((login["access_token"], 401), (other["access_token"], 200)):
                self.assertEqual(self.ask("GET", WHOAMI, token=token).status, status)
            reply = self.ask("POST", REFRESH, {"refresh_token": login["refresh_token"]})
            self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")

    def test_logout_all(self) -> None:
        """A logout everywhere ends all sessions of the user, and none of other users."""
        self.rig.accounts.passwords[f"@bob:{SERVER_NAME}"] = "b"
        mine, bob = [self.log_in(), self.log_in()], self.log_in("bob", "b")
        reply = self.ask("POST", LOGOUT_ALL, {}, token=mine[0]["access_token"])
        self.assertEqual((reply.status, reply.json), (200, {}))
        for login in mine:
            self.assertEqual(self.ask("GET", WHOAMI, token=login["access_token"]).status, 401)
        self.assertEqual(self.ask("GET", WHOAMI, token=bob["access_token"]).status, 200)

    def test_expired_token(self) -> None:
        """An expired token gets a 401 with ``soft_logout``, but can log out."""
        for path in (LOGOUT, LOGOUT_ALL):
            self.use(Rig(policy=TokenPolicy(refreshable_access_token=1000)))
            login = self.log_in(refresh_token=True)
            self.rig.clock.advance(1)
            for method, protected in (("GET", WHOAMI), ("POST", GET_TOKEN)):
                reply = self.ask(method, protected, token=login["access_token"])
                self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")
                self.assertIs(reply.json["soft_logout"], True)
            reply = self.ask("POST", path, token=login["access_token"])
            self.assertEqual((reply.status, reply.json), (200, {}))
            reply = self.ask("POST", REFRESH, {"refresh_token": login["refresh_token"]})
            self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")


class GetTokenTests(WebCase):
    """POST /login/get_token, which asks for the password again."""

    def setUp(self) -> None:
        super().setUp()
        self.token = self.log_in()["access_token"]

    def auth(self, **changes: object) -> dict[str, Any]:
        """A body with the right password, but for the changes."""
        identifier = {"type": "m.id.user", "user": "alice"}
        return {
            "auth": {
                "type": "m.login.password",
                "identifier": identifier,
                "password": ALICE_PASSWORD,
                "session": "abc",
                **changes,
            }
        }

    def test_flows(self) -> None:
        """Without auth, with an empty body or an empty auth, it says what it needs."""
        for body in (b"", b"{}", b'{"auth": null}', b'{"auth": {}}', b'{"auth": {"session": 1}}'):
            reply = self.ask("POST", GET_TOKEN, body=body, token=self.token)
            self.assertEqual(reply.status, 401, body)
            self.assertEqual(reply.json["flows"], [{"stages": ["m.login.password"]}])
            self.assertEqual((reply.json["params"], reply.json["completed"]), ({}, []))
            self.assertIsInstance(reply.json["session"], str)

    def test_right_password(self) -> None:
        """With the password it makes a token that logs in once."""
        reply = self.ask("POST", GET_TOKEN, self.auth(), token=self.token)
        self.assertEqual(reply.status, 200)
        self.assertEqual(set(reply.json), {"login_token", "expires_in_ms"})
        self.assertEqual(reply.json["expires_in_ms"], 120_000)
        payload = {"type": "m.login.token", "token": reply.json["login_token"]}
        answer = self.ask("POST", LOGIN, payload)
        self.assertEqual((answer.status, answer.json["user_id"]), (200, ALICE))
        self.assert_error(self.ask("POST", LOGIN, payload), 403, "M_FORBIDDEN")

    def test_wrong_password(self) -> None:
        """With a wrong password, or another user's right one, it asks again, same session."""
        self.rig.accounts.passwords[f"@bob:{SERVER_NAME}"] = "b"
        bob = {"type": "m.id.user", "user": "bob"}
        replies = [
            self.ask("POST", GET_TOKEN, self.auth(**changes), token=self.token)
            for changes in ({"password": "wrong"}, {"identifier": bob, "password": "b"})
        ]
        for reply in replies:
            self.assertEqual((reply.status, reply.errcode), (401, "M_FORBIDDEN"))
            self.assertEqual(reply.json["session"], "abc")
            self.assertEqual(reply.json["flows"], [{"stages": ["m.login.password"]}])
        self.assertEqual(replies[0].body, replies[1].body)

    def test_bad_auth(self) -> None:
        """An auth of the wrong shape is 400, and what is wrong in it is named."""
        for payload, errcode, field in (
            ({"auth": 1}, "M_BAD_JSON", "auth"),
            ({"auth": []}, "M_BAD_JSON", "auth"),
            (self.auth(type="m.login.dummy"), "M_UNKNOWN", "auth.type"),
            (self.auth(type=None), "M_UNKNOWN", "auth.type"),
            (self.auth(password=None), "M_BAD_JSON", "auth.password"),
            (self.auth(identifier=None), "M_BAD_JSON", "auth.identifier"),
            (self.auth(identifier={"type": "m.id.x"}), "M_INVALID_PARAM", "auth.identifier.type"),
        ):
            reply = self.ask("POST", GET_TOKEN, payload, token=self.token)
            self.assert_error(reply, 400, errcode)
            self.assertIn(field, reply.json["error"])

    def test_limited(self) -> None:
        """Guessing here is limited as guessing at /login is."""
        self.use(Rig(rates=(None, None, Rate(0.01, 2))))
        token = self.log_in()["access_token"]
        for _ in range(2):
            reply = self.ask("POST", GET_TOKEN, self.auth(password="wrong"), token=token)
            self.assertEqual(reply.status, 401)
        reply = self.ask("POST", GET_TOKEN, self.auth(), token=token)
        self.assert_error(reply, 429, "M_LIMIT_EXCEEDED")


class OutageTests(WebCase):
    """The responses while a provider or the store is unavailable."""

    def test_provider_down(self) -> None:
        """An outage of a provider is a 503 on /login, and no failed attempt."""
        self.use(Rig(rates=(Rate(0.001, 2), Rate(0.001, 2), Rate(0.001, 1))))
        for _ in range(5):
            self.rig.provider.failure = ProviderUnavailable("ldap://secret.internal")
            reply = self.ask("POST", LOGIN, PASSWORD_LOGIN)
            self.assert_error(reply, 503, "M_UNKNOWN")
            self.assertNotIn(b"secret.internal", reply.body)
            self.assertIsNotNone(reply.header("Retry-After"))
        self.rig.provider.failure = None
        self.log_in()

    def test_provider_down_for_the_status(self) -> None:
        """The same holds if only the status is asked for and unavailable."""
        self.use(Rig(provider=ReticentProvider({ALICE: ALICE_PASSWORD})))
        made = self.successResultOf(self.rig.store.make_login_token(ALICE))
        self.rig.provider.only = {"account_status"}
        self.rig.provider.failure = ProviderUnavailable("gone")
        for payload in (PASSWORD_LOGIN, {"type": "m.login.token", "token": made.token}):
            self.assert_error(self.ask("POST", LOGIN, payload), 503, "M_UNKNOWN")

    def test_store_down(self) -> None:
        """An outage of the store is a 503 in JSON, except on the two refresh paths."""
        login = self.log_in()
        made = self.successResultOf(self.rig.store.make_login_token(ALICE))
        token_login = {"type": "m.login.token", "token": made.token}
        for method, path, payload in (
            ("POST", LOGIN, PASSWORD_LOGIN),
            ("POST", LOGIN, token_login),
            ("GET", WHOAMI, None),
            ("POST", LOGOUT, {}),
            ("POST", LOGOUT_ALL, {}),
            ("POST", GET_TOKEN, {}),
        ):
            self.rig.store.failure = StoreUnavailable("/var/lib/secret.db is gone")
            reply = self.ask(method, path, payload, token=login["access_token"])
            self.assert_error(reply, 503, "M_UNKNOWN")
            self.assertNotIn(b"secret.db", reply.body)
            self.assertIsNotNone(reply.header("Retry-After"))
        self.rig.store.failure = None
        self.assertEqual(self.ask("POST", LOGIN, token_login).status, 200)
        self.assertEqual(self.ask("GET", WHOAMI, token=login["access_token"]).status, 200)

    def test_store_down_on_a_refresh(self) -> None:
        """On the two refresh paths it is plain text with Retry-After, which clients survive."""
        login = self.log_in()
        payload = {"refresh_token": login["refresh_token"]}
        for path in (TOKENREFRESH, REFRESH, "/_matrix/client/unstable/org.matrix.msc2918/refresh"):
            for only in (set(), {"refresh"}, {"present"}):
                self.rig.store.only = only
                self.rig.store.failure = StoreUnavailable("/var/lib/secret.db is gone")
                reply = self.ask("POST", path, payload, token=login["access_token"])
                self.assertEqual(reply.status, 503)
                self.assertEqual(reply.header("Content-Type"), "text/plain; charset=utf-8")
                self.assertGreater(int(reply.header("Retry-After") or 0), 0)
                self.assertRaises(ValueError, json.loads, reply.body)
                self.assertNotIn(b"secret.db", reply.body)
        self.rig.store.failure = None
        reply = self.ask("POST", TOKENREFRESH, payload, token=login["access_token"])
        self.assertEqual(reply.status, 200)

    def test_store_down_is_logged(self) -> None:
        """Only the first line of the store's error is logged, as the next may quote a token."""
        self.rig.store.failure = StoreUnavailable("disk I/O error\nDETAIL: slmrt_secret")
        for path in (REFRESH, LOGIN):
            with capturedLogs() as events:
                payload = PASSWORD_LOGIN if path == LOGIN else {"refresh_token": "x"}
                self.assertEqual(self.ask("POST", path, payload).status, 503)
            lines = [str(formatEvent(event)) for event in events]
            self.assertIn(f"503 at {path}: disk I/O error", lines)
            self.assertNotIn("secret", "".join(lines))

    def test_store_down_on_many_paths(self) -> None:
        """An outage has as many lines in the log on many paths as on one."""
        self.rig.store.failure = StoreUnavailable("disk gone")
        with capturedLogs() as events:
            for path in (REFRESH, TOKENREFRESH, LOGIN, LOGOUT, LOGOUT_ALL, GET_TOKEN):
                payload = PASSWORD_LOGIN if path == LOGIN else {"refresh_token": "x"}
                for _ in range(OF_ONE):
                    self.assertEqual(self.ask("POST", path, payload, token="x").status, 503)
        lines = [str(formatEvent(event)) for event in events]
        outages = [line for line in lines if line.startswith("503 at ")]
        self.assertEqual(outages, [f"503 at {REFRESH}: disk gone"] * OF_ONE)

    def test_store_down_is_not_counted(self) -> None:
        """Attempts during an outage of the store do not count."""
        self.use(Rig(rates=(Rate(0.001, 1), Rate(0.001, 1), Rate(0.001, 1))))
        for _ in range(5):
            self.rig.store.failure = StoreUnavailable("gone")
            self.assertEqual(self.ask("POST", LOGIN, PASSWORD_LOGIN).status, 503)
            reply = self.ask("POST", REFRESH, {"refresh_token": "x"})
            self.assertEqual(reply.status, 503)
        self.rig.store.failure = None
        self.log_in()


class UnexpectedTests(WebCase):
    """The responses to unexpected errors."""

    def test_details_go_to_the_log(self) -> None:
        """Every path responds with a 500 without details, and the log has the traceback."""
        login = self.log_in()
        calls = [("POST", path) for path in (LOGIN, LOGOUT, LOGOUT_ALL, GET_TOKEN)]
        for method, path in [*calls, ("GET", WHOAMI), ("POST", TOKENREFRESH), ("POST", REFRESH)]:
            payload = PASSWORD_LOGIN if path == LOGIN else login
            self.rig.store.failure = ZeroDivisionError("the details")
            reply = self.ask(method, path, payload, token=login["access_token"])
            self.assert_error(reply, 500, "M_UNKNOWN")
            self.assertEqual(reply.json["error"], "Internal server error")
            self.assertEqual(set(reply.json), {"errcode", "error"})
            logged = self.flushLoggedErrors(ZeroDivisionError)
            self.assertEqual(len(logged), 1, path)
            self.assertIn("the details", logged[0].getTraceback())

    def test_provider(self) -> None:
        """A provider that violates its interface is a 500, not a rejected login."""
        self.rig.provider.failure = KeyError("the details")
        self.assert_error(self.ask("POST", LOGIN, PASSWORD_LOGIN), 500, "M_UNKNOWN")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_not_counted(self) -> None:
        """An attempt that ends with a 500 does not count against the client."""
        self.use(Rig(rates=(Rate(0.001, 1), Rate(0.001, 1), Rate(0.001, 1))))
        for _ in range(3):
            self.rig.provider.failure = KeyError("broken")
            self.assertEqual(self.ask("POST", LOGIN, PASSWORD_LOGIN).status, 500)
        self.rig.provider.failure = None
        self.log_in()
        self.flushLoggedErrors(KeyError)

    def test_health(self) -> None:
        """/health responds with a 500 in JSON too, if the check itself fails."""
        self.rig.store.failure = ZeroDivisionError("the details")
        self.assert_error(self.ask("GET", "/health"), 500, "M_UNKNOWN")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


def _stalled() -> list[Deferred[Any]]:
    return []


class SlowAnswerTests(WebCase):
    """Requests whose responses take time."""

    def test_answer_comes_late(self) -> None:
        """The response is sent when its Deferred has fired."""
        self.rig.provider.only = {"authenticate"}
        stalled = self.rig.provider.stalled = _stalled()
        asked = self.begin("POST", LOGIN, json.dumps(PASSWORD_LOGIN).encode("ascii"))
        self.treq.flush()
        self.assertNoResult(asked)
        self.rig.provider.stalled = None
        stalled[0].callback(None)
        self.treq.flush()
        reply = self.read(self.successResultOf(asked))
        self.assert_error(reply, 403, "M_FORBIDDEN")

    def test_disconnect(self) -> None:
        """If the client disconnects, its request is cancelled, and nothing is written."""
        request = post(LOGIN, json.dumps(PASSWORD_LOGIN).encode("ascii"))
        for method in ("authenticate", "account_status"):
            rig = Rig(provider=ReticentProvider({ALICE: ALICE_PASSWORD}))
            wire = MemoryWire(LoginSite(rig.root, Clock()))
            rig.provider.only = {method}
            stalled = rig.provider.stalled = _stalled()
            wire.send(request)
            self.assertEqual((len(stalled), wire.received()), (1, b""))
            wire.vanish()
            self.assertEqual(rig.provider.cancelled, [method])
            stalled[0].callback(None)
            self.assertEqual(wire.received(), b"")
            self.assertEqual(rig.audit.counts["login", "failed", "disconnected"], 1)

    def test_disconnect_while_the_store_works(self) -> None:
        """A refresh that the store works on is not cancelled, because reuse has to be logged. Other
        requests are.
        """
        for path in POSTS:
            rig = Rig()
            wire = MemoryWire(LoginSite(rig.root, Clock()))
            stalled = rig.store.stalled = _stalled()
            payload = PASSWORD_LOGIN if path == LOGIN else {"refresh_token": "x"}
            body = json.dumps(payload).encode("ascii")
            wire.send(post(path, body, [b"Authorization: Bearer x"]))
            self.assertEqual((len(stalled), wire.received()), (1, b""), path)
            wire.vanish()
            ended = path not in (TOKENREFRESH, REFRESH)
            self.assertEqual(len(rig.store.cancelled), int(ended), path)
            stalled[0].errback(StoreUnavailable("too late to matter"))
            self.assertEqual(wire.received(), b"")

    def test_disconnect_before_an_answer_that_cannot_be_stopped(self) -> None:
        """A provider that cannot be cancelled, and fails afterwards, does no harm."""
        rig = Rig()
        wire = MemoryWire(LoginSite(rig.root, Clock()))
        stalled = rig.provider.stalled = _stalled()
        wire.send(post(LOGIN, json.dumps(PASSWORD_LOGIN).encode("ascii")))
        wire.vanish()
        stalled[0].errback(ZeroDivisionError("too late"))
        self.assertEqual(wire.received(), b"")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_disconnect_counts(self) -> None:
        """A wrong password counts even if the client disconnects before the response."""
        rig = Rig(rates=(None, None, Rate(0.001, 1)))
        site = LoginSite(rig.root, Clock())
        rig.provider.only = {"authenticate"}
        rig.provider.stalled = []
        wire = MemoryWire(site)
        wire.send(post(LOGIN, json.dumps(PASSWORD_LOGIN).encode("ascii")))
        wire.vanish()
        rig.provider.stalled = None
        wire = MemoryWire(site)
        wire.send(post(LOGIN, json.dumps(PASSWORD_LOGIN).encode("ascii")))
        self.assertIn(b"HTTP/1.1 429 ", wire.received())


class InFlightTests(WebCase):
    """The limit on requests in flight."""

    def setUp(self) -> None:
        self.rig = Rig(requests=2)
        self.site = LoginSite(self.rig.root, Clock())
        self.stalled = self.rig.store.stalled = _stalled()

    def send(self, path: str) -> MemoryWire:
        """Send a request on a connection of its own."""
        wire = MemoryWire(self.site)
        payload = PASSWORD_LOGIN if path == LOGIN else {"refresh_token": "x"}
        body = json.dumps(payload).encode("ascii")
        wire.send(post(path, body, [b"Authorization: Bearer x"]))
        return wire

    def test_too_many(self) -> None:
        """Beyond the limit, requests get a 503 with Retry-After at once, on the refresh paths in
        plain text.
        """
        waiting = [self.send(LOGIN), self.send(REFRESH)]
        for path in (LOGIN, LOGOUT, REFRESH, TOKENREFRESH):
            (reply,) = responses(self.send(path).received())
            self.assertEqual(reply.status, 503, path)
            self.assertEqual(reply.header("Retry-After"), "1")
            if path in (REFRESH, TOKENREFRESH):
                self.assertEqual(reply.header("Content-Type"), "text/plain; charset=utf-8")
                self.assertNotIn(b"{", reply.body)
            else:
                self.assert_error(reply, 503, "M_UNKNOWN")
        self.assertEqual([wire.received() for wire in waiting], [b"", b""])

    def test_room_again(self) -> None:
        """A request that got its response, or failed, makes room for the next."""
        first, second = self.send(REFRESH), self.send(LOGIN)
        for answered, error in ((first, StoreUnavailable("x")), (second, ZeroDivisionError("x"))):
            self.stalled.pop(0).errback(error)
            self.assertNotEqual(answered.received(), b"")
            self.assertEqual(self.send(LOGIN).received(), b"")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_client_gone(self) -> None:
        """A request that goes on after its client has disconnected counts until it ends."""
        for path, room in ((REFRESH, False), (LOGIN, True)):
            self.setUp()
            wires = [self.send(path) for _ in range(2)]
            for wire in wires:
                wire.vanish()
            self.assertEqual(self.send(LOGIN).received() == b"", room, path)

    def test_told_once(self) -> None:
        """Each overload is one line in the log."""
        with capturedLogs() as events:
            for _ in range(2):
                for _ in range(5):
                    self.send(LOGIN)
                while self.stalled:
                    self.stalled.pop().errback(StoreUnavailable("x"))
        told = [formatEvent(event) for event in events if "more get 503" in formatEvent(event)]
        self.assertEqual(told, ["2 requests are being answered: more get 503"] * 2)


NOT_JSON = (
    b"",
    b" ",
    b"\0",
    b"nonsense",
    b"{",
    b"}",
    b"[",
    b'{"type"',
    b'{"type":}',
    b'{"type": "m.login.password",}',
    b"{'type': 'm.login.password'}",
    b"{type: 1}",
    b'{"a": 1} {"b": 2}',
    b'{"a": 1}x',
    b"NaN",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": -Infinity}',
    b'{"a": 01}',
    b'{"a": "\n"}',
    b'{"a": "\\x"}',
    b'{"a": "\\u12"}',
    b'\xef\xbb\xbf{"type": "m.login.password"}',
    b'{"type": "\xff"}',
    b'{"type": "\xc3"}',
    b'{"type": "\xed\xa0\x80"}',
    '{"type": "m.login.password"}'.encode("utf-16"),
    b"user=alice&password=x",
    b"<xml/>",
    b"[" * 60_000,
    b'{"a":' * 12_000,
    b'{"a": ' + b"9" * 50_000 + b"}",
)

NOT_OBJECTS = (
    b"[]",
    b"null",
    b"true",
    b"1",
    b"1e400",
    b'"text"',
    b'[{"type": "m.login.password"}]',
)


class MalformedTests(WebCase):
    """Bodies that are not JSON objects."""

    def test_not_json(self) -> None:
        """A body that is not JSON gets ``M_NOT_JSON``."""
        token = self.log_in()["access_token"]
        for path in (LOGIN, TOKENREFRESH, REFRESH, GET_TOKEN):
            for body in NOT_JSON:
                if path == GET_TOKEN and body == b"":
                    continue
                reply = self.ask("POST", path, body=body, token=token)
                self.assertEqual(reply.status, 400, f"{path} {body[:40]!r} {reply.body!r}")
                self.assertEqual(reply.errcode, "M_NOT_JSON", f"{path} {body[:40]!r}")

    def test_not_an_object(self) -> None:
        """A body that is JSON but no object gets ``M_BAD_JSON``."""
        token = self.log_in()["access_token"]
        for path in (LOGIN, TOKENREFRESH, REFRESH, GET_TOKEN):
            for body in NOT_OBJECTS:
                reply = self.ask("POST", path, body=body, token=token)
                self.assertEqual(reply.status, 400, f"{path} {body!r}")
                self.assertEqual(reply.errcode, "M_BAD_JSON", f"{path} {body!r}")

    def test_odd_but_good(self) -> None:
        """Duplicate keys, escapes and white space are valid JSON. The last of duplicate keys
        counts.
        """
        body = (
            b'\r\n\t {"type": "x", "password": "wrong", "user": "al\\u0069ce", '
            b'"type": "m.login.password", "password": "' + ALICE_PASSWORD.encode("ascii") + b'"} '
        )
        self.assertEqual(self.ask("POST", LOGIN, body=body).status, 200)

    def test_too_large(self) -> None:
        """A body over 64 KiB gets a 413 in the resource tree too, without a site."""
        reply = self.ask("POST", LOGIN, body=b" " * (64 * 1024 + 1))
        self.assert_error(reply, 413, "M_TOO_LARGE")

    def test_lone_surrogates(self) -> None:
        """A lone surrogate is valid JSON. It is a wrong value, never a 500, with any provider."""
        users = {"alice": {"password_hash": password_hash(ALICE_PASSWORD)}}
        config = BcryptProvider.parse_config({"users": users}, Path())
        self.use(Rig(provider=BcryptProvider(config, testing.environment())))
        for key in ("user", "password", "device_id", "initial_device_display_name", "type"):
            reply = self.ask("POST", LOGIN, {**PASSWORD_LOGIN, key: "\ud800"})
            self.assertEqual(self.flushLoggedErrors(), [], key)
            self.assertIn(reply.status, (400, 403), f"{key} {reply.body!r}")
        for path in (TOKENREFRESH, REFRESH):
            reply = self.ask("POST", path, {"refresh_token": "\udfff"}, token="x")
            self.assertIn(reply.status, (400, 401, 403), path)

    def test_nul(self) -> None:
        """A NUL in a name or a password is a wrong value."""
        for key in ("user", "password"):
            reply = self.ask("POST", LOGIN, {**PASSWORD_LOGIN, key: "a\0b"})
            self.assert_error(reply, 403, "M_FORBIDDEN")


_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_words = st.sampled_from(
    (
        "m.login.password",
        "m.login.token",
        "m.id.user",
        "m.id.thirdparty",
        "m.id.phone",
        "email",
        "msisdn",
        "alice",
        ALICE,
        ALICE_PASSWORD,
        "GB",
        "07700 900123",
    )
)
_keys = st.sampled_from(
    (
        "type",
        "user",
        "password",
        "identifier",
        "medium",
        "address",
        "country",
        "phone",
        "token",
        "device_id",
        "initial_device_display_name",
        "refresh_token",
        "auth",
        "session",
    )
)
_likely = st.recursive(
    _words | _anything,
    lambda inner: st.dictionaries(_keys, inner, min_size=1, max_size=8),
    max_leaves=20,
)
_login = st.fixed_dictionaries(
    {"type": st.sampled_from(("m.login.password", "m.login.token"))},
    optional={
        "user": _words | _anything,
        "password": _words | _anything,
        "identifier": st.dictionaries(_keys, _words | _anything, max_size=5),
        "token": _anything,
        "device_id": _anything,
        "initial_device_display_name": _anything,
        "refresh_token": _anything,
    },
)


class AnythingTests(WebCase):
    """Every request gets one of the responses of the contract."""

    expected = frozenset((200, 400, 401, 403))

    def assert_answered(self, reply: Reply) -> None:
        """Check that the status is an expected one, the body is JSON, and no error is logged."""
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertIn(reply.status, self.expected, reply.body)
        if reply.status == 401 and "flows" in reply.json:
            return  # what user-interactive authentication asks for is no error
        if reply.status != 200:
            self.assertTrue(reply.errcode.startswith("M_"))

    @settings(max_examples=300)
    @given(
        st.sampled_from(POSTS),
        _anything | _likely | _login | st.fixed_dictionaries({"auth": _login}),
    )
    def test_json(self, path: str, payload: object) -> None:
        """No JSON value as a body gets a 5xx, on any path, with a valid access token."""
        token = self.log_in()["access_token"]
        body = json.dumps(payload).encode("ascii")
        self.assert_answered(self.ask("POST", path, body=body, token=token))

    @settings(max_examples=150)
    @given(st.sampled_from(POSTS), st.binary(max_size=200))
    def test_bytes(self, path: str, body: bytes) -> None:
        """No bytes as a body get a 5xx."""
        token = self.log_in()["access_token"]
        self.assert_answered(self.ask("POST", path, body=body, token=token))

    @settings(max_examples=150)
    @given(
        st.sampled_from((WHOAMI, *POSTS)),
        st.sampled_from((b"Authorization", b"X-Forwarded-For", b"Content-Type")),
        st.sampled_from((b"", b"Bearer ", b"127.0.0.1, ", b"[", b"multipart/form-data; boundary=")),
        st.binary(max_size=40),
    )
    def test_headers(self, path: str, name: bytes, start: bytes, rest: bytes) -> None:
        """No header that HTTP allows gets a 5xx."""
        header = name + b": " + (start + rest).translate(None, b"\r\n\0").strip()
        payload = PASSWORD_LOGIN if path == LOGIN else {"refresh_token": "x"}
        body = b"{}" if path in (LOGOUT, LOGOUT_ALL) else json.dumps(payload).encode("ascii")
        wire = MemoryWire(LoginSite(self.rig.root, Clock()), IPv4Address("TCP", "127.0.0.1", 50000))
        wire.send(get(path, [header]) if path == WHOAMI else post(path, body, [header]))
        (reply,) = responses(wire.received())
        self.assert_common_headers(reply)
        self.assert_answered(reply)

    @settings(max_examples=150)
    @given(st.binary(max_size=60))
    def test_query(self, query: bytes) -> None:
        """No query and no path gets a 5xx."""
        safe = query.translate(None, bytes(range(33)) + b"#?\x7f").decode("latin-1")
        ascii_only = safe.encode("ascii", "ignore")
        rig = Rig()
        for path in (b"%b?access_token=" % WHOAMI.encode("ascii"), b"%b?" % WHOAMI.encode("ascii")):
            wire = MemoryWire(LoginSite(rig.root, Clock()))
            wire.send(get((path + ascii_only).decode("ascii")))
            self.assertIn(wire.received()[:13], (b"HTTP/1.1 401 ",))
