"""Tests for the calls to Synapse, against a service on a socket that misbehaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.web.http import Request
from zope.interface.verify import verifyClass

from synapse_login_module.errors import HomeserverUnavailable
from synapse_login_module.homeservers.synapse import SynapseHomeserver
from synapse_login_module.interfaces import IHomeserver
from synapse_login_module.model import HomeserverPolicy, NameStatus
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.testing import SERVER_NAME
from synapse_login_module.tokens.format import KEY_SIZE, SALT_SIZE, KeyRing, TokenKind
from tests.homeservers.case import HomeserverCase
from tests.homeservers.fake_synapse import SECRET, FakeSynapse, Seen
from tests.providers.backends import WildServer
from tests.providers.case import lines, reactor
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.waiting import until

ALICE = f"@alice:{SERVER_NAME}"
AS_TOKEN = "as-token-of-the-tests"
BODY_SECRET = "text-of-the-homeserver"

Call = Callable[[SynapseHomeserver], Deferred[Any]]

CALLS: dict[str, Call] = {
    "query_user": lambda homeserver: homeserver.find_account(ALICE),
    "is_localpart_available": lambda homeserver: homeserver.name_status(ALICE),
    "provision_user": lambda homeserver: homeserver.make_account(ALICE, None),
    "set_displayname": lambda homeserver: homeserver.set_display_name(ALICE, "Alice"),
    "upsert_device": lambda homeserver: homeserver.make_device(ALICE, "PHONE", "Phone"),
    "delete_device": lambda homeserver: homeserver.delete_device(ALICE, "PHONE"),
    "allow_cross_signing_reset": lambda homeserver: homeserver.allow_cross_signing_reset(ALICE),
    "whoami": lambda homeserver: homeserver.owns_user(AS_TOKEN, ALICE),
    "forget_tokens": lambda homeserver: homeserver.forget_tokens(ALICE, "PHONE"),
}
"""Every call to Synapse, by the name that its errors have."""

WRONG_ANSWERS: tuple[tuple[int, bytes], ...] = (
    (500, b'{"errcode": "M_UNKNOWN"}'),
    (502, b"<html>"),
    (503, b""),
    (429, b'{"errcode": "M_LIMIT_EXCEEDED"}'),
    (400, b'{"errcode": "M_BAD_JSON"}'),
    (400, b'{"errcode": ["M_USER_IN_USE"]}'),
    (400, b'{"errcode": "text-of-the-homeserver"}'),
    (404, b"<html>"),
    (404, b'{"errcode": "M_UNRECOGNIZED"}'),
    (401, b"<html>"),
    (403, b"text-of-the-homeserver"),
    (302, b""),
    (206, b"{}"),
    (200, b""),
    (200, b"<html>text-of-the-homeserver"),
    (200, b"\xff\xfe"),
    (200, b"null"),
    (200, b"[]"),
    (200, b"true"),
    (200, b"[" * 60_000),
    (200, b"9" * 60_000),
)
"""Answers that no call has."""

RIGHT_USER: dict[str, Any] = {"user_id": ALICE, "display_name": "Alice", "is_deactivated": False}


class SynapseTests(HomeserverCase):
    """The calls."""

    def setUp(self) -> None:
        super().setUp()
        self.synapse.homeserver.application_services[AS_TOKEN] = {ALICE}

    def test_interfaces(self) -> None:
        """The class is a plugin and implements a homeserver."""
        self.assertTrue(IPluginClass.providedBy(SynapseHomeserver))
        self.assertTrue(verifyClass(IHomeserver, SynapseHomeserver))

    def test_policy(self) -> None:
        """The policy is that of the configuration."""
        homeserver = self.homeserver(
            register_users=False,
            sync_profile=True,
            admins=[ALICE],
            locked_accounts="end",
            device_grace="1h",
        )
        self.assertEqual(
            homeserver.policy,
            HomeserverPolicy(False, True, frozenset({ALICE}), "end", 60 * 60_000),
        )

    async def test_requests(self) -> None:
        """Each call has the method, path and body that Synapse takes, and the secret."""
        homeserver = self.homeserver(forget_tokens=True)
        await homeserver.make_account(ALICE, None)
        for call in CALLS.values():
            await call(homeserver)
        await homeserver.make_device(ALICE, "PHONE", None)
        await homeserver.forget_tokens(ALICE, None)
        mas, localpart = "/_synapse/mas/", {"localpart": "alice"}
        named = {"device_id": "PHONE", "display_name": "Phone"}
        forget = "/_synapse/client/synapse_login/forget_tokens"
        self.assertEqual(
            [(seen.method, seen.path, seen.query, seen.token, seen.body) for seen in self._seen()],
            [
                ("POST", f"{mas}provision_user", {}, SECRET, localpart),
                ("GET", f"{mas}query_user", localpart, SECRET, None),
                ("GET", f"{mas}is_localpart_available", localpart, SECRET, None),
                ("POST", f"{mas}provision_user", {}, SECRET, localpart),
                (
                    "POST",
                    f"{mas}set_displayname",
                    {},
                    SECRET,
                    {**localpart, "displayname": "Alice"},
                ),
                ("POST", f"{mas}upsert_device", {}, SECRET, {**localpart, **named}),
                ("POST", f"{mas}delete_device", {}, SECRET, {**localpart, "device_id": "PHONE"}),
                ("POST", f"{mas}allow_cross_signing_reset", {}, SECRET, localpart),
                ("GET", "/_matrix/client/v3/account/whoami", {"user_id": ALICE}, AS_TOKEN, None),
                ("POST", forget, {}, SECRET, {**localpart, "device_id": "PHONE"}),
                ("POST", f"{mas}upsert_device", {}, SECRET, {**localpart, "device_id": "PHONE"}),
                ("POST", forget, {}, SECRET, {**localpart, "device_id": None}),
            ],
        )

    async def test_account_with_a_name(self) -> None:
        """A display name is sent with a new account, and an account that exists is not renamed."""
        homeserver = self.homeserver()
        self.assertIs(await homeserver.make_account(ALICE, "Alice"), True)
        sent = [seen.body for seen in self._seen()]
        self.assertEqual(sent, [None, {"localpart": "alice", "set_displayname": "Alice"}])
        self.assertIs(await homeserver.make_account(ALICE, "Mallory"), False)
        self.assertEqual([seen.method for seen in self._seen()[2:]], ["GET"])

    async def test_path(self) -> None:
        """The URL may have a path, and a slash at its end."""
        for url in (f"{self.site.url}/hs", f"{self.site.url}/hs/"):
            await self.fails(self.homeserver(url=url).find_account(ALICE), HomeserverUnavailable)
        paths = [seen.path for seen in self._seen()]
        self.assertEqual(paths, ["/hs/_synapse/mas/query_user"] * 2)

    async def test_cost(self) -> None:
        """The two calls of a login are two requests on one connection."""
        homeserver = self.homeserver()
        self.synapse.homeserver.make_account(ALICE, None)
        for device_id in ("A", "B", "C"):
            await homeserver.find_account(ALICE)
            await homeserver.make_device(ALICE, device_id, None)
        self.assertEqual(len(self._seen()), 6)
        self.assertEqual(len({seen.connection for seen in self._seen()}), 1)

    async def test_other_users(self) -> None:
        """For a user of another server it is unavailable, and nothing is sent: one of the two has
        a wrong name.
        """
        homeserver = self.homeserver(forget_tokens=True)
        for call in (
            homeserver.find_account("@alice:elsewhere.example"),
            homeserver.make_device("@alice:elsewhere.example", "PHONE", None),
            homeserver.make_account(f"@alice:{SERVER_NAME}:8448", None),
            homeserver.forget_tokens("@alice:elsewhere.example", None),
            homeserver.forget_tokens("alice", None),
        ):
            error = await self.fails(call, HomeserverUnavailable)
            self.assertIn(f"is no user of {SERVER_NAME}: is server_name right", str(error))
        # A session may be older than the name of the server. Its device is not there.
        await homeserver.delete_device("@alice:elsewhere.example", "PHONE")
        self.assertEqual(self._seen(), [])

    async def test_wrong_answers(self) -> None:
        """Any other answer is an outage, whose error is one line with the call and no secret."""
        events = self.catch_log()
        for name, call in CALLS.items():
            for status, body in WRONG_ANSWERS:
                homeserver = self.homeserver(forget_tokens=True)
                self.synapse.answer = (status, body)
                error = await self.fails(call(homeserver), HomeserverUnavailable)
                self.assertTrue(str(error).startswith(f"{name} at {self.site.url}: "), error)
                if status != 200:
                    self.assertIn(f"it answered {status}", str(error))
                self._assert_discreet(str(error))
        self._assert_discreet(*map(_everything_in, events))

    async def test_created(self) -> None:
        """A status of success that the call does not have is an outage."""
        unused = {
            "query_user": (201, 204),
            "is_localpart_available": (201, 204),
            "provision_user": (202, 204),
            "set_displayname": (201, 204),
            "upsert_device": (202, 204),
            "delete_device": (200, 201, 202),
            "allow_cross_signing_reset": (201, 204),
            "whoami": (201, 204),
            "forget_tokens": (201, 204),
        }
        homeserver = self.homeserver(forget_tokens=True)
        for name, statuses in unused.items():
            for status in statuses:
                self.synapse.answer = (status, b"" if status == 204 else b"{}")
                await self.fails(CALLS[name](homeserver), HomeserverUnavailable)

    async def test_wrong_types(self) -> None:
        """A value of another type is an outage, and never an account or an owner."""
        homeserver = self.homeserver()
        for wrong in (
            {},
            {**RIGHT_USER, "user_id": None},
            {**RIGHT_USER, "user_id": [ALICE]},
            {**RIGHT_USER, "user_id": "alice"},
            {**RIGHT_USER, "user_id": "@alice:elsewhere.example"},
            {**RIGHT_USER, "display_name": 7},
            {**RIGHT_USER, "is_deactivated": None},
            {**RIGHT_USER, "is_deactivated": 0},
            {**RIGHT_USER, "is_deactivated": "false"},
            {key: RIGHT_USER[key] for key in ("user_id", "display_name")},
        ):
            self.synapse.answer = (200, json.dumps(wrong).encode())
            error = await self.fails(homeserver.find_account(ALICE), HomeserverUnavailable)
            self.assertNotIn("elsewhere", str(error))
        for who in ({}, {"user_id": None}, {"user_id": 7}):
            self.synapse.answer = (200, json.dumps(who).encode())
            await self.fails(homeserver.owns_user(AS_TOKEN, ALICE), HomeserverUnavailable)

    async def test_odd_success(self) -> None:
        """Keys that are not known are ignored, and a name that is empty is none."""
        homeserver = self.homeserver()
        for name in ("", None):
            odd = {**RIGHT_USER, "display_name": name, "is_locked": 7}
            self.synapse.answer = (200, json.dumps(odd).encode())
            account = await homeserver.find_account(ALICE)
            assert account is not None
            self.assertIsNone(account.display_name)

    async def test_unknown_users(self) -> None:
        """Only Synapse's own 404 says that there is no account; a proxy's does not."""
        homeserver = self.homeserver()
        self.assertIsNone(await homeserver.find_account(ALICE))
        await homeserver.delete_device(ALICE, "PHONE")
        self.synapse.answer = (404, b"no such page")
        await self.fails(homeserver.find_account(ALICE), HomeserverUnavailable)
        await self.fails(homeserver.delete_device(ALICE, "PHONE"), HomeserverUnavailable)

    async def test_device_of_an_unknown_user(self) -> None:
        """A device of an account that does not exist is an outage, for which nothing is blamed."""
        error = await self.fails(CALLS["upsert_device"](self.homeserver()), HomeserverUnavailable)
        expected = f"upsert_device at {self.site.url}: it answered 404 M_NOT_FOUND"
        self.assertEqual(str(error), expected)

    async def test_acting_as_another_user(self) -> None:
        """A token that acts as another user than the one asked for does not own it."""
        self.synapse.answer = (200, json.dumps({"user_id": f"@bot:{SERVER_NAME}"}).encode())
        self.assertIs(await self.homeserver().owns_user(AS_TOKEN, ALICE), False)

    async def test_odd_user_ids(self) -> None:
        """Names are sent as they are, whatever they have in them."""
        homeserver = self.homeserver()
        for localpart in ("a+b", "a&localpart=b", "a#b", "a b", "a%2fb", "../b", "a\n"):
            user_id = f"@{localpart}:{SERVER_NAME}"
            await homeserver.owns_user(AS_TOKEN, user_id)
            await homeserver.find_account(user_id)
            asked = [seen.query for seen in self._seen()[-2:]]
            self.assertEqual(asked, [{"user_id": user_id}, {"localpart": localpart}])

    async def test_token_of_a_user(self) -> None:
        """The access token of a user is not that of an application service."""
        self.synapse.user_tokens["token-of-alice"] = ALICE
        homeserver = self.homeserver()
        self.assertIs(await homeserver.owns_user("token-of-alice", ALICE), False)

    async def test_odd_application_service_tokens(self) -> None:
        """A token that cannot stand in a header is refused without a call."""
        homeserver = self.homeserver()
        for token in ("", "a\r\nX: y", "a\0", "\u212a", "\udc00"):
            self.assertIs(await homeserver.owns_user(token, ALICE), False)
        self.assertEqual(self._seen(), [])

    async def test_not_ascii(self) -> None:
        """A name that is not ASCII has no account, and nothing is asked."""
        homeserver = self.homeserver()
        self.assertIsNone(await homeserver.find_account(f"@aliçe:{SERVER_NAME}"))
        status = await homeserver.name_status(f"@aliçe:{SERVER_NAME}")
        self.assertIs(status, NameStatus.INVALID)
        self.assertEqual(self._seen(), [])

    async def test_redirect(self) -> None:
        """A redirect is not followed: no other server gets the secret."""
        other = self.serve(FakeSynapse())
        self.synapse.headers = {"Location": f"{other.url}/_synapse/mas/query_user"}
        for status in (301, 302, 303, 307, 308):
            self.synapse.answer = (status, b"")
            homeserver = self.homeserver()
            for call in CALLS.values():
                if call is not CALLS["forget_tokens"]:
                    await self.fails(call(homeserver), HomeserverUnavailable)
        self.assertEqual(other.synapse.seen, [])

    async def test_misbehaviour(self) -> None:
        """What is not an answer at all is an outage too."""
        self.reactor = reactor
        for mode in ("zipped", "die", "die_early", "garbage", "line", "big", "big_unsaid", "heads"):
            wild = WildServer(mode, self.folder())
            self.addCleanup(wild.kill)
            homeserver = self.homeserver(url=wild.url)
            error = await self.fails(homeserver.find_account(ALICE), HomeserverUnavailable)
            self._assert_discreet(str(error))

    async def test_refused_connection(self) -> None:
        """A port where nothing listens is an outage."""
        self.reactor = reactor
        url = f"http://127.0.0.1:{free_port()}"
        error = await self.fails(
            self.homeserver(url=url).find_account(ALICE), HomeserverUnavailable
        )
        self.assertEqual(str(error), f"query_user at {url}: ConnectionRefusedError")

    async def test_slow(self) -> None:
        """Every call ends when the timeout is over, and not before."""
        for name, call in CALLS.items():
            homeserver = self.homeserver(timeout="4s", forget_tokens=True)
            held = self._hold()
            asked = call(homeserver)
            await until(partial(bool, held))
            self.reactor.clock.advance(3.9)
            self.assertNoResult(asked)
            self.reactor.clock.advance(0.2)
            error = self.failureResultOf(asked, HomeserverUnavailable).value
            self.assertEqual(
                str(error), f"{name} at {self.site.url}: no whole answer in 4.0 seconds"
            )
            self.site.cut()

    async def test_half_an_answer(self) -> None:
        """An answer that begins and never ends is over at the timeout too."""
        wild = WildServer("half", self.folder())
        self.addCleanup(wild.kill)
        asked = self.homeserver(url=wild.url).find_account(ALICE)
        await until(lambda: self.reactor.clock.getDelayedCalls())
        self.reactor.clock.advance(5.1)
        await self.fails(asked, HomeserverUnavailable)

    async def test_cancelled(self) -> None:
        """A cancelled call is cancelled, and is no outage."""
        homeserver = self.homeserver()
        for _ in range(6):
            held = self._hold()
            asked = homeserver.make_device(ALICE, "PHONE", None)
            await until(partial(bool, held))
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        self.synapse.held = None
        self.assertIsNone(await homeserver.find_account(ALICE))

    async def test_too_many(self) -> None:
        """A call beyond the connections is an outage at once, and the others go on."""
        homeserver = self.homeserver(connections=2)
        held = self._hold()
        waiting = [homeserver.find_account(ALICE) for _ in range(2)]
        for _ in range(6):
            await self.fails(homeserver.find_account(ALICE), HomeserverUnavailable)
        await until(lambda: len(held) == 2)
        self.synapse.held = None
        for request in held:
            request.setResponseCode(404)
            request.write(b'{"errcode": "M_NOT_FOUND"}')
            request.finish()
        for each in waiting:
            self.assertIsNone(await each)
        self.assertIsNone(await homeserver.find_account(ALICE))

    async def test_circuit(self) -> None:
        """After five outages in a row it is left alone for ten seconds; the log says so once."""
        events = self.catch_log()
        homeserver = self.homeserver()
        self.synapse.answer = (503, b"")
        for _ in range(5):
            await self.fails(homeserver.find_account(ALICE), HomeserverUnavailable)
        self.assertEqual(len(self._seen()), 5)
        error = await self.fails(homeserver.make_device(ALICE, "A", None), HomeserverUnavailable)
        self.assertIn("upsert_device", str(error))
        self.assertIn("left alone", str(error))
        self.assertEqual(len(self._seen()), 5)
        for tried in (6, 7):
            self.reactor.clock.advance(10)
            for _ in range(2):
                await self.fails(homeserver.find_account(ALICE), HomeserverUnavailable)
            self.assertEqual(len(self._seen()), tried)
        self.synapse.answer = None
        self.reactor.clock.advance(10)
        for _ in range(2):
            self.assertIsNone(await homeserver.find_account(ALICE))
        self.assertEqual(
            lines(_of_this_room(events), LogLevel.info),
            [
                f"the homeserver at {self.site.url} is down: one call in 10 seconds is tried",
                f"the homeserver at {self.site.url} is there again",
            ],
        )

    async def test_refusals_are_no_outage(self) -> None:
        """An answer below 500 does not open the circuit, whatever it is."""
        homeserver = self.homeserver()
        for status, body in WRONG_ANSWERS:
            if status < 500:
                self.synapse.answer = (status, body)
                await self.fails(homeserver.make_device(ALICE, "A", None), HomeserverUnavailable)
        self.synapse.answer = None
        self.assertIsNone(await homeserver.find_account(ALICE))

    async def test_circuits_of_purposes(self) -> None:
        """Outages of ``whoami``, of forgetting tokens and of deletions do not keep logins out."""
        homeserver = self.homeserver(forget_tokens=True)
        self.synapse.answer = (503, b"")
        for _ in range(6):
            await self.fails(homeserver.delete_device(ALICE, "PHONE"), HomeserverUnavailable)
            await self.fails(homeserver.owns_user(AS_TOKEN, ALICE), HomeserverUnavailable)
            await self.fails(homeserver.forget_tokens(ALICE, None), HomeserverUnavailable)
        # Any client can make Synapse fail in its whoami, so that opens no circuit.
        self.assertEqual(len(self._seen()), 5 + 6 + 5)
        self.synapse.answer = None
        self.assertIsNone(await homeserver.find_account(ALICE))

    async def test_own_token(self) -> None:
        """An access token of this server is no token of an application service; nothing is sent."""
        token = KeyRing({1: bytes(KEY_SIZE)}).derive(TokenKind.ACCESS, 1, 1, 0, bytes(SALT_SIZE))
        self.assertFalse(await self.homeserver().owns_user(token, ALICE))
        self.assertEqual(self._seen(), [])

    async def test_stopped(self) -> None:
        """After the stop no connection is kept."""
        homeserver = self.homeserver(forget_tokens=True)
        await homeserver.find_account(ALICE)
        await homeserver.forget_tokens(ALICE, None)
        await homeserver.owns_user(AS_TOKEN, ALICE)
        self.assertEqual(self.site.connections, 3)
        await homeserver.stopService()
        await until(lambda: not self.site.connections)

    def test_secret(self) -> None:
        """It knows the secret that Synapse calls with, and no other."""
        homeserver = self.homeserver()
        self.assertIs(homeserver.has_secret(SECRET.encode()), True)
        for wrong in (b"", SECRET[:-1].encode(), SECRET.encode() + b"x", b"\xff"):
            self.assertIs(homeserver.has_secret(wrong), False)
        self.assertNotIn(SECRET, repr(homeserver))

    async def test_tls(self) -> None:
        """Over TLS the certificate has to be signed by an authority of ``ca_file``."""
        authority = Authority()
        self.write("ca.pem", authority.certificate)
        site = self.serve(self.synapse, authority.sign("127.0.0.1").server())
        good = self.homeserver(url=site.url, ca_file="ca.pem")
        self.assertIsNone(await good.find_account(ALICE))
        asked = len(self._seen())
        error = await self.fails(
            self.homeserver(url=site.url).find_account(ALICE), HomeserverUnavailable
        )
        self.assertIn("TLS: its certificate", str(error))
        self.assertEqual(len(self._seen()), asked)

    def test_in_the_clear(self) -> None:
        """A secret that would leave the machine unencrypted is a warning."""
        events = self.catch_log()
        self.homeserver()
        self.homeserver(url="https://matrix.example.com")
        self.assertEqual(lines(events), [])
        self.homeserver(url="http://matrix.example.com", forget_tokens=["http://10.0.0.1:8083"])
        self.assertEqual(
            lines(events),
            [
                "the homeserver's secret goes unencrypted to matrix.example.com",
                "the homeserver's secret goes unencrypted to 10.0.0.1",
            ],
        )

    def _hold(self) -> list[Request]:
        """Leave requests unanswered from now on; return the list that they go to."""
        held: list[Request] = []
        self.synapse.held = held
        return held

    def _seen(self) -> list[Seen]:
        return self.synapse.seen

    def _assert_discreet(self, *texts: str) -> None:
        for text in texts:
            self.assertNotIn("\n", text)
            for secret in (SECRET, AS_TOKEN, BODY_SECRET):
                self.assertNotIn(secret, text)


class ForgettingTests(HomeserverCase):
    """Making Synapse forget tokens."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = self.serve(FakeSynapse())
        self.synapses = [self.synapse, self.worker.synapse]
        self.urls = [self.site.url, self.worker.url]

    async def test_off(self) -> None:
        """By default nothing is called, and the call fires at once."""
        self.assertIsNone(self.successResultOf(self.homeserver().forget_tokens(ALICE, None)))
        self.assertEqual(self.synapse.seen, [])

    async def test_one(self) -> None:
        """With ``true`` the process that all calls go to forgets them."""
        await self.homeserver(forget_tokens=True).forget_tokens(ALICE, "PHONE")
        self.assertEqual(self.synapse.homeserver.forgotten, [(ALICE, "PHONE")])

    async def test_all(self) -> None:
        """Every process of the list is called, all at once."""
        for synapse in self.synapses:
            synapse.held = []
        asked = self.homeserver(forget_tokens=self.urls).forget_tokens(ALICE, "PHONE")
        await until(lambda: all(synapse.held for synapse in self.synapses))
        for synapse in self.synapses:
            assert synapse.held is not None
            self.assertNoResult(asked)
            for request in synapse.held:
                request.write(b"{}")
                request.finish()
        await asked

    async def test_one_of_them_down(self) -> None:
        """One process that does not answer fails the call, and the others have forgotten."""
        for index in range(2):
            self.synapses[index].answer = (500, b"")
            homeserver = self.homeserver(forget_tokens=self.urls)
            asked = homeserver.forget_tokens(ALICE, None)
            error = await self.fails(asked, HomeserverUnavailable)
            expected = f"forget_tokens at {self.urls[index]}: it answered 500"
            self.assertEqual(str(error), expected)
            self.assertEqual(self.synapses[1 - index].homeserver.forgotten, [(ALICE, None)])
            self.synapses[index].answer = None
            self.synapses[1 - index].homeserver.forgotten.clear()

    async def test_without_the_module(self) -> None:
        """Where the module is not loaded, the error says so."""
        self.synapse.forgets = False
        asked = self.homeserver(forget_tokens=True).forget_tokens(ALICE, None)
        error = await self.fails(asked, HomeserverUnavailable)
        self.assertIn("SynapseLoginModule is not loaded there with delegated: true", str(error))


class CheckTests(HomeserverCase):
    """Checking Synapse."""

    async def test_good(self) -> None:
        """Nothing is wrong, and nothing was changed."""
        for config in ({}, {"admins": [ALICE]}, {"forget_tokens": True}):
            self.assertIsNone(await self.homeserver(**config).check())
        self.assertEqual(self.synapse.homeserver.accounts, {})
        self.assertEqual({seen.method for seen in self.synapse.seen[:-1]}, {"GET"})

    async def test_no_keys(self) -> None:
        """A listener without the signing keys is good, and it never gets the secret for them."""
        self.synapse.server_name = None
        self.assertIsNone(await self.homeserver().check())
        (keys,) = (seen for seen in self.synapse.seen if seen.path == "/_matrix/key/v2/server")
        self.assertIsNone(keys.token)

    async def test_keys_in_an_error(self) -> None:
        """Only an answer of success says the server name."""
        answers = [(200, json.dumps(RIGHT_USER).encode()), (404, b'{"server_name": "x.example"}')]
        seen = self.synapse.seen

        async def respond(_: Seen) -> tuple[int, object]:
            status, body = answers[len(seen) - 1]
            return status, json.loads(body)

        self.patch(self.synapse, "respond", respond)
        self.assertIsNone(await self.homeserver(admins=[ALICE]).check())
        self.assertEqual(len(seen), 2)

    async def test_problems(self) -> None:
        """What is wrong is one line, which tells the causes apart."""
        alice = self.synapse.homeserver.make_account(ALICE, None)
        self.assertIs(await alice, True)
        url = self.site.url
        for change, config, problem in (
            (
                {"secret": "another"},
                {},
                f"query_user at {url}: it answered 403 M_UNKNOWN: secret_file and the secret of"
                " matrix_authentication_service in homeserver.yaml differ",
            ),
            (
                {"delegates": False},
                {},
                f"query_user at {url}: it answered 404 M_UNRECOGNIZED:"
                " matrix_authentication_service is not enabled in homeserver.yaml",
            ),
            (
                {"server_name": "elsewhere.example"},
                {},
                f"the server_name of {url} is not example.com",
            ),
            (
                {"users_of": "elsewhere.example"},
                {"admins": [ALICE]},
                f"query_user at {url}: its users are not of example.com",
            ),
            (
                {"forgets": False},
                {"forget_tokens": True},
                f"forget_tokens at {url}: it answered 404: SynapseLoginModule is not loaded there"
                " with delegated: true",
            ),
            ({"answer": (502, b"<html>")}, {}, f"query_user at {url}: it answered 502"),
            (
                {"answer": (500, b"")},
                {},
                f"query_user at {url}: it answered 500: see Synapse's log: can it read"
                " secret_path?",
            ),
        ):
            for key, value in change.items():
                self.addCleanup(setattr, self.synapse, key, getattr(self.synapse, key))
                setattr(self.synapse, key, value)
            self.assertEqual(await self.homeserver(**config).check(), problem)
            for key in change:
                setattr(self.synapse, key, getattr(FakeSynapse(), key))

    async def test_unreachable(self) -> None:
        """A homeserver that cannot be reached is named with the cause."""
        self.reactor = reactor
        url = f"http://127.0.0.1:{free_port()}"
        problem = await self.homeserver(url=url).check()
        reason = f"at {url}: ConnectionRefusedError: does Synapse run there?"
        self.assertEqual(problem, f"query_user {reason} (homeserver.config.url)")
        problem = await self.homeserver(forget_tokens=[url]).check()
        self.assertEqual(problem, f"forget_tokens {reason} (homeserver.config.forget_tokens)")

    async def test_no_answer(self) -> None:
        """A port that does not answer, as one of HTTP does not when it is asked over TLS, is named
        with that cause.
        """
        url = self.site.url.replace("http:", "https:")
        checked = self.homeserver(url=url).check()
        await until(lambda: self.site.connections)
        self.reactor.clock.advance(5.1)
        self.assertEqual(
            await checked,
            f"query_user at {url}: no whole answer in 5.0 seconds: is it http or https?"
            " (homeserver.config.url)",
        )


def _of_this_room(events: list[LogEvent]) -> list[LogEvent]:
    room = "synapse_login_module.homeservers"
    return [event for event in events if str(event.get("log_namespace")).startswith(room)]


def _everything_in(event: Any) -> str:
    """Return all that an event can show, on one line."""

    def texts() -> Iterator[str]:
        yield formatEvent(event)
        for value in event.values():
            yield value.getTraceback() if isinstance(value, Failure) else repr(value)

    return " ".join(" ".join(texts()).split())
