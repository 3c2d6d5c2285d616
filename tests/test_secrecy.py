"""Tests that no password and no token is ever logged, at any level, in any part of an event."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import (
    LogEvent,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from synapse_login_module import testing
from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import (
    Login,
    LoginRequest,
    LoginToken,
    PasswordLogin,
    Rate,
    TokenLogin,
    TokenPair,
    UserId,
    UserIdentifier,
)
from synapse_login_module.providers import BcryptProvider
from synapse_login_module.standalone.plan import load_config
from synapse_login_module.standalone.server import build_backends, build_server
from synapse_login_module.web.requests import MAX_BODY
from synapse_login_module.web.site import IDLE_TIMEOUT, LoginSite
from tests.support.accounts import ALICE_PASSWORD
from tests.support.configuration import CHEAP_HASH, good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.rig import Rig
from tests.support.site import MemoryWire, get, post, responses
from tests.support.web import Reply

V3 = "/_matrix/client/v3"
WRONG = "a-wrong-guess-of-hers"
TYPED = "typed-into-the-wrong-field"
SECRETS = (ALICE_PASSWORD, WRONG, TYPED)
TOKENS = ("access_token", "refresh_token", "login_token")


def everything(event: LogEvent) -> Iterable[str]:
    """Whatever a log observer may make of an event: all texts and all values in all depth."""
    yield formatEvent(event)
    yield formatEventAsClassicLogText(event) or ""
    yield eventAsText(event, includeTraceback=True)
    seen: set[int] = set()
    waiting: list[Any] = list(event.items())
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield repr(value)
        yield str(value)
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        elif isinstance(value, Failure):
            yield value.getTraceback(elideFrameworkCode=False, detail="default")
            yield value.getErrorMessage()
            waiting.append(value.value)
        elif isinstance(value, BaseException):
            waiting += [value.args, value.__cause__, value.__context__]
            yield repr(getattr(value, "__notes__", None))


class Ears:
    """Listens to the log, and remembers what nobody may hear."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self._case = case
        self.events: list[LogEvent] = []
        self.secrets: set[str] = set(SECRETS)
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        case.addCleanup(globalLogPublisher.removeObserver, observer)

    def learn(self, answer: object) -> None:
        """Remember the tokens of an answer."""
        if isinstance(answer, dict):
            self.secrets.update(str(answer[name]) for name in TOKENS if name in answer)

    def assert_silence(self) -> None:
        """Nothing secret was heard, nor the half of a token that proves it."""
        secrets = {*self.secrets, *(secret[-24:] for secret in self.secrets if len(secret) > 60)}
        for event in self.events:
            for text in everything(event):
                for secret in secrets:
                    self._case.assertNotIn(secret, text)


class EarsTests(SynchronousTestCase):
    """That these tests would hear."""

    def test_heard(self) -> None:
        """A secret is heard in a text, a value, a failure and what is behind it."""
        from twisted.logger import Logger

        log = Logger()
        for number in range(5):
            ears = Ears(self)
            if number == 0:
                log.debug(f"it is {WRONG}")
            elif number == 1:
                log.debug("it is a secret", kept={"deep": [(WRONG,)]})
            elif number == 2:
                log.failure("broken", Failure(ValueError("x", [WRONG])))
            elif number == 3:
                try:
                    try:
                        raise KeyError(WRONG)
                    except KeyError as error:
                        raise ValueError("x") from error
                except ValueError:
                    log.failure("broken")
            else:
                ears.learn({"access_token": "slmat_" + "x" * 40 + "the-half-that-proves-it"})
                log.warn("{x}", x="the-half-that-proves-it"[-24:].rjust(24, "x"))
            self.assertRaises(self.failureException, ears.assert_silence)
        self.flushLoggedErrors()


class PrintedTests(SynchronousTestCase):
    """What values say when they are printed."""

    def test_no_secrets(self) -> None:
        """Whoever prints a request or what a login ended in prints no password and no token."""
        alice = UserIdentifier(UserId("alice", "example.com"))
        pair = TokenPair(TYPED, TYPED, None)
        for value in (
            LoginRequest(PasswordLogin(alice, TYPED)),
            LoginRequest(TokenLogin(TYPED)),
            Login("@alice:example.com", "PHONE", pair),
            LoginToken(TYPED, 1),
        ):
            self.assertNotIn(TYPED, repr(value))


class TreeTests(SynchronousTestCase):
    """Through the tree and the site."""

    def setUp(self) -> None:
        self.ears = Ears(self)
        self.clock = Clock()
        self.use(Rig())

    def use(self, rig: Rig) -> None:
        """Ask this one from now on."""
        self.rig = rig
        self.wire = MemoryWire(LoginSite(rig.root, self.clock))

    def ask(self, data: bytes) -> Reply:
        """Send a request; the answer, whose tokens are remembered."""
        self.wire.send(data)
        (reply,) = responses(self.wire.received())
        try:
            self.ears.learn(reply.json)
        except ValueError:
            self.assertEqual(reply.header("Content-Type"), "text/plain; charset=utf-8")
        return reply

    def post(self, path: str, payload: object, *headers: bytes) -> Reply:
        """Post JSON."""
        return self.ask(post(f"{V3}/{path}", json.dumps(payload).encode("ascii"), headers))

    def log_in(self, password: str = ALICE_PASSWORD, **more: object) -> Reply:
        """Try to log in."""
        payload = {"type": "m.login.password", "user": "alice", "password": password, **more}
        return self.post("login", payload)

    def tearDown(self) -> None:
        self.clock.advance(IDLE_TIMEOUT)
        self.wire.vanish()
        self.ears.assert_silence()
        self.assertGreater(len(self.ears.events), 0)

    def test_logins(self) -> None:
        """Logins, right and wrong, limited and refused."""
        self.use(Rig(rates=(None, None, Rate(0.001, 2))))
        statuses = [self.log_in().status]
        statuses += [self.log_in(WRONG).status for _ in range(3)]
        statuses += [self.log_in(user="nobody").status, self.log_in(user="dora").status]
        self.assertEqual(statuses, [200, 403, 403, 429, 403, 403])

    def test_passwords_in_wrong_places(self) -> None:
        """A password typed into a field that is not for it is refused quietly."""
        for changes in (
            {"type": TYPED},
            {"password": [TYPED]},
            {"device_id": [TYPED]},
            {"refresh_token": TYPED},
            {"identifier": {"type": TYPED}},
            {"identifier": {"type": "m.id.phone", "country": "GB", "phone": TYPED}},
            {"identifier": {"type": "m.id.thirdparty", "medium": TYPED, "address": TYPED}},
            {TYPED: TYPED, "password": None},
        ):
            reply = self.log_in(**changes)
            self.assertEqual(reply.status, 400, reply.body)
        self.log_in(WRONG)

    def test_malformed(self) -> None:
        """Bodies that are no JSON, with the password in them."""
        secret = ALICE_PASSWORD.encode("ascii")
        for body in (
            b'{"password": "' + secret,
            b'{"password": "' + secret + b'\xff"}',
            b'{"password": "' + secret + b'", "x": NaN}',
            b"user=alice&password=" + secret,
            b"[" * 30_000 + secret,
            b'["' + secret + b'"]',
            b'"' + secret + b'"',
        ):
            self.assertEqual(self.ask(post(f"{V3}/login", body)).status, 400)
        self.wire.send(post(f"{V3}/login", secret * (MAX_BODY // len(secret) + 1)))
        self.assertEqual(responses(self.wire.received())[0].status, 413)
        self.wire.vanish()
        self.use(self.rig)
        self.log_in(WRONG)

    def test_no_http(self) -> None:
        """What is no HTTP, with the password in it."""
        secret = ALICE_PASSWORD.encode("ascii")
        for data in (
            secret + b"\r\n\r\n",
            b"POST /" + secret + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + secret + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + secret * 2000 + b"\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + secret + b"\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: " + secret + b"\r\n\r\n",
        ):
            wire = MemoryWire(LoginSite(self.rig.root, self.clock))
            wire.send(data)
            wire.vanish()
        self.log_in(WRONG)

    def test_sessions(self) -> None:
        """Refreshes, replays, token lookups and logouts, with tokens in headers and in queries."""
        login = self.log_in().json
        access, refresh = login["access_token"], login["refresh_token"]
        bearer = f"Authorization: Bearer {access}".encode("ascii")
        self.assertEqual(self.ask(get(f"{V3}/account/whoami?access_token={access}")).status, 200)
        self.assertEqual(self.ask(get(f"{V3}/account/whoami", [bearer])).status, 200)
        self.assertEqual(self.ask(get(f"{V3}/nowhere?access_token={access}")).status, 404)
        self.assertEqual(self.ask(get(f"{V3}/account/whoami?access_token={access}x")).status, 401)
        pair = self.post("tokenrefresh", {"refresh_token": refresh}, bearer).json
        self.assertEqual(self.post("refresh", {"refresh_token": refresh + "x"}).status, 401)
        self.assertEqual(self.post("refresh", {"refresh_token": [refresh]}).status, 400)
        other = self.log_in().json
        strange = f"Authorization: Bearer {other['access_token']}".encode("ascii")
        payload = {"refresh_token": pair["refresh_token"]}
        self.assertEqual(self.post("tokenrefresh", payload, strange).status, 403)
        self.rig.clock.advance(60)
        self.assertEqual(self.post("refresh", {"refresh_token": refresh}).status, 401)
        path = f"logout?access_token={other['access_token']}"
        self.assertEqual(self.post(path, {}).status, 200)

    def test_login_tokens(self) -> None:
        """Login tokens, made, used and used again."""
        bearer = f"Authorization: Bearer {self.log_in().json['access_token']}".encode("ascii")
        auth = {"type": "m.login.password", "user": "alice", "password": WRONG}
        self.assertEqual(self.post("login/get_token", {"auth": auth}, bearer).status, 401)
        auth["password"] = ALICE_PASSWORD
        reply = self.post("login/get_token", {"auth": auth}, bearer)
        payload = {"type": "m.login.token", "token": reply.json["login_token"]}
        statuses = [self.post("login", payload).status for _ in range(2)]
        self.assertEqual(statuses, [200, 403])

    def test_outages(self) -> None:
        """Outages of the provider and of the store."""
        login = self.log_in().json
        bearer = f"Authorization: Bearer {login['access_token']}".encode("ascii")
        self.rig.provider.failure = ProviderUnavailable("gone")
        self.assertEqual(self.log_in().status, 503)
        self.rig.store.failure = StoreUnavailable("gone")
        payload = {"refresh_token": login["refresh_token"]}
        self.assertEqual(self.post("tokenrefresh", payload, bearer).status, 503)
        self.assertEqual(self.post("logout", {}, bearer).status, 503)

    def test_unexpected(self) -> None:
        """A 500 at every endpoint: the traceback is logged, and no argument of any call."""
        login = self.log_in().json
        access = login["access_token"]
        bearer = f"Authorization: Bearer {access}".encode("ascii")
        payload = {"refresh_token": login["refresh_token"]}
        self.rig.store.failure = ZeroDivisionError("not so fast")
        statuses = [
            self.log_in().status,
            self.post("tokenrefresh", payload, bearer).status,
            self.post("refresh", payload).status,
            self.post(f"logout?access_token={access}", {}).status,
            self.post("logout/all", {}, bearer).status,
            self.post("login/get_token", {"auth": {"password": ALICE_PASSWORD}}, bearer).status,
            self.ask(get(f"{V3}/account/whoami?access_token={access}")).status,
        ]
        self.assertEqual(statuses, [500] * 7)
        self.rig.provider.failure = ZeroDivisionError("not so fast")
        self.assertEqual(self.log_in().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 8)

    def test_password_that_breaks_the_hash(self) -> None:
        """A password that cannot even be hashed."""
        config = BcryptProvider.parse_config(
            {"users": {"alice": {"password_hash": CHEAP_HASH}}}, Path()
        )
        provider: IPasswordProvider = BcryptProvider(config, testing.environment())
        self.use(Rig(provider=provider))
        for password in (f"{WRONG}\ud800", f"{WRONG}\0", WRONG * 100):
            self.assertNotEqual(self.log_in(password).status, 200)
        self.flushLoggedErrors()
        self.log_in(WRONG)

    def test_disconnect(self) -> None:
        """A client that goes away in the middle of its login."""
        self.rig.provider.stalled = []
        self.wire.send(
            post(
                f"{V3}/login",
                json.dumps(
                    {"type": "m.login.password", "user": "alice", "password": ALICE_PASSWORD}
                ).encode("ascii"),
            )
        )
        self.wire.vanish()
        self.assertEqual(self.rig.audit.counts["login", "failed", "disconnected"], 1)


class WholeServerTests(TestCase):
    """The whole server, with its real parts and threads."""

    def test_start_to_stop(self) -> Deferred[None]:
        """From start to stop, no secret, no key and no hash is logged."""
        return Deferred.fromCoroutine(self._start_to_stop())

    async def _start_to_stop(self) -> None:
        ears = Ears(self)
        folder = temporary_folder(self)
        config = {**good_config(), "listen": [f"unix:{folder / 'sock'}"]}
        plan = load_config(write_config(folder, config), reactor)
        server = build_server(plan, reactor)
        key = (folder / "token.key").read_text().split()[1]
        ears.secrets.update((key, CHEAP_HASH))
        server.privilegedStartService()
        server.startService()
        try:
            accounts, store, *_ = build_backends(plan, reactor)
            started: Any = store
            started.startService()
            made = await store.make_login_token("@alice:example.com")
            login = await store.issue("@alice:example.com", "PHONE", None, True, True)
            ears.learn({"login_token": made.token, "access_token": login.tokens.access_token})
            ears.learn({"refresh_token": login.tokens.refresh_token})
            self.assertIsNotNone(await accounts.account_status("@alice:example.com", None))
            await store.session_for_access_token(login.tokens.access_token, False)
            started.stopService()
        finally:
            await server.stopService()
        ears.assert_silence()
        self.assertGreater(len(ears.events), 0)
