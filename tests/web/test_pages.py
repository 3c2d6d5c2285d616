"""Tests for the pages and their files, through the resource tree."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

from twisted.internet.task import Clock

from synapse_login_module.web.site import LoginSite
from tests.support import REPOSITORY
from tests.support.account_rig import AccountRig
from tests.support.rig import Rig
from tests.support.site import MemoryWire, get, responses
from tests.support.web import Reply, WebCase

LOGIN = "/_matrix/static/client/login/"
ACCOUNT = "/_matrix/login/account"
STATIC = REPOSITORY / "synapse_login_module" / "web" / "static"


ACCOUNT_ACTIONS = (
    "org.matrix.devices_list",
    "org.matrix.device_view",
    "org.matrix.device_delete",
    "org.matrix.cross_signing_reset",
    "org.matrix.sessions_list",
    "org.matrix.session_view",
    "org.matrix.session_end",
)
"""The actions that the account page knows (client-server specification, v1.18).

The last three are the names of before the specification's v1.18, which clients still use.
"""


class Parsed(HTMLParser):
    """A page as a browser reads it.

    :ivar loaded: what it loads.
    :ivar elements: the elements, with their attributes.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        self.loaded += [value for key in ("src", "href") if (value := given.get(key))]

    def handle_data(self, data: str) -> None:
        self.text += data


class PagesCase(WebCase):
    """A test case with both pages."""

    def setUp(self) -> None:
        self.use(AccountRig())

    def assert_common_headers(self, reply: Reply) -> None:
        """Assert the headers of every file."""
        self.assertIsNone(reply.header("Access-Control-Allow-Origin"))
        self.assertEqual(reply.header("Cache-Control"), "no-cache")
        self.assertEqual(reply.header("X-Content-Type-Options"), "nosniff")
        self.assertEqual(reply.header("Referrer-Policy"), "no-referrer")

    def open(self, path: str) -> Parsed:
        """Return the page at a path."""
        reply = self.ask("GET", path)
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.header("Content-Type"), "text/html; charset=utf-8")
        return Parsed(reply.body.decode("utf-8"))


class PageTests(PagesCase):
    """The pages."""

    def test_all_is_there(self) -> None:
        """Each page loads files below its own path, of the right types, and each import of a
        script is there.
        """
        types = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
        for path in (LOGIN, ACCOUNT):
            waiting = [urljoin(path, each) for each in self.open(path).loaded]
            seen: set[str] = set()
            while waiting:
                url = waiting.pop()
                self.assertTrue(url.startswith(path), url)
                if url in seen:
                    continue
                seen.add(url)
                reply = self.ask("GET", url)
                self.assertEqual(reply.status, 200, url)
                expected = types.get(url.rpartition(".")[2], "image/svg+xml")
                self.assertEqual(reply.header("Content-Type"), expected)
                if url.endswith(".js"):
                    source = reply.body.decode("utf-8")
                    waiting += [urljoin(url, each) for each in re.findall(r'from "(.+?)"', source)]
            self.assertIn("style.css", {each.rpartition("/")[2] for each in seen})

    def test_nothing_inline(self) -> None:
        """No page has a script, a style or a handler inside."""
        for path in (LOGIN, ACCOUNT):
            for tag, attributes in self.open(path).elements:
                self.assertNotEqual(tag, "style")
                self.assertTrue(tag != "script" or attributes.get("src"), attributes)
                for name in attributes:
                    self.assertFalse(name == "style" or name.startswith("on"), attributes)

    def test_nothing_from_elsewhere(self) -> None:
        """No file names a URL at another server, but for the names of XML."""
        for path in STATIC.iterdir():
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            self.assertNotRegex(text, r"(https?:)?//[a-z]", path.name)

    def test_keeps_nothing(self) -> None:
        """No script uses storage, cookies, the console or the history."""
        words = r"localStorage|sessionStorage|indexedDB|cookie|console|history|innerHTML|eval"
        for path in STATIC.glob("*.js"):
            self.assertNotRegex(path.read_text(encoding="utf-8"), rf"\b({words})\b", path.name)

    def test_policy(self) -> None:
        """The policy lets in files of the same origin alone, and no other site frames a page."""
        common = (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
            " img-src 'self'; form-action 'none'; base-uri 'none'; "
        )
        for path, more in (
            (ACCOUNT, "frame-ancestors 'none'"),
            (LOGIN, "frame-src js:; frame-ancestors 'self'"),
        ):
            self.assertEqual(self.ask("GET", path).header("Content-Security-Policy"), common + more)

    def test_form(self) -> None:
        """The form has labels, and names its fields to password managers."""
        for path in (LOGIN, ACCOUNT):
            page = self.open(path)
            labels = {given.get("for") for tag, given in page.elements if tag == "label"}
            inputs = {given["id"]: given for tag, given in page.elements if tag == "input"}
            self.assertLessEqual(set(inputs), labels)
            self.assertEqual(inputs["user"]["autocomplete"], "username")
            self.assertEqual(inputs["password"]["autocomplete"], "current-password")
            ids = {given.get("id") for _, given in page.elements}
            for each in inputs.values():
                self.assertLessEqual(set((each["aria-describedby"] or "").split()), ids)

    def test_server_name(self) -> None:
        """Each page names the server, whatever characters are in its name."""
        name = 'a"<b>&c.example'
        self.use(AccountRig(server_name=name))
        for path in (LOGIN, ACCOUNT):
            page = self.open(path)
            self.assertIn(name, page.text)
            body = next(given for tag, given in page.elements if tag == "body")
            self.assertEqual(body["data-server"], name)
            self.assertNotIn("b", {tag for tag, _ in page.elements})

    def test_without_javascript(self) -> None:
        """Each page says that it needs JavaScript."""
        for path in (LOGIN, ACCOUNT):
            self.assertIn("noscript", {tag for tag, _ in self.open(path).elements})

    def test_methods(self) -> None:
        """Pages are read alone."""
        for path in (LOGIN, ACCOUNT, f"{LOGIN}login.js"):
            self.assertEqual(self.ask("POST", path).status, 405)
            self.assertEqual(self.ask("HEAD", path).body, b"")
            self.assertEqual(self.ask("OPTIONS", path).status, 204)

    def test_actions(self) -> None:
        """Every action that the server names is in the script."""
        script = (STATIC / "account.js").read_text(encoding="utf-8")
        for action in ACCOUNT_ACTIONS:
            self.assertIn(f'"{action}"', script)


class CacheTests(PagesCase):
    """Caches."""

    def test_not_modified(self) -> None:
        """A cache that has a file gets a 304 without a body, and one with another gets the file."""
        for path in (LOGIN, f"{LOGIN}style.css", f"{ACCOUNT}/account.js"):
            whole = self.ask("GET", path)
            etag = (whole.header("ETag") or "").encode("ascii")
            self.assertRegex(etag.decode("ascii"), '^"[0-9a-f]{32}"$')
            for known in (etag, b"W/" + etag, b'"x", ' + etag, b"*"):
                reply = self.ask("GET", path, headers={b"If-None-Match": known})
                self.assertEqual((reply.status, reply.body), (304, b""), known)
                self.assertEqual((reply.header("ETag") or "").encode("ascii"), etag)
                self.assertIsNone(reply.header("Content-Length"))
            other = self.ask("GET", path, headers={b"If-None-Match": b'"x"'})
            self.assertEqual((other.status, other.body), (200, whole.body))

    def test_other_page(self) -> None:
        """Pages of servers of other names have other tags."""
        before = self.ask("GET", LOGIN).header("ETag")
        self.use(AccountRig(server_name="other.example"))
        self.assertNotEqual(self.ask("GET", LOGIN).header("ETag"), before)


class SiteTests(PagesCase):
    """The pages on the standalone server's own site, byte by byte."""

    def get(self, *requests: bytes) -> list[Reply]:
        """Send requests over one connection; return the responses."""
        wire = MemoryWire(LoginSite(self.rig.root, Clock()))
        replies = []
        for each in requests:
            wire.send(each)
            replies += responses(wire.received())
        return replies

    def test_wire(self) -> None:
        """A page, a 304 and a further file come over one connection."""
        (page,) = self.get(get(LOGIN))
        etag = (page.header("ETag") or "").encode("ascii")
        unchanged, icon = self.get(get(LOGIN, [b"If-None-Match: " + etag]), get(f"{LOGIN}icon.svg"))
        self.assertEqual((page.status, unchanged.status, icon.status), (200, 304, 200))
        self.assertEqual(icon.header("Content-Type"), "image/svg+xml")
        for each in (page, unchanged, icon):
            self.assert_common_headers(each)

    def test_slash(self) -> None:
        """The path with a slash more or less leads to the page, with its query."""
        for path, page in ((f"{ACCOUNT}/", ACCOUNT), (LOGIN.rstrip("/"), LOGIN)):
            (reply,) = self.get(get(f"{path}?device_id=A%20B&x=%2F"))
            self.assertEqual(reply.status, 308)
            target = urljoin(path, reply.header("Location"))
            self.assertEqual(target, f"{page}?device_id=A%20B&x=%2F")

    def test_without_a_homeserver(self) -> None:
        """The login page is there without a homeserver too, and the account page is not."""
        self.rig = Rig()
        page, account = self.get(get(LOGIN), get(ACCOUNT))
        self.assertEqual((page.status, account.status), (200, 404))
