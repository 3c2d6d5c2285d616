"""Tests for the account page's own requests, through the resource tree."""

from __future__ import annotations

from typing import Any

from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.model import AccountStatus, Link, Rate
from synapse_login_module.tokens.page_token import LIFETIME
from tests.support.account_rig import AccountRig
from tests.support.accounts import (
    ALICE,
    ALICE_PASSWORD,
    DEACTIVATED_PASSWORD,
    LOCKED,
    LOCKED_PASSWORD,
)
from tests.support.rig import Rig
from tests.support.web import Reply, WebCase

ACCOUNT = "/_matrix/login/account"
WHOAMI = "/_matrix/client/v3/account/whoami"
REQUESTS = {
    "sign_in": "POST",
    "sessions": "GET",
    "sign_out": "POST",
    "sign_out_all": "POST",
    "reset_cross_signing": "POST",
}


class AccountCase(WebCase):
    """A test case with the account page."""

    rig: AccountRig

    def setUp(self) -> None:
        self.use(AccountRig())

    def assert_common_headers(self, reply: Reply) -> None:
        """Assert that no other site may read a response of the account page."""
        if reply.header("Access-Control-Allow-Origin") is not None:
            super().assert_common_headers(reply)
            return
        for name in ("Methods", "Headers"):
            self.assertIsNone(reply.header(f"Access-Control-Allow-{name}"))
        self.assertEqual(reply.header("Cache-Control"), "no-store")
        self.assertEqual(reply.header("Cross-Origin-Resource-Policy"), "same-origin")
        self.assertEqual(reply.header("X-Content-Type-Options"), "nosniff")
        self.assertEqual(reply.header("Referrer-Policy"), "no-referrer")

    def page(self, name: str, payload: object = None, token: str | None = None) -> Reply:
        """Send a request of the account page."""
        return self.ask(REQUESTS[name], f"{ACCOUNT}/{name}", payload, token=token)

    def try_to_sign_in(self, user: str = "alice", password: str = ALICE_PASSWORD) -> Reply:
        """Sign in to the account page."""
        return self.page("sign_in", {"user": user, "password": password})

    def sign_in(self, user: str = "alice", password: str = ALICE_PASSWORD) -> str:
        """Sign in to the account page successfully; return the page token."""
        reply = self.try_to_sign_in(user, password)
        self.assertEqual(reply.status, 200, reply.body)
        token: str = reply.json["token"]
        return token

    def devices(self, token: str) -> list[str]:
        """Return the devices that the page lists."""
        reply = self.page("sessions", token=token)
        self.assertEqual(reply.status, 200, reply.body)
        return [each["device_id"] for each in reply.json["sessions"]]


class SignInTests(AccountCase):
    """Signing in to the account page."""

    def test_sign_in(self) -> None:
        """The right password gives a page token, and makes no session."""
        self.log_in()
        before = self.successResultOf(self.rig.store.sessions(None))
        reply = self.try_to_sign_in()
        self.assertEqual(reply.status, 200)
        self.assertEqual(set(reply.json), {"token", "user_id", "expires_in_ms"})
        self.assertEqual((reply.json["user_id"], reply.json["expires_in_ms"]), (ALICE, LIFETIME))
        self.assertEqual(self.successResultOf(self.rig.store.sessions(None)), before)
        self.assertEqual(self.rig.audit.counts["account_page", "ok", "password"], 1)

    def test_names(self) -> None:
        """A full user ID, and a name with blanks around it, sign in too."""
        self.log_in()
        for user in (ALICE, " alice ", f"{ALICE} "):
            self.assertEqual(self.try_to_sign_in(user).status, 200, user)

    def test_email(self) -> None:
        """A name with an "@" inside is an e-mail address."""
        self.log_in()
        self.rig.accounts.passwords["alice@example.org"] = ALICE_PASSWORD
        reply = self.try_to_sign_in("Alice@Example.ORG")
        self.assertNotEqual(reply.status, 200)  # the account of that address has no link
        self.assertEqual(reply.json["error"].partition(" ")[0], "Sign")

    def test_links_nothing(self) -> None:
        """An account that never logged in with an app is refused, and is not linked by this."""
        reply = self.try_to_sign_in()
        self.assert_error(reply, 403, "M_FORBIDDEN")
        self.assertIn("app first", reply.json["error"])
        self.assertIsNone(self.successResultOf(self.rig.store.link_of(ALICE)))
        self.assertEqual(self.rig.audit.counts["account_page", "refused", "not_linked"], 1)

    def test_wrong_password(self) -> None:
        """A wrong password and an unknown user get the response that a login gets."""
        self.log_in()
        body = {"type": "m.login.password", "user": "alice", "password": "wrong"}
        login = self.ask("POST", "/_matrix/client/v3/login", body)
        for user in ("alice", "nobody", "nobody@example.com", "@alice:elsewhere.example", "@", ""):
            reply = self.try_to_sign_in(user, "wrong")
            self.assertEqual((reply.status, reply.body), (403, login.body), user)

    def test_same_time(self) -> None:
        """An unknown user costs the decoy that it costs at a login."""
        self.try_to_sign_in("nobody")
        at_sign_in = len(self.rig.hashing.decoys)
        body = {"type": "m.login.password", "user": "nobody", "password": ALICE_PASSWORD}
        self.ask("POST", "/_matrix/client/v3/login", body)
        self.assertEqual(len(self.rig.hashing.decoys), 2 * at_sign_in)
        self.assertGreater(at_sign_in, 0)

    def test_status(self) -> None:
        """A locked and a deactivated account get the responses of a login."""
        self.assert_error(self.try_to_sign_in("larry", LOCKED_PASSWORD), 401, "M_USER_LOCKED")
        reply = self.try_to_sign_in("dora", DEACTIVATED_PASSWORD)
        self.assert_error(reply, 403, "M_USER_DEACTIVATED")

    def assert_error(self, reply: Reply, status: int, errcode: str) -> None:
        """Assert an error, whose response may have more keys."""
        self.assertEqual((reply.status, reply.errcode), (status, errcode), reply.body)

    def test_limits(self) -> None:
        """Sign-ins and logins share the rate limits."""
        rate = Rate(0.001, 3)
        self.use(AccountRig(rates=(None, None, rate)))
        self.log_in()
        for _ in range(2):
            self.assertEqual(self.try_to_sign_in(password="wrong").status, 403)
        body = {"type": "m.login.password", "user": "alice", "password": "wrong"}
        self.assertEqual(self.ask("POST", "/_matrix/client/v3/login", body).status, 403)
        reply = self.try_to_sign_in()
        self.assert_error(reply, 429, "M_LIMIT_EXCEEDED")
        self.assertEqual(reply.header("Retry-After"), "1000")

    def test_outage(self) -> None:
        """While passwords cannot be checked, the response says so."""
        self.rig.provider.failure = ProviderUnavailable("down")
        reply = self.try_to_sign_in()
        self.assertEqual((reply.status, reply.header("Retry-After")), (503, "5"))

    def test_malformed(self) -> None:
        """A body of another shape gets a 400 that names the field."""
        wrong: list[object] = [{}, {"user": "alice"}, {"user": 1, "password": "x"}, []]
        for payload in wrong:
            reply = self.page("sign_in", payload)
            self.assert_error(reply, 400, "M_BAD_JSON")


class PageTokenTests(AccountCase):
    """What a page token is good for."""

    def test_needed(self) -> None:
        """Every request but the sign-in needs one."""
        for name in set(REQUESTS) - {"sign_in"}:
            body = None if REQUESTS[name] == "GET" else {"device_id": "PHONE"}
            self.assert_error(self.page(name, body), 401, "M_MISSING_TOKEN")
            self.assert_error(self.page(name, body, "slmpt_x"), 401, "M_UNKNOWN_TOKEN")

    def test_header_only(self) -> None:
        """It is read from the header alone, and never from the URL."""
        self.log_in()
        token = self.sign_in()
        reply = self.ask("GET", f"{ACCOUNT}/sessions?access_token={token}")
        self.assert_error(reply, 401, "M_MISSING_TOKEN")

    def test_nowhere_else(self) -> None:
        """It is no access token, and an access token is no page token."""
        access_token = self.log_in()["access_token"]
        self.assert_error(self.page("sessions", token=access_token), 401, "M_UNKNOWN_TOKEN")
        self.assert_error(self.ask("GET", WHOAMI, token=self.sign_in()), 401, "M_UNKNOWN_TOKEN")

    def test_expiry(self) -> None:
        """It ends after a quarter of an hour."""
        self.log_in()
        token = self.sign_in()
        self.rig.clock.advance(LIFETIME / 1000)
        reply = self.page("sessions", token=token)
        self.assertEqual((reply.status, reply.errcode), (401, "M_UNKNOWN_TOKEN"))

    def test_retired_key(self) -> None:
        """It ends when its key is retired."""
        self.log_in()
        token = self.sign_in()
        self.assertTrue(self.successResultOf(self.rig.store.retire_token_key(1)))
        reply = self.page("sessions", token=token)
        self.assertEqual((reply.status, reply.errcode), (401, "M_UNKNOWN_TOKEN"))

    def test_another_link(self) -> None:
        """It ends when the user ID is linked to another account."""
        self.log_in()
        token = self.sign_in()
        for link in (Link(ALICE, "fake", "@other:example.com"), None):
            if link is None:
                self.successResultOf(self.rig.store.unlink(ALICE))
            else:
                self.successResultOf(self.rig.store.link(link, replace=True))
            self.assert_error(self.page("sessions", token=token), 401, "M_UNKNOWN_TOKEN")

    def test_locked_since(self) -> None:
        """It is refused while the account is locked, with sessions or without."""
        self.log_in()
        token = self.sign_in()
        self.rig.accounts.statuses[ALICE] = AccountStatus.LOCKED
        for _ in range(2):
            reply = self.page("reset_cross_signing", {}, token)
            self.assertEqual((reply.status, reply.errcode), (401, "M_USER_LOCKED"))
            for each in self.successResultOf(self.rig.store.sessions(ALICE)):
                self.successResultOf(self.rig.store.revoke(each))
        self.assertEqual(self.rig.homeserver.allowed, [])

    def test_gone_since(self) -> None:
        """An account that is gone loses its sessions by this look too, and the page is refused."""
        access_token = self.log_in()["access_token"]
        token = self.sign_in()
        del self.rig.accounts.passwords[ALICE]
        self.assert_error(self.page("sessions", token=token), 401, "M_UNKNOWN_TOKEN")
        self.assertEqual(self.successResultOf(self.rig.store.sessions(ALICE)), [])
        self.assert_error(self.ask("GET", WHOAMI, token=access_token), 401, "M_UNKNOWN_TOKEN")
        self.assert_error(self.page("sessions", token=token), 403, "M_USER_DEACTIVATED")

    def test_store_outage(self) -> None:
        """While the store is down, the response is a 503 in JSON."""
        self.log_in()
        token = self.sign_in()
        self.rig.store.failure = StoreUnavailable("down")
        reply = self.page("sessions", token=token)
        self.assert_error(reply, 503, "M_UNKNOWN")
        self.assertEqual(reply.header("Retry-After"), "5")
        self.flushLoggedErrors()


class SessionsTests(AccountCase):
    """Listing and ending sessions."""

    def three_sessions(self) -> dict[str, dict[str, Any]]:
        """Begin three sessions, a minute apart; return the responses by device."""
        begun = {}
        for device, name in (("PHONE", "Phone"), ("TABLET", None), ("DESK", "Désk")):
            self.rig.clock.advance(60)
            begun[device] = self.log_in(
                device_id=device, initial_device_display_name=name, refresh_token=True
            )
        return begun

    def test_list(self) -> None:
        """Sessions are listed with names and times, the one that was refreshed last first."""
        begun = self.three_sessions()
        self.rig.clock.advance(60)
        token = begun["PHONE"]["refresh_token"]
        self.ask("POST", "/_matrix/client/v3/refresh", {"refresh_token": token})
        reply = self.page("sessions", token=self.sign_in())
        self.assertEqual(reply.json["user_id"], ALICE)
        start = int(self.rig.clock.seconds() * 1000)
        expected = [
            ("PHONE", "Phone", start - 180_000, start),
            ("DESK", "Désk", start - 60_000, start - 60_000),
            ("TABLET", None, start - 120_000, start - 120_000),
        ]
        keys = "device_id", "display_name", "signed_in_ts", "refreshed_ts"
        self.assertEqual(
            reply.json["sessions"], [dict(zip(keys, row, strict=True)) for row in expected]
        )

    def test_only_ones_own(self) -> None:
        """No session of another user is listed or ended."""
        self.rig.accounts.passwords["@bob:example.com"] = "bobs-own-password"
        bobs = self.log_in("bob", "bobs-own-password", device_id="BOB")["access_token"]
        self.log_in(device_id="PHONE")
        token = self.sign_in()
        self.assertEqual(self.devices(token), ["PHONE"])
        reply = self.page("sign_out", {"device_id": "BOB"}, token)
        self.assert_error(reply, 404, "M_NOT_FOUND")
        self.assertEqual(self.page("sign_out_all", {}, token).status, 200)
        self.assertEqual(self.ask("GET", WHOAMI, token=bobs).status, 200)
        self.assertEqual(self.rig.devices.deleted, [])

    def test_sign_out(self) -> None:
        """The session of one device ends at once, and its device is deleted."""
        begun = self.three_sessions()
        token = self.sign_in()
        reply = self.page("sign_out", {"device_id": "TABLET"}, token)
        self.assertEqual((reply.status, reply.json), (200, {}))
        self.assertEqual(self.devices(token), ["DESK", "PHONE"])
        self.assertEqual(self.rig.devices.deleted, [(ALICE, "TABLET")])
        ended = self.ask("GET", WHOAMI, token=begun["TABLET"]["access_token"])
        self.assert_error(ended, 401, "M_UNKNOWN_TOKEN")
        self.assertEqual(self.rig.audit.counts["logout", "ok", "session"], 1)

    def test_device_without_a_session(self) -> None:
        """Nothing is noted of a device without a session, since a page token has no rate limit."""
        self.three_sessions()
        token = self.sign_in()
        self.assert_error(self.page("sign_out", {"device_id": "OLD"}, token), 404, "M_NOT_FOUND")
        self.assertEqual(self.rig.devices.deleted, [])
        self.assertEqual(len(self.devices(token)), 3)

    def test_sign_out_others(self) -> None:
        """All sessions end but the one to be kept."""
        begun = self.three_sessions()
        token = self.sign_in()
        reply = self.page("sign_out_all", {"keep": "PHONE"}, token)
        self.assertEqual((reply.status, reply.json), (200, {"ended": 2}))
        self.assertEqual(self.devices(token), ["PHONE"])
        self.assertEqual({each for _, each in self.rig.devices.deleted}, {"TABLET", "DESK"})
        kept = self.ask("GET", WHOAMI, token=begun["PHONE"]["access_token"])
        self.assertEqual(kept.status, 200)
        self.assertEqual(self.rig.audit.counts["logout", "ok", "others"], 1)

    def test_keep_unknown(self) -> None:
        """Nothing ends when the session to be kept is not there."""
        self.three_sessions()
        token = self.sign_in()
        reply = self.page("sign_out_all", {"keep": "PHONY"}, token)
        self.assert_error(reply, 404, "M_NOT_FOUND")
        self.assertEqual(len(self.devices(token)), 3)

    def test_sign_out_everywhere(self) -> None:
        """All sessions end, with an empty body too, and so do login tokens."""
        bodies: tuple[object, ...] = ({}, None)
        for payload in bodies:
            begun = self.three_sessions()
            token = self.sign_in()
            made = self.successResultOf(self.rig.store.make_login_token(ALICE))
            reply = self.page("sign_out_all", payload, token)
            self.assertEqual((reply.status, reply.json), (200, {"ended": 3}))
            self.assertEqual(self.devices(token), [])
            for each in begun.values():
                ended = self.ask("GET", WHOAMI, token=each["access_token"])
                self.assert_error(ended, 401, "M_UNKNOWN_TOKEN")
            body = {"type": "m.login.token", "token": made.token}
            self.assertEqual(self.ask("POST", "/_matrix/client/v3/login", body).status, 403)
        self.assertEqual(self.rig.audit.counts["logout", "ok", "everywhere"], 2)

    def test_malformed(self) -> None:
        """A device of another type or length gets a 400, and nothing ends."""
        self.three_sessions()
        token = self.sign_in()
        for device in (None, 1, "", "x" * 513, "a\0b"):
            reply = self.page("sign_out", {"device_id": device}, token)
            self.assert_error(reply, 400, "M_BAD_JSON")
            if device is not None:
                reply = self.page("sign_out_all", {"keep": device}, token)
                self.assert_error(reply, 400, "M_BAD_JSON")
        self.assertEqual(len(self.devices(token)), 3)

    def test_without_a_homeserver(self) -> None:
        """Where no homeserver has the devices, the sessions end alone."""
        self.use(AccountRig(delegated=False))
        self.three_sessions()
        token = self.sign_in()
        self.assertEqual(self.page("sign_out", {"device_id": "TABLET"}, token).status, 200)
        self.assertEqual(self.devices(token), ["DESK", "PHONE"])
        self.assertEqual(self.page("sign_out_all", {"keep": "DESK"}, token).json, {"ended": 1})
        self.assertEqual(self.devices(token), ["DESK"])
        self.assertEqual(self.rig.devices.deleted, [])
        self.assertEqual(self.rig.audit.counts["logout", "ok", "session"], 1)


class ResetTests(AccountCase):
    """Allowing the reset of cross-signing."""

    def test_reset(self) -> None:
        """The homeserver is told whose keys may change, and it is in the audit log."""
        self.log_in()
        reply = self.page("reset_cross_signing", {}, self.sign_in())
        self.assertEqual((reply.status, reply.json), (200, {}))
        self.assertEqual(self.rig.homeserver.allowed, [ALICE])
        self.assertEqual(self.rig.audit.counts["cross_signing_reset", "ok", "allowed"], 1)

    def test_outage(self) -> None:
        """While the homeserver is down, the response is a 503."""
        self.log_in()
        self.rig.homeserver.is_down = True
        reply = self.page("reset_cross_signing", {}, self.sign_in())
        self.assert_error(reply, 503, "M_UNKNOWN")
        self.assertEqual(reply.header("Retry-After"), "5")


class PathTests(AccountCase):
    """The paths of the account page."""

    def test_methods(self) -> None:
        """Each has one method, and no response to any other lets another site in."""
        for name, method in REQUESTS.items():
            for other in {"GET", "POST", "PUT", "DELETE"} - {method}:
                reply = self.ask(other, f"{ACCOUNT}/{name}")
                self.assertEqual(reply.status, 405, f"{other} {name}")
                self.assertIsNone(reply.header("Access-Control-Allow-Origin"))
            preflight = self.ask("OPTIONS", f"{ACCOUNT}/{name}")
            self.assertEqual(preflight.status, 204)
            self.assertIsNone(preflight.header("Access-Control-Allow-Origin"))

    def test_not_without_it(self) -> None:
        """A server without the account page has none of its paths."""
        self.use(Rig())
        for path in ("", *(f"/{name}" for name in REQUESTS)):
            reply = self.ask("GET", f"{ACCOUNT}{path}")
            self.assert_error(reply, 404, "M_UNRECOGNIZED")


class LockedSignInTests(AccountCase):
    """An account that has been locked since its last login."""

    def test_locked(self) -> None:
        """It cannot sign in to the page, and keeps its sessions."""
        self.rig.accounts.statuses[LOCKED] = AccountStatus.ACTIVE
        self.log_in("larry", LOCKED_PASSWORD)
        self.rig.accounts.statuses[LOCKED] = AccountStatus.LOCKED
        reply = self.try_to_sign_in("larry", LOCKED_PASSWORD)
        self.assertEqual((reply.status, reply.errcode), (401, "M_USER_LOCKED"))
        self.assertEqual(len(self.successResultOf(self.rig.store.sessions(LOCKED))), 1)
