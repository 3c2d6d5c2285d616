"""Tests for the public paths of a server that a homeserver delegates to, without sockets."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent

from synapse_login_module.common.repeats import OF_ONE
from synapse_login_module.errors import HomeserverUnavailable, StoreUnavailable
from synapse_login_module.model import APPLICATION_SERVICE, Link, Rate
from synapse_login_module.testing import SERVER_NAME
from tests.support.accounts import ALICE, ALICE_PASSWORD, DEACTIVATED
from tests.support.delegation import DelegatedStore, FakeHost
from tests.support.rig import Rig
from tests.support.web import Reply, WebCase

CLIENT = "/_matrix/client"
PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha")
LOGIN = f"{CLIENT}/v3/login"
DELETE_DEVICES = f"{CLIENT}/v3/delete_devices"
GET_TOKEN = f"{CLIENT}/v1/login/get_token"
BOB = f"@bob:{SERVER_NAME}"
PUPPET = f"@_irc_alice:{SERVER_NAME}"
AS_TOKEN = "as-token-of-the-bridge"
BASE_URL = "https://matrix.example.com"
RATE = Rate(0.001, 5)


def device(device_id: str, prefix: str = "v3") -> str:
    """Return the path of a device."""
    return f"{CLIENT}/{prefix}/devices/{device_id}"


def auth(**changes: object) -> dict[str, Any]:
    """Return a body with alice's password, but for the changes."""
    identifier = {"type": "m.id.user", "user": "alice"}
    right = {"type": "m.login.password", "identifier": identifier, "password": ALICE_PASSWORD}
    return {"auth": {**right, "session": "abc", **changes}}


class DelegatedCase(WebCase):
    """A test case with the public tree of a server that a homeserver delegates to."""

    def setUp(self) -> None:
        self.delegate()

    def delegate(self, **options: Any) -> None:
        """Build the service."""
        self.host = FakeHost()
        self.use(Rig(host=self.host, **options))
        self.rig.accounts.passwords[BOB] = "b"
        memory = self.rig.memory
        assert isinstance(memory, DelegatedStore)
        self.memory = memory

    def devices(self, user_id: str = ALICE) -> set[str]:
        """Return the devices of a user that have sessions."""
        return {each.device_id for each in self.successResultOf(self.memory.sessions(user_id))}


class DeviceTests(DelegatedCase):
    """DELETE /devices/{id} and POST /delete_devices."""

    def setUp(self) -> None:
        super().setUp()
        self.token = self.log_in(device_id="HERE")["access_token"]
        for device_id in ("PHONE", "LAPTOP"):
            self.log_in(device_id=device_id)
        self.log_in("bob", "b", device_id="PHONE")

    def delete(self, device_id: str, payload: object, **more: Any) -> Reply:
        """Ask for one device to be deleted."""
        return self.ask("DELETE", device(device_id), payload, token=self.token, **more)

    def test_one(self) -> None:
        """With the password it deletes this device of the user, and no other."""
        reply = self.delete("PHONE", auth())
        self.assertEqual((reply.status, reply.json), (200, {}))
        self.assertEqual(self.memory.deleted, [(ALICE, "PHONE")])
        self.assertEqual(self.devices(), {"HERE", "LAPTOP"})
        self.assertEqual(self.devices(BOB), {"PHONE"})
        self.assertEqual(self.host.endings, 1)

    def test_prefixes(self) -> None:
        """Both paths are there under every prefix."""
        for prefix in PREFIXES:
            reply = self.ask("DELETE", device("X", prefix), auth(), token=self.token)
            self.assertEqual(reply.status, 200, prefix)
            path = f"{CLIENT}/{prefix}/delete_devices"
            reply = self.ask("POST", path, {"devices": [], **auth()}, token=self.token)
            self.assertEqual((reply.status, reply.json), (200, {}), prefix)

    def test_several(self) -> None:
        """It deletes each named device once, and the client's own last."""
        body = {"devices": ["HERE", "PHONE", "LAPTOP", "PHONE"], **auth()}
        reply = self.ask("POST", DELETE_DEVICES, body, token=self.token)
        self.assertEqual((reply.status, reply.json), (200, {}))
        self.assertEqual(set(self.memory.deleted), {(ALICE, each) for each in body["devices"]})
        self.assertEqual(len(self.memory.deleted), 3)
        self.assertEqual(self.memory.deleted[-1], (ALICE, "HERE"))
        self.assertEqual(self.devices(), set())
        self.assert_error(self.delete("PHONE", auth()), 401, "M_UNKNOWN_TOKEN")

    def test_unknown_device(self) -> None:
        """A device that does not exist is as good as deleted."""
        reply = self.delete("NOWHERE", auth())
        self.assertEqual((reply.status, reply.json), (200, {}))
        self.assertEqual(self.memory.deleted, [(ALICE, "NOWHERE")])

    def test_impossible_device(self) -> None:
        """What no login accepts as a device ID is not written down, and as good as deleted."""
        self.assertEqual(self.delete("x" * 513, auth()).status, 200)
        body = {"devices": ["", "x" * 513, "y" * 512], **auth()}
        self.assertEqual(self.ask("POST", DELETE_DEVICES, body, token=self.token).status, 200)
        self.assertEqual(self.memory.deleted, [(ALICE, "y" * 512)])

    def test_percent_encoded(self) -> None:
        """The identifier of the device is decoded from the path, whatever its characters."""
        for encoded, decoded in (
            ("a%2Fb", "a/b"),
            ("%C3%A9%20x", "\xe9 x"),
            ("%7B%7D", "{}"),
            ("{}", "{}"),
            ("100%25", "100%"),
            ("PHON%45", "PHONE"),
        ):
            self.memory.deleted.clear()
            self.assertEqual(self.delete(encoded, auth()).status, 200, encoded)
            self.assertEqual(self.memory.deleted, [(ALICE, decoded)])

    def test_bad_path(self) -> None:
        """An identifier that is not text is 400; more segments, or none, are no such path."""
        for encoded in ("%FF", "%00"):
            self.assert_error(self.delete(encoded, auth()), 400, "M_INVALID_PARAM")
        for encoded in ("", "PHONE/", "PHONE/x"):
            self.assert_error(self.delete(encoded, auth()), 404, "M_UNRECOGNIZED")
        reply = self.ask("DELETE", f"{CLIENT}/v3/devices", auth(), token=self.token)
        self.assert_error(reply, 404, "M_UNRECOGNIZED")
        self.assertEqual(self.memory.deleted, [])

    def test_methods(self) -> None:
        """Other methods are 405, since the homeserver serves them."""
        for path, method, allowed in (
            (device("PHONE"), "GET", "DELETE"),
            (device("PHONE"), "PUT", "DELETE"),
            (DELETE_DEVICES, "GET", "POST"),
        ):
            reply = self.ask(method, path, token=self.token)
            self.assert_error(reply, 405, "M_UNRECOGNIZED")
            self.assertEqual(reply.header("Allow"), f"{allowed}, OPTIONS")

    def test_asks_for_password(self) -> None:
        """Without the password it says what it needs, and deletes nothing."""
        payloads: list[dict[str, Any]] = [
            {},
            {"auth": None},
            {"auth": {}},
            {"auth": {"session": "abc"}},
        ]
        for payload in payloads:
            replies = [
                self.delete("PHONE", payload),
                self.ask(
                    "POST", DELETE_DEVICES, {"devices": ["PHONE"], **payload}, token=self.token
                ),
            ]
            for reply in replies:
                self.assertEqual(reply.status, 401)
                self.assertEqual(reply.json["flows"], [{"stages": ["m.login.password"]}])
                self.assertIsInstance(reply.json["session"], str)
                self.assertNotIn("errcode", reply.json)
        self.assertEqual(self.ask("DELETE", device("PHONE"), token=self.token).status, 401)
        self.assertEqual(self.memory.deleted, [])

    def test_wrong_password(self) -> None:
        """With a wrong password, or another user's right one, it asks again in the same words."""
        bob = {"type": "m.id.user", "user": "bob"}
        wrong = (auth(password="wrong"), auth(identifier=bob, password="b"))
        for payload in wrong:
            replies = [
                self.delete("PHONE", payload),
                self.ask(
                    "POST", DELETE_DEVICES, {"devices": ["PHONE"], **payload}, token=self.token
                ),
                self.ask("POST", GET_TOKEN, payload, token=self.token),
            ]
            for reply in replies:
                self.assertEqual((reply.status, reply.errcode), (401, "M_FORBIDDEN"))
                self.assertEqual(reply.json["session"], "abc")
            self.assertEqual(len({reply.body for reply in replies}), 1)
        self.assertEqual(self.memory.deleted, [])
        self.assertEqual(self.host.endings, 0)

    def test_access_token(self) -> None:
        """Without a valid access token nothing is deleted, whatever the password."""
        reply = self.ask("DELETE", device("PHONE"), auth())
        self.assert_error(reply, 401, "M_MISSING_TOKEN")
        reply = self.ask("DELETE", device("PHONE"), auth(), token="x")
        self.assert_error(reply, 401, "M_UNKNOWN_TOKEN")
        self.assertEqual(self.memory.deleted, [])

    def test_bad_body(self) -> None:
        """A list of devices that is none is 400, and what is wrong in it is named."""
        for devices, field in (
            (None, "devices"),
            ("PHONE", "devices"),
            ([1], "devices.0"),
            (["a\0b"], "devices.0"),
            (["\ud800"], "devices.0"),
            (["a"] * 1001, "devices"),
        ):
            body = {"devices": devices, **auth()}
            reply = self.ask("POST", DELETE_DEVICES, body, token=self.token)
            self.assert_error(reply, 400, "M_BAD_JSON")
            self.assertIn(field, reply.json["error"])
        reply = self.ask("POST", DELETE_DEVICES, auth(), token=self.token)
        self.assert_error(reply, 400, "M_BAD_JSON")
        self.assertEqual(self.memory.deleted, [])

    def test_outage(self) -> None:
        """While the store is unavailable, the response is 503, and the attempt is not counted."""
        self.delegate(rates=(RATE, None, RATE))
        self.token = self.log_in(device_id="HERE")["access_token"]
        self.rig.store.only = {"delete_device"}
        self.rig.store.failure = StoreUnavailable("gone")
        for _ in range(10):
            self.assertEqual(self.delete("PHONE", auth()).status, 503)
        self.rig.store.failure = None
        self.assertEqual(self.delete("PHONE", auth()).status, 200)

    def test_limited(self) -> None:
        """Wrong passwords are limited as those of logins are."""
        self.delegate(rates=(None, None, RATE))
        self.token = self.log_in(device_id="HERE")["access_token"]
        for _ in range(RATE.burst_count):
            self.assertEqual(self.delete("PHONE", auth(password="wrong")).status, 401)
        reply = self.delete("PHONE", auth(password="wrong"))
        self.assert_limited(reply)
        self.assert_limited(self.ask("POST", GET_TOKEN, auth(password="x"), token=self.token))

    def assert_limited(self, reply: Reply) -> None:
        """Assert that a rate limit has rejected a request."""
        self.assertEqual((reply.status, reply.errcode), (429, "M_LIMIT_EXCEEDED"))

    def test_logged(self) -> None:
        """The audit log has one line for each attempt, without the password."""
        with capturedLogs() as events:
            self.delete("PHONE", auth(password="wrong"))
            self.delete("PHONE", auth())
        lines = [formatEvent(each) for each in events]
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[0], "^delete_devices outcome=refused reason=wrong_password ")
        self.assertRegex(lines[1], f'^delete_devices outcome=ok reason=password .*"{ALICE}"')
        self.assertIn('device="HERE"', lines[1])
        self.assertNotIn(ALICE_PASSWORD, str(events))


class AloneTests(WebCase):
    """A server that no homeserver delegates to."""

    def test_paths(self) -> None:
        """It has neither devices to delete nor logins of application services."""
        token = self.log_in()["access_token"]
        reply = self.ask("DELETE", device("PHONE"), auth(), token=token)
        self.assert_error(reply, 404, "M_UNRECOGNIZED")
        reply = self.ask("POST", DELETE_DEVICES, {"devices": [], **auth()}, token=token)
        self.assert_error(reply, 404, "M_UNRECOGNIZED")
        payload = {"type": "m.login.application_service", "user": "alice"}
        for given in (None, "anything"):
            self.assert_error(self.ask("POST", LOGIN, payload, token=given), 400, "M_UNKNOWN")
        flows = [each["type"] for each in self.ask("GET", LOGIN).json["flows"]]
        self.assertEqual(flows, ["m.login.password", "m.login.token"])
        self.assertNotIn("well_known", self.log_in())


class MetadataTests(DelegatedCase):
    """The paths by which clients find out how to log in."""

    def test_auth_metadata(self) -> None:
        """It is an unknown path, so that clients use passwords and say nothing of an error."""
        for path in (
            "v1/auth_metadata",
            "unstable/org.matrix.msc2965/auth_metadata",
            "unstable/org.matrix.msc2965/auth_issuer",
        ):
            self.assert_error(self.ask("GET", f"{CLIENT}/{path}"), 404, "M_UNRECOGNIZED")

    def test_flows(self) -> None:
        """The login types are those of the standalone server, and application services'."""
        flows = [each["type"] for each in self.ask("GET", LOGIN).json["flows"]]
        expected = ["m.login.password", "m.login.token", "m.login.application_service"]
        self.assertEqual(flows, expected)

    def test_well_known(self) -> None:
        """A login says where the homeserver is, if that is known."""
        self.assertNotIn("well_known", self.log_in())
        self.delegate(public_baseurl=BASE_URL)
        expected = {"m.homeserver": {"base_url": BASE_URL}}
        self.assertEqual(self.log_in()["well_known"], expected)

    def test_long_device_id(self) -> None:
        """A device whose identifier the homeserver would reject later is rejected at the login."""
        self.assertEqual(self.log_in(device_id="D" * 255)["device_id"], "D" * 255)
        payload = {"type": "m.login.password", "user": "alice", "password": ALICE_PASSWORD}
        reply = self.ask("POST", LOGIN, {**payload, "device_id": "D" * 256})
        self.assert_error(reply, 400, "M_BAD_JSON")
        self.assertIn("device_id", reply.json["error"])


class ServiceLoginTests(DelegatedCase):
    """POST /login of an application service."""

    def setUp(self) -> None:
        super().setUp()
        self.host.owned[AS_TOKEN] = {PUPPET, ALICE}

    def log_service_in(
        self, user: object = PUPPET, token: str | None = AS_TOKEN, **more: object
    ) -> Reply:
        """Log a user in as an application service does."""
        identifier = {"type": "m.id.user", "user": user}
        payload = {"type": "m.login.application_service", "identifier": identifier, **more}
        return self.ask("POST", LOGIN, payload, token=token)

    def test_session(self) -> None:
        """The application service gets a session of the user, on the device that it names."""
        reply = self.log_service_in(device_id="BRIDGE", inhibit_login=True)
        self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual(reply.json["user_id"], PUPPET)
        self.assertEqual(reply.json["device_id"], "BRIDGE")
        whoami = self.ask(
            "GET", f"{CLIENT}/v3/account/whoami", token=reply.json["access_token"]
        ).json
        self.assertEqual(whoami, {"user_id": PUPPET, "device_id": "BRIDGE"})

    def test_linked(self) -> None:
        """The user is linked to no provider, and the session is not looked at."""
        token = self.log_service_in().json["access_token"]
        link = self.successResultOf(self.memory.link_of(PUPPET))
        self.assertEqual(link, Link(PUPPET, APPLICATION_SERVICE, PUPPET))
        self.rig.clock.advance(100_000)
        self.rig.provider.failure = RuntimeError("a provider was asked")
        reply = self.ask("GET", f"{CLIENT}/v3/account/whoami", token=token)
        self.assertEqual(reply.status, 200)

    def test_legacy_user(self) -> None:
        """The user may be named by a local part, and by the deprecated key."""
        for named in (
            {"user": "_irc_alice"},
            {"user": PUPPET},
            {"identifier": {"type": "m.id.user", "user": "_irc_alice"}},
        ):
            payload = {"type": "m.login.application_service", **named}
            reply = self.ask("POST", LOGIN, payload, token=AS_TOKEN)
            self.assertEqual((reply.status, reply.json["user_id"]), (200, PUPPET))

    def test_not_owned(self) -> None:
        """A user that the application service may not act as, or a wrong token, is 403."""
        for user, token in ((BOB, AS_TOKEN), (PUPPET, "wrong")):
            self.assert_error(self.log_service_in(user, token), 403, "M_FORBIDDEN")
        self.assertEqual(self.host.begun, [])

    def test_elsewhere(self) -> None:
        """The homeserver is not asked about a user ID that is not its own."""
        for user in ("@alice:elsewhere.example", "@a:b", f"x:y:{SERVER_NAME}", "a:b", "@alice"):
            self.host.owned[AS_TOKEN].add(user)
            self.assert_error(self.log_service_in(user), 403, "M_FORBIDDEN")
        self.assertEqual(self.host.asked, [])

    def test_missing_token(self) -> None:
        """Without a token it is 401."""
        self.assert_error(self.log_service_in(token=None), 401, "M_MISSING_TOKEN")

    def test_bad_user(self) -> None:
        """A body that names no user is 400, and what is wrong in it is named."""
        for payload, errcode, field in (
            ({}, "M_BAD_JSON", "identifier"),
            ({"user": 1}, "M_BAD_JSON", "user"),
            ({"identifier": {"type": "m.id.user"}}, "M_BAD_JSON", "user"),
            (
                {"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "a@b"}},
                "M_INVALID_PARAM",
                "identifier.type",
            ),
        ):
            body = {"type": "m.login.application_service", **payload}
            reply = self.ask("POST", LOGIN, body, token=AS_TOKEN)
            self.assert_error(reply, 400, errcode)
            self.assertIn(field, reply.json["error"])

    def test_outage(self) -> None:
        """While the homeserver cannot be asked, the response is 503."""
        self.host.failure = HomeserverUnavailable("gone")
        reply = self.log_service_in()
        self.assert_error(reply, 503, "M_UNKNOWN")
        self.assertNotIn("gone", reply.json["error"])
        self.assertIsNotNone(reply.header("Retry-After"))

    def test_outage_is_logged(self) -> None:
        """The log says why the homeserver cannot be asked, in some lines however many requests."""
        self.host.failure = HomeserverUnavailable("the secrets differ")
        with capturedLogs() as events:
            for _ in range(2 * OF_ONE):
                self.log_service_in()
        lines = [str(formatEvent(event)) for event in events]
        outages = [line for line in lines if line.startswith("503 at ")]
        self.assertEqual(outages, [f"503 at {LOGIN}: the secrets differ"] * OF_ONE)

    def test_deactivated(self) -> None:
        """A user whose account at the provider is deactivated stays out."""
        self.host.owned[AS_TOKEN].add(DEACTIVATED)
        link = Link(DEACTIVATED, "fake", DEACTIVATED)
        self.successResultOf(self.memory.link(link, False))
        self.assert_error(self.log_service_in(DEACTIVATED), 403, "M_USER_DEACTIVATED")

    def test_token_not_logged(self) -> None:
        """The audit log names the outcome and the user, and not the token."""
        with capturedLogs() as events:
            self.log_service_in()
            self.log_service_in(BOB)
        lines = [formatEvent(each) for each in events]
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[0], f'^login outcome=ok reason=application_service .*"{PUPPET}"')
        self.assertRegex(lines[1], f'^login outcome=refused reason=application_service .*"{BOB}"')
        self.assertNotIn(AS_TOKEN, str(events))
