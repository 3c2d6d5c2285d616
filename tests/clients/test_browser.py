"""The pages in Chromium; ``npm install --prefix tests/clients/browser`` installs what drives it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import SkipTest
from twisted.web.http import Request
from twisted.web.resource import Resource

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.responses import FOR_ANY_ORIGIN, Response, json_response
from synapse_login_module.web.site import LoginSite
from tests.clients.case import ProgramCase
from tests.support.account_rig import AccountRig
from tests.support.accounts import ALICE, ALICE_PASSWORD

reactor = cast(Any, global_reactor)

FOLDER = Path(__file__).with_name("browser")
INSTALL = "npm install --prefix tests/clients/browser"
NOT_LOADED = "error: Failed to load resource: the server responded with a status of"
LONG_NAME = "A-phone-with-a-name-that-never-ends-" * 7


def chromium() -> str:
    """Return the path of Chromium; skip the test where something is missing that drives it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise SkipTest("Chromium is not installed")
    if shutil.which("node") is None:
        raise SkipTest("Node.js is not installed: there is no node")
    if not (FOLDER / "node_modules" / "playwright-core").is_dir():
        raise SkipTest(f"playwright-core is not installed: {INSTALL}")
    return found


class Controlled(Resource):
    """The resource tree, and two paths for the scenarios.

    ``/test/control`` takes orders and gives the state. ``/test/frame`` is a page with a frame.

    :param rig: what is controlled.
    """

    isLeaf = True

    def __init__(self, rig: AccountRig) -> None:
        super().__init__()
        self._rig = rig

    def render(self, request: Request) -> int | bytes:
        """Render the request."""
        if request.path == b"/test/control":
            assert isinstance(request, HTTPRequest)
            assert request.content is not None
            self._obey(**json.loads(request.content.read()))
            request.respond(json_response(200, self._state()))
        elif request.path == b"/test/frame":
            assert isinstance(request, HTTPRequest)
            url = unquote(request.uri.partition(b"?")[2].decode("ascii"))
            frame = f'<iframe src="{url}"></iframe>' if url else ""
            page = f"<!DOCTYPE html><link rel=icon href=data:,>{frame}".encode("ascii")
            request.respond(Response(200, page, b"text/html", {}, FOR_ANY_ORIGIN))
        else:
            rendered: int | bytes = self._rig.root.render(request)
            return rendered
        return 1

    def _obey(
        self,
        advance: float = 0,
        down: bool | None = None,
        homeserverDown: bool | None = None,
    ) -> None:
        self._rig.clock.advance(advance)
        if down is not None:
            self._rig.provider.failure = ProviderUnavailable("down") if down else None
        if homeserverDown is not None:
            self._rig.homeserver.is_down = homeserverDown

    def _state(self) -> dict[str, Any]:
        sessions: list[str] = []
        self._rig.store.sessions(ALICE).addCallback(
            lambda found: sessions.extend(each.device_id for each in found)
        )
        return {
            "sessions": sessions,
            "allowed": self._rig.homeserver.allowed,
            "deleted": self._rig.devices.deleted,
        }


class BrowserCase(ProgramCase):
    """A test case with a server in this process, and scenarios in Chromium."""

    async def begin(self, *sessions: tuple[str, str | None]) -> None:
        """Start the server, with sessions by device and name, a minute apart."""
        self.rig = AccountRig(always_refresh_token=False)
        for device, name in sessions:
            self.rig.clock.advance(60)
            await self.rig.issue(ALICE, device, name)
        site = LoginSite(Controlled(self.rig), reactor)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(site.drain)
        self.addCleanup(port.stopListening)
        self.base = f"http://127.0.0.1:{port.getHost().port}"

    async def play(self, scenario: str) -> dict[str, Any]:
        """Run a scenario; return what it saw."""
        command = ["node", str(FOLDER / "run.mjs"), scenario, self.base, "alice", ALICE_PASSWORD]
        return await self.run_client(command, {"CHROMIUM": chromium()})

    def assert_clean(self, traces: dict[str, Any], *, failures: int = 0) -> None:
        """Assert that a page broke no policy, and kept and let out nothing.

        :param failures: how many requests failed, which Chromium notes in the console.
        """
        self.assertEqual(traces["violations"], [])
        self.assertEqual(traces["errors"], [])
        self.assertEqual(len(traces["console"]), failures, traces["console"])
        for each in traces["console"]:
            self.assertTrue(each.startswith(NOT_LOADED), each)
        self.assertEqual((traces["local"], traces["session"]), ("{}", "{}"))
        self.assertEqual((traces["cookies"], traces["history"]), (0, "null"))
        told = json.dumps(traces)
        for secret in (ALICE_PASSWORD, "slmat_", "slmrt_", "slmpt_"):
            self.assertNotIn(secret, told)
        for url in traces["urls"]:
            self.assertTrue(url.startswith((self.base, "js:")), url)


class LoginPageTests(BrowserCase):
    """The login fallback page."""

    async def test_keyboard(self) -> None:
        """A login takes the keyboard alone, and the app gets the response for its own device."""
        await self.begin()
        seen = await self.play("keyboard")
        self.assertEqual(seen["order"], ["user", "password", "reveal", "submit"])
        self.assertEqual(seen["outline"], "3px")
        (response,) = seen["taken"]
        self.assertEqual((response["user_id"], response["device_id"]), (ALICE, "WEBVIEW"))
        self.assertIn("access_token", response)
        self.assertIn("refresh_token", response)
        (session,) = await self.rig.store.sessions(ALICE)
        self.assertEqual((session.device_id, session.display_name), ("WEBVIEW", "A phone"))
        self.assertEqual((seen["focus"], seen["left"]), ("done-title", ""))
        self.assert_clean(seen["traces"])

    async def test_older_client(self) -> None:
        """A client that sets ``matrixLogin.onLogin`` gets the response, and may hand it on by a
        frame; without having asked for it, it gets no refresh token.
        """
        await self.begin()
        seen = await self.play("olderClient")
        self.assertEqual(seen["response"]["user_id"], ALICE)
        self.assertNotIn("refresh_token", seen["response"])
        self.assert_clean(seen["traces"])

    async def test_no_client(self) -> None:
        """Where no app waits, the page says so and logs nobody in."""
        await self.begin()
        seen = await self.play("noClient")
        self.assertIn("A Matrix app has to open this page", seen["said"])
        self.assertEqual(seen["state"]["sessions"], [])
        self.assert_clean(seen["traces"])

    async def test_wrong_password(self) -> None:
        """The error of a wrong password is at the field, which has the focus; so for empty ones."""
        await self.begin()
        seen = await self.play("wrong")
        self.assertEqual(seen["problem"], "This username and password do not match.")
        self.assertEqual((seen["focus"], seen["invalid"]), ("password", "true"))
        self.assertIn("password-problem", seen["description"].split())
        self.assertEqual(seen["form"], "")
        self.assertTrue(0 <= seen["below"] <= 16, seen["below"])
        self.assertEqual(seen["accessibility"], [])
        self.assertEqual(seen["afterTyping"], "")
        self.assertEqual(seen["empty"], ["Enter your username.", "Enter your password."])
        self.assertEqual(seen["emptyFocus"], "user")
        self.assert_clean(seen["traces"], failures=1)

    async def test_troubles(self) -> None:
        """In trouble the page says what to do, and counts down where there is a time to wait."""
        await self.begin()
        seen = await self.play("troubles")
        self.assertEqual(
            seen["down"], "Passwords cannot be checked at the moment. Try again in 5 seconds."
        )
        self.assertEqual((seen["countdown"], seen["blocked"]), ("Try again in 0:05", "true"))
        self.assertEqual((seen["again"], seen["label"]), ("You can try again now.", "Sign in"))
        self.assertIn("You are offline", seen["offline"])
        self.assertIn("example.com cannot be reached", seen["unreachable"])
        self.assertEqual(seen["limited"], "Too many attempts. Try again in 5 minutes.")
        self.assertIn("is locked", seen["locked"])
        self.assertEqual(seen["deactivated"], "This account has been deactivated.")
        self.assertEqual(seen["notLinked"], "It is not linked to yours.")
        self.assertEqual(seen["html"], "The server has a problem. Try again in a moment.")


class AccountPageTests(BrowserCase):
    """The account page."""

    SESSIONS = (("PHONE", "Phone"), ("TABLET", "Tablet"), ("DESK", None), ("NEW", LONG_NAME))

    async def test_sessions(self) -> None:
        """Sessions are listed, and signed out one by one, all but one, and all."""
        await self.begin(*self.SESSIONS)
        seen = await self.play("account")
        self.assertEqual((seen["focus"], seen["user"]), ("account-title", ALICE))
        self.assertEqual(seen["listed"], ["NEW", "DESK", "TABLET", "PHONE"])
        self.assertEqual(seen["names"][1:], ["Unnamed session", "Tablet", "Phone"])
        self.assertEqual((seen["newest"], seen["times"]), (1, 4))
        self.assertEqual((seen["asked"], seen["inDialog"]), ("Sign out Tablet?", "cancel"))
        self.assertIn("Tablet (TABLET)", seen["afterEscape"])
        self.assertEqual(seen["message"], "Tablet is signed out.")
        self.assertEqual(seen["focusAfter"], "devices-title")
        self.assertEqual(seen["afterOne"], ["NEW", "DESK", "PHONE"])
        self.assertEqual(len(seen["choices"]), 3)
        self.assertEqual((seen["afterOthers"], seen["othersOffered"]), (["PHONE"], False))
        self.assertEqual((seen["afterAll"], seen["empty"]), ([], True))
        self.assertEqual(seen["state"]["sessions"], [])
        self.assertEqual({each for _, each in seen["state"]["deleted"]}, {"TABLET", "DESK", "NEW"})
        self.assertEqual(seen["left"], [True, "", ""])
        self.assert_clean(seen["traces"])

    async def test_reset(self) -> None:
        """The reset of cross-signing is explained, allowed, and leads back to the app."""
        await self.begin(("PHONE", "Phone"))
        seen = await self.play("reset")
        self.assertIn("reset your encryption identity", seen["purpose"])
        self.assertEqual(seen["title"], "Reset your encryption identity?")
        self.assertEqual(seen["focus"], "request-title")
        self.assertIn("Try again in 5 seconds", seen["problem"])
        self.assertIn("within the next ten minutes", seen["text"])
        self.assertEqual((seen["allowedBefore"], seen["allowed"]), ([], [ALICE]))
        self.assertEqual(seen["violations"], [])
        self.assert_clean(seen["traces"], failures=1)

    async def test_actions(self) -> None:
        """Each action of the specification, old and new, leads to what an app asked for."""
        await self.begin(*self.SESSIONS)
        seen = await self.play("actions")
        self.assertEqual(seen["device_delete"], ["Sign out Tablet?", ["NEW", "DESK", "PHONE"]])
        self.assertEqual(seen["session_end"], ["Sign out Unnamed session?", ["NEW", "PHONE"]])
        self.assertEqual(seen["deleted"], [[ALICE, "TABLET"], [ALICE, "DESK"]])
        self.assertEqual(seen["gone"], "Device GONE is not signed in.")
        self.assertEqual((seen["device_view"], seen["session_view"]), ("PHONE", "PHONE"))
        self.assertIn("in the settings of your app", seen["profile"])
        self.assertIn("cannot deactivate", seen["account_deactivate"])
        self.assertIn("does not have", seen["fly"])
        for action in ("devices_list", "sessions_list", "device_delete"):
            self.assertEqual(seen[f"{action} alone"], ["", 2])

    async def test_expired(self) -> None:
        """An expired page token leads back to the sign-in, where nothing of the user is left."""
        await self.begin(("PHONE", "Phone"))
        seen = await self.play("expired")
        self.assertIn("no longer signed in to this page", seen["said"])
        self.assertEqual((seen["focus"], seen["dialog"], seen["left"]), ("user", False, ""))
        self.assertEqual(seen["sessions"], 1)
        self.assertIn("after 15 minutes", seen["byItself"])
        self.assertEqual(seen["returned"], [True, "", ""])
        self.assert_clean(seen["traces"], failures=1)

    async def test_late_answer(self) -> None:
        """An answer that comes when the account has been left shows nothing of it."""
        await self.begin(("PHONE", "Phone"))
        seen = await self.play("late")
        self.assertEqual(seen, {"sessions": "", "visible": True})


class BothPagesTests(BrowserCase):
    """What holds for both pages."""

    async def test_looks(self) -> None:
        """In light and dark, on a phone of 320 pixels and a desktop, axe-core finds nothing, and
        nothing is wider than the window.
        """
        await self.begin(*AccountPageTests.SESSIONS)
        seen = await self.play("looks")
        self.assertEqual(seen["accessibility"], [])
        self.assertEqual(len(seen["overflow"]), 16)
        self.assertEqual({each: n for each, n in seen["overflow"].items() if n}, {})
        backgrounds = seen["backgrounds"]
        self.assertEqual(backgrounds["light phone"], backgrounds["light desktop"])
        self.assertNotEqual(backgrounds["light phone"], backgrounds["dark phone"])

    async def test_without_javascript(self) -> None:
        """Without JavaScript the page says so, and the form sends nothing."""
        await self.begin()
        seen = await self.play("noScript")
        for page in ("login", "account"):
            self.assertIn("This page needs JavaScript", seen[page])
            self.assertEqual(seen[f"{page} sent"], [])

    async def test_frames(self) -> None:
        """Another site cannot put a page into a frame; the same site can frame the login page."""
        await self.begin()
        seen = await self.play("framed")
        self.assertEqual(seen, {"login": 0, "account": 0, "login, own": 1})

    async def test_another_site(self) -> None:
        """Another site cannot read a response of the account page."""
        await self.begin(("PHONE", "Phone"))
        seen = await self.play("otherSite")
        self.assertEqual(seen, {"json": "not readable", "simple": "not readable"})
