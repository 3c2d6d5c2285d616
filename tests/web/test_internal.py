"""Tests for what a homeserver calls, through the real site and resource tree, without sockets."""

from __future__ import annotations

import hmac
import json
from functools import partial
from typing import Any
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import KeyUnavailable, StoreUnavailable
from synapse_login_module.model import (
    AccountStatus,
    Client,
    HomeserverPolicy,
    Login,
    LoginRequest,
    PasswordLogin,
    SessionInfo,
    TokenPolicy,
    UserId,
    UserIdentifier,
)
from synapse_login_module.testing import SERVER_NAME
from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.internal import DEADLINE, InternalHandlers
from synapse_login_module.web.routes import internal_root
from synapse_login_module.web.site import LoginSite
from tests.support.accounts import ALICE
from tests.support.delegation import FakeHost
from tests.support.rig import Rig
from tests.support.site import MemoryWire, get, post, responses
from tests.support.web import Reply

SECRET = b"the secret of both"
INTROSPECT = "/oauth2/introspect"
CONFIGURATION = "/.well-known/openid-configuration"
BASE = "https://login.example.com/"
ACCOUNT_PAGE = "https://login.example.com/account"
FORM = b"Content-Type: application/x-www-form-urlencoded"
BEARER = b"Authorization: Bearer " + SECRET
LIFETIME = 300_000
ASKS = "homeserver: it asks about tokens"
HOME = Client("192.0.2.1", "192.0.2.1")


class InternalCase(SynchronousTestCase):
    """A test case with a connection to the internal listener."""

    def setUp(self) -> None:
        self.use()

    def use(self, policy: HomeserverPolicy | None = None, lifetime: int | None = LIFETIME) -> None:
        """Build the service."""
        tokens = TokenPolicy(
            refreshable_access_token=lifetime, nonrefreshable_access_token=lifetime
        )
        self.rig = Rig(policy=tokens, host=FakeHost())
        self.serve(self.handlers(self.rig.service, policy))

    def serve(self, handlers: InternalHandlers) -> None:
        """Connect to a site with these handlers."""
        self._site = self.site(handlers)
        self.wire = MemoryWire(self._site)

    def wait(self, seconds: float) -> None:
        """Let time pass, and connect again, since idle connections are closed."""
        self.rig.clock.advance(seconds)
        self.wire = MemoryWire(self._site)

    def handlers(self, service: Any, policy: HomeserverPolicy | None = None) -> InternalHandlers:
        """Build the handlers."""
        return InternalHandlers(
            service,
            policy or HomeserverPolicy(),
            SERVER_NAME,
            partial(hmac.compare_digest, SECRET),
            BASE,
            ACCOUNT_PAGE,
            self.rig.clock.seconds,
            self.rig.clock,
        )

    def site(self, handlers: InternalHandlers) -> LoginSite:
        """Build the site."""

        root = internal_root(HTTPRequest.respond, self.rig.handlers.health, handlers)
        return LoginSite(root, self.rig.clock)

    def log_in(self, user: str = "alice", **more: Any) -> Login:
        """Log a user in."""
        credentials = PasswordLogin(
            UserIdentifier(UserId(user, SERVER_NAME)), self.rig.accounts.passwords[_id(user)]
        )
        logging_in = self.rig.service.login(LoginRequest(credentials, **more), HOME)
        return self.successResultOf(Deferred.fromCoroutine(logging_in))

    def send(self, data: bytes) -> Reply | None:
        """Send bytes; return the response, if it is there."""
        self.wire.send(data)
        found = responses(self.wire.received())
        return found[0] if found else None

    def ask(self, data: bytes) -> Reply:
        """Send bytes, and return the response."""
        reply = self.send(data)
        assert reply is not None, "no response"
        return reply

    def introspect(self, token: str) -> Reply:
        """Ask whose a token is, as Synapse does."""
        return self.ask(introspection(token))

    def assert_inactive(self, reply: Reply) -> None:
        """Assert that the token is not valid, and that nothing else is told."""
        self.assertEqual((reply.status, reply.json), (200, {"active": False}))

    def assert_unavailable(self, reply: Reply | None) -> None:
        """Assert that the homeserver is told to ask again."""
        assert reply is not None, "no response"
        self.assertEqual(reply.status, 503, reply.body)
        self.assertIsNotNone(reply.header("Retry-After"))


def _id(user: str) -> str:
    return f"@{user}:{SERVER_NAME}"


def introspection(token: str) -> bytes:
    """Return the request that Synapse sends."""
    body = urlencode({"token": token, "token_type_hint": "access_token"}).encode("ascii")
    return post(INTROSPECT, body, [FORM, BEARER, b"X-MAS-Supports-Device-Id: 1"])


class IntrospectionTests(InternalCase):
    """What is told of a token."""

    def test_active(self) -> None:
        """A valid token is described by the keys that Synapse reads, and by no others."""
        login = self.log_in(device_id="PHONE")
        reply = self.introspect(login.tokens.access_token)
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertEqual(
            reply.json,
            {
                "active": True,
                "scope": "urn:matrix:client:api:*",
                "username": "alice",
                "device_id": "PHONE",
                "expires_in": 300,
            },
        )

    def test_rounded_down(self) -> None:
        """The remaining time is in whole seconds, rounded down, and then it is inactive."""
        token = self.log_in().tokens.access_token
        for advance, left in ((0.25, 299), (0.75, 299), (298.5, 0), (0.25, 0)):
            self.wait(advance)
            self.assertEqual(self.introspect(token).json["expires_in"], left)
        self.rig.clock.advance(0.25)
        self.assert_inactive(self.introspect(token))

    def test_never_expires(self) -> None:
        """A token that never expires has no ``expires_in``."""
        self.use(lifetime=None)
        described = self.introspect(self.log_in().tokens.access_token).json
        self.assertIs(described["active"], True)
        self.assertNotIn("expires_in", described)

    def test_admin(self) -> None:
        """The tokens of administrators, and of no others, carry Synapse's scope."""
        self.use(HomeserverPolicy(admins=frozenset([ALICE])))
        self.rig.accounts.passwords[_id("bob")] = "b"
        alice, bob = (
            self.introspect(self.log_in(user).tokens.access_token).json["scope"].split()
            for user in ("alice", "bob")
        )
        self.assertEqual(alice, ["urn:matrix:client:api:*", "urn:synapse:admin:*"])
        self.assertEqual(bob, ["urn:matrix:client:api:*"])

    def test_inactive(self) -> None:
        """A token that is unknown, of another kind, or of a session that has ended is inactive."""
        login = self.log_in(wants_refresh_token=True)
        assert login.tokens.refresh_token is not None
        for token in ("x", "slmat_x", "syt_x", login.tokens.refresh_token, "\N{SNOWMAN}", "a b&c"):
            self.assert_inactive(self.introspect(token))
        self.successResultOf(self.rig.memory.revoke_all(ALICE))
        self.assert_inactive(self.introspect(login.tokens.access_token))

    def test_superseded(self) -> None:
        """After a strict refresh the old token is inactive, and the new one is active."""
        old = self.log_in(wants_refresh_token=True).tokens
        assert old.refresh_token is not None
        refreshing = self.rig.service.refresh(old.refresh_token, None, True, HOME)
        new = self.successResultOf(Deferred.fromCoroutine(refreshing))
        self.assert_inactive(self.introspect(old.access_token))
        self.assertIs(self.introspect(new.access_token).json["active"], True)

    def test_confirms(self) -> None:
        """The first use of a token of a lenient refresh makes the old token inactive."""
        old = self.log_in(wants_refresh_token=True).tokens
        assert old.refresh_token is not None
        refreshing = self.rig.service.refresh(old.refresh_token, None, False, HOME)
        new = self.successResultOf(Deferred.fromCoroutine(refreshing))
        self.assertIs(self.introspect(old.access_token).json["active"], True)
        self.assertIs(self.introspect(new.access_token).json["active"], True)
        self.assert_inactive(self.introspect(old.access_token))

    def test_gone(self) -> None:
        """The tokens of an account that is gone are inactive once its look is due."""
        self.use(lifetime=None)
        token = self.log_in().tokens.access_token
        del self.rig.accounts.passwords[ALICE]
        self.assertIs(self.introspect(token).json["active"], True)
        self.wait(901)
        self.assert_inactive(self.introspect(token))
        self.assertEqual(self.successResultOf(self.rig.memory.sessions(ALICE)), [])

    def test_locked(self) -> None:
        """The token of a locked account is to be asked for again, or inactive, as configured."""
        for locked_accounts in ("keep", "end"):
            self.use(HomeserverPolicy(locked_accounts=locked_accounts), lifetime=None)
            token = self.log_in().tokens.access_token
            self.rig.accounts.statuses[ALICE] = AccountStatus.LOCKED
            self.wait(901)
            reply = self.introspect(token)
            if locked_accounts == "keep":
                self.assert_unavailable(reply)
            else:
                self.assert_inactive(reply)
            del self.rig.accounts.statuses[ALICE]
            self.assertIs(self.introspect(token).json["active"], True)

    def test_unusable(self) -> None:
        """A session whose user or device Synapse would take for another's, or not at all, is
        inactive.
        """
        for user_id, device_id in (
            (f"@al:ice:{SERVER_NAME}", "D"),
            (ALICE, "D" * 256),
        ):
            service = StubService(SessionInfo(1, user_id, device_id))
            self.serve(self.handlers(service))
            self.assert_inactive(self.introspect("any"))
        service = StubService(SessionInfo(1, ALICE, "D" * 255))
        self.serve(self.handlers(service))
        self.assertIs(self.introspect("any").json["active"], True)

    def test_other_server_name(self) -> None:
        """A session of another server name is 503, and one line says why: an inactive token would
        log the client out.
        """
        service = StubService(SessionInfo(1, "@alice:elsewhere.example", "D"))
        self.serve(self.handlers(service))
        with capturedLogs() as events:
            for seconds in (0, 1, 58, 1.5):
                self.wait(seconds)
                self.assert_unavailable(self.introspect("any"))
        said = [formatEvent(each) or "" for each in events]
        self.assertEqual(len(said), 3)
        for line in said[1:]:
            self.assertIn("@alice:elsewhere.example", line)
            self.assertIn(f"server_name is {SERVER_NAME}", line)

    def test_keeps_alive(self) -> None:
        """A connection serves one request after the other."""
        token = self.log_in().tokens.access_token
        for _ in range(3):
            self.assertIs(self.introspect(token).json["active"], True)
        self.assertFalse(self.wire.settle())


class StubService:
    """A login service with one session."""

    def __init__(self, session: SessionInfo) -> None:
        self._session = session

    async def whoami(self, access_token: str) -> SessionInfo:
        """Return the session."""
        return self._session


class ExpiresInTests(InternalCase):
    """``expires_in``, for any times."""

    @given(st.integers(0, 2**42), st.integers(-5_000, 2**42))
    def test_any_time(self, now: int, left: int) -> None:
        """It is the largest number of whole seconds that does not outlast the token."""
        clock = Clock()
        handlers = InternalHandlers(
            StubService(SessionInfo(1, ALICE, "D", access_expires_at=now + left)),  # type: ignore[arg-type]
            HomeserverPolicy(),
            SERVER_NAME,
            partial(hmac.compare_digest, SECRET),
            BASE,
            ACCOUNT_PAGE,
            lambda: now / 1000,
            clock,
        )
        wire = MemoryWire(self.site(handlers))
        wire.send(introspection("any"))
        [reply] = responses(wire.received())
        told = reply.json
        # The clock is in floating-point seconds, so it may be a millisecond behind.
        now_there = int(now / 1000 * 1000)
        if now + left <= now_there:
            self.assertEqual(told, {"active": False})
            return
        remaining = now + left - now_there
        self.assertIs(type(told["expires_in"]), int)
        self.assertLessEqual(told["expires_in"] * 1000, remaining)
        self.assertLess(remaining, (told["expires_in"] + 1) * 1000)


class OutageTests(InternalCase):
    """What is told while the service cannot tell: that, and never that a token is inactive."""

    def test_store(self) -> None:
        """While the store or a key is unavailable, the response is 503."""
        token = self.log_in().tokens.access_token
        for failure in (StoreUnavailable("gone"), KeyUnavailable("lacking")):
            self.rig.store.failure = failure
            self.assert_unavailable(self.introspect(token))
        self.rig.store.failure = None
        self.assertIs(self.introspect(token).json["active"], True)

    def test_deadline(self) -> None:
        """A store that does not answer is given up at the deadline, and not before."""
        token = self.log_in().tokens.access_token
        self.rig.store.stalled = []
        self.assertIsNone(self.send(introspection(token)))
        self.rig.clock.advance(DEADLINE - 0.01)
        self.assertEqual(self.wire.received(), b"")
        self.rig.clock.advance(0.01)
        [reply] = responses(self.wire.received())
        self.assert_unavailable(reply)
        self.assertEqual(self.rig.store.cancelled, ["session_for_access_token"])
        self.rig.store.stalled = None
        self.assertIs(self.introspect(token).json["active"], True)

    def test_slow_provider(self) -> None:
        """A provider that does not answer delays the response no longer than its own timeout."""
        self.use(lifetime=None)
        token = self.log_in().tokens.access_token
        self.wait(901)
        self.rig.provider.stalled = []
        self.assertIsNone(self.send(introspection(token)))
        self.rig.clock.advance(3)
        [reply] = responses(self.wire.received())
        self.assertIs(reply.json["active"], True)
        self.assertIs(self.introspect(token).json["active"], True)

    def test_unexpected(self) -> None:
        """An unexpected error is 500, and its details are in the log alone."""
        token = self.log_in().tokens.access_token
        self.rig.store.failure = RuntimeError("surprise")
        reply = self.introspect(token)
        self.assertEqual(reply.status, 500)
        self.assertNotIn(b"surprise", reply.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_gone_client(self) -> None:
        """When the homeserver closes the connection, the question is dropped and not logged."""
        token = self.log_in().tokens.access_token
        self.rig.store.stalled = []
        with capturedLogs() as events:
            self.assertIsNone(self.send(introspection(token)))
            self.wire.vanish()
            self.rig.clock.advance(DEADLINE)
        self.assertEqual(self.rig.store.cancelled, ["session_for_access_token"])
        self.assertEqual([formatEvent(each) for each in events], [ASKS])


class RequestTests(InternalCase):
    """Requests that are not as they have to be."""

    def test_secret(self) -> None:
        """Without the secret, nothing is told of a token, and the challenge is as in RFC 6750."""
        body = urlencode({"token": self.log_in().tokens.access_token}).encode("ascii")
        for headers, challenge in (
            ([], "Bearer"),
            ([b"Authorization: Basic YTpi"], "Bearer"),
            ([b"Authorization: Bearer"], 'Bearer error="invalid_token"'),
            ([b"Authorization: Bearer wrong"], 'Bearer error="invalid_token"'),
            ([BEARER + b"x"], 'Bearer error="invalid_token"'),
            ([BEARER[:-1]], 'Bearer error="invalid_token"'),
            ([b"Authorization: Bearer \xff\xfe"], 'Bearer error="invalid_token"'),
            ([BEARER, BEARER], "Bearer"),
        ):
            reply = self.ask(post(INTROSPECT, body, [FORM, *headers]))
            self.assertEqual(reply.status, 401, headers)
            self.assertEqual(reply.header("WWW-Authenticate"), challenge)
            self.assertNotIn("active", reply.json)
        reply = self.ask(post(INTROSPECT, body, [FORM, BEARER.replace(b"Bearer", b"bearer")]))
        self.assertEqual(reply.status, 200)

    def test_wrong_secret_is_logged(self) -> None:
        """A wrong secret is a line in the log once a minute, with the setting, and no secret in
        it.
        """
        wrong = post(INTROSPECT, b"token=a", [FORM, b"Authorization: Bearer another-secret"])
        with capturedLogs() as events:
            for seconds in (0, 1, 58, 1.5, 1):
                self.wait(seconds)
                self.assertEqual(self.ask(wrong).status, 401)
            self.ask(post(INTROSPECT, b"token=a", [FORM]))
        lines = [formatEvent(each) or "" for each in events]
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertIn("with a wrong secret", line)
            self.assertIn("secret_file and matrix_authentication_service", line)
            self.assertNotIn("another-secret", line)

    def test_first_question_is_logged(self) -> None:
        """The first question with the secret is one line in the log."""
        with capturedLogs() as events:
            self.ask(post(INTROSPECT, b"token=a", [FORM, b"Authorization: Bearer another-secret"]))
            for _ in range(3):
                self.introspect("any")
        lines = [formatEvent(each) or "" for each in events]
        self.assertEqual((len(lines), lines[1:]), (2, [ASKS]))

    def test_secret_first(self) -> None:
        """A request without the secret does not reach the parsing of the body."""
        self.assertEqual(self.ask(post(INTROSPECT, b"{", [])).status, 401)

    def test_bad_form(self) -> None:
        """A body that is no form with one token is 400 ``invalid_request``."""
        for body, kind in (
            (b"", FORM),
            (b"token", FORM),
            (b"token=", FORM),
            (b"tokens=a", FORM),
            (b"token=a&token=b", FORM),
            (b"token=a&token=a", FORM),
            (b"token=a&token_type_hint=b&token_type_hint=b", FORM),
            (b"token=a&&b=c", FORM),
            (b"token=\xff", FORM),
            (b"token=%FF", FORM),
            (b'{"token": "a"}', FORM),
            (b'{"token": "a"}', b"Content-Type: application/json"),
            (b"token=a", b"Content-Type: multipart/form-data"),
            (b"token=a", b"X-Other: none"),
            (b"token=a", FORM + b"\r\n" + FORM),
        ):
            reply = self.ask(post(INTROSPECT, body, [kind, BEARER]))
            self.assertEqual((reply.status, reply.json["error"]), (400, "invalid_request"), body)
            self.assertIsInstance(reply.json["error_description"], str)

    def test_good_form(self) -> None:
        """Parameters of the content type, and unknown ones of the form, change nothing."""
        body = urlencode({"other": "", "token": self.log_in().tokens.access_token}).encode("ascii")
        kind = b"Content-Type: Application/X-WWW-Form-URLencoded; charset=utf-8"
        reply = self.ask(post(INTROSPECT, body, [kind, BEARER]))
        self.assertIs(reply.json["active"], True)

    def test_too_large(self) -> None:
        """A body of more than 64 KiB is not read."""
        reply = self.ask(post(INTROSPECT, b"token=" + b"a" * 65_536, [FORM, BEARER]))
        self.assertEqual(reply.status, 413)

    def test_nothing_logged(self) -> None:
        """No log line holds a token or the secret, whatever the outcome."""
        token = self.log_in().tokens.access_token
        with capturedLogs() as events:
            self.introspect(token)
            self.ask(post(INTROSPECT, b"token=" + token.encode("ascii"), [FORM]))
            self.ask(post(INTROSPECT, b"token=" + token.encode("ascii"), [BEARER]))
            for failure in (StoreUnavailable("gone"), RuntimeError("surprise")):
                self.rig.store.failure = failure
                self.introspect(token)
        self.flushLoggedErrors(RuntimeError)
        told = json.dumps([str(each) for each in events]) + str(
            [formatEvent(each) for each in events]
        )
        self.assertIn("gone", told)
        self.assertNotIn(token, told)
        self.assertNotIn(SECRET.decode("ascii"), told)


class TreeTests(InternalCase):
    """The paths of the internal listener."""

    def test_configuration(self) -> None:
        """The configuration is the two strings that Synapse needs, and needs no secret."""
        reply = self.ask(get(CONFIGURATION))
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.json, {"issuer": BASE, "account_management_uri": ACCOUNT_PAGE})

    def test_health(self) -> None:
        """The health is that of the store."""
        self.assertEqual(self.ask(get("/health")).body, b"OK")
        self.rig.store.failure = StoreUnavailable("gone")
        self.assertEqual(self.ask(get("/health")).status, 503)

    def test_methods(self) -> None:
        """OPTIONS is empty, and a method that a path does not have is 405."""
        for path, allowed in ((CONFIGURATION, b"GET"), (INTROSPECT, b"POST"), ("/health", b"GET")):
            options = self.ask(get(path).replace(b"GET", b"OPTIONS", 1))
            self.assertEqual((options.status, options.body), (204, b""))
            for method in (b"GET", b"POST", b"PUT", b"DELETE"):
                if method != allowed:
                    reply = self.ask(get(path).replace(b"GET", method, 1))
                    self.assertEqual((reply.status, reply.errcode), (405, "M_UNRECOGNIZED"))

    def test_head(self) -> None:
        """HEAD has the headers of GET, and no body."""
        self.wire.send(get(CONFIGURATION).replace(b"GET", b"HEAD", 1))
        head, _, body = self.wire.received().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK"))
        self.assertEqual(body, b"")

    def test_unknown_paths(self) -> None:
        """Nothing of the public tree is there."""
        for path in ("/", "/oauth2", "/_matrix/client/v3/login", "/_matrix/client/versions"):
            reply = self.ask(get(path))
            self.assertEqual((reply.status, reply.errcode), (404, "M_UNRECOGNIZED"), path)

    def test_no_cors(self) -> None:
        """No response invites a web page to read it, and no cache stores one."""
        token = self.log_in().tokens.access_token
        for request in (
            introspection(token),
            introspection("x"),
            post(INTROSPECT, b"", []),
            get(CONFIGURATION),
            get(CONFIGURATION).replace(b"GET", b"OPTIONS", 1),
            get("/nowhere"),
        ):
            reply = self.ask(request)
            self.assertIsNone(reply.header("Access-Control-Allow-Origin"))
            self.assertEqual(reply.header("Cache-Control"), "no-store")

    def test_no_limit(self) -> None:
        """Requests that wait do not keep others from being answered."""
        token = self.log_in().tokens.access_token
        self.rig.store.stalled = []
        site = self.site(self.handlers(self.rig.service))
        wires = [MemoryWire(site) for _ in range(1000)]
        for wire in wires:
            wire.send(introspection(token))
        self.rig.store.stalled = None
        last = MemoryWire(site)
        last.send(introspection(token))
        self.rig.clock.advance(0.01)
        [reply] = responses(last.received())
        self.assertIs(reply.json["active"], True)
