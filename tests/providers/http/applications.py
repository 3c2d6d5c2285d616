"""Stand-ins for applications that check passwords over HTTP, which answer as those document it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.providers.backends import QuietSite, body_of
from tests.providers.case import PASSWORD, reactor
from tests.support.waiting import until

Answered = tuple[int, object]


@dataclass
class Person:
    """An account of the applications."""

    name: str = "Alice"
    email: str = "alice@example.com"
    password: str = PASSWORD
    id: Any = "0b2c3c6e-61f5-4a0c-9d0e-3d2b3c6f7a11"
    enabled: bool = True


@dataclass
class Application(Resource):
    """An application on a socket.

    :ivar people: its accounts.
    :ivar seen: the method and path of each request.
    """

    isLeaf = True

    people: list[Person] = field(default_factory=lambda: [Person()])
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._site = QuietSite(self)
        self._listening = reactor.listenTCP(0, self._site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._listening.getHost().port}"

    async def stop(self) -> None:
        """Listen no more."""
        await maybeDeferred(self._listening.stopListening)
        for channel in list(self._site.channels):
            channel._channel.transport.abortConnection()
        await until(lambda: not self._site.channels)

    def find(self, name: str) -> Person | None:
        """The account of a name or an e-mail address, in any case."""
        wanted = name.lower()
        return next((p for p in self.people if wanted in (p.name.lower(), p.email)), None)

    def render(self, request: Request) -> bytes:
        """Answer in JSON."""
        method, uri = request.method.decode(), request.uri.decode()
        self.seen.append(f"{method} {uri}")
        code, given = self.respond(method, uri, request, body_of(request) or {})
        request.setResponseCode(code)
        request.setHeader("Content-Type", "application/json")
        return json.dumps(given).encode()

    def respond(self, method: str, uri: str, request: Request, body: Mapping[str, str]) -> Answered:
        """The status and the JSON of an answer."""
        raise NotImplementedError


class Keycloak(Application):
    """The token endpoint of Keycloak's realm ``example``, with the client ``matrix``."""

    secret = "a secret:of &the client"

    def respond(self, method: str, uri: str, request: Request, body: Mapping[str, str]) -> Answered:
        """Grant tokens for a password."""
        if uri != "/realms/example/protocol/openid-connect/token":
            return 404, {"error": "Realm does not exist"}
        if method != "POST":
            return 405, {"error": "HTTP 405 Method Not Allowed"}
        if (body.get("client_id"), body.get("client_secret")) != ("matrix", self.secret):
            return 401, {"error": "unauthorized_client", "error_description": "Invalid client"}
        if body.get("grant_type") != "password":
            return 400, {"error": "unsupported_grant_type"}
        person = self.find(body["username"])
        if person is None:
            return 400, {"error": "invalid_grant", "error_description": "Invalid user credentials"}
        if not person.enabled:
            return 400, {"error": "invalid_grant", "error_description": "Account disabled"}
        if person.password != body["password"]:
            return 401, {"error": "invalid_grant", "error_description": "Invalid user credentials"}
        tokens = {"access_token": "x", "expires_in": 300, "token_type": "Bearer"}
        if "openid" in body.get("scope", "").split():
            claims = {
                "iss": f"{self.url}/realms/example",
                "aud": "matrix",
                "sub": person.id,
                "preferred_username": person.name.lower(),
                "name": "Alice Liddell",
                "email": person.email,
            }
            middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
            tokens["id_token"] = f"eyJhbGciOiJSUzI1NiJ9.{middle}.c2lnbmF0dXJl"
        return 200, tokens


class XenForo(Application):
    """XenForo's REST API."""

    key = "the-super-user-key"

    def respond(self, method: str, uri: str, request: Request, body: Mapping[str, str]) -> Answered:
        """Test a login, or show a user."""
        if request.getHeader("XF-Api-Key") != self.key:
            return 401, _errors("api_key_not_found")
        path, _, query = uri.partition("?")
        if (method, path) == ("POST", "/api/auth/"):
            person = self.find(body["login"])
            if person is None or person.password != body["password"]:
                unknown = "requested_user_x_not_found"
                return 400, _errors(unknown if person is None else "incorrect_password")
            return 200, {"success": True, "user": self._shown(person)}
        if method == "GET" and path.startswith("/api/users/"):
            found = [p for p in self.people if f"/api/users/{p.id}/" == path]
            if not found:
                return 404, _errors("requested_user_not_found")
            if query != "api_bypass_permissions=1":
                return 403, _errors("do_not_have_permission")
            return 200, {"user": self._shown(found[0])}
        return 404, _errors("endpoint_not_found")

    def _shown(self, person: Person) -> Mapping[str, object]:
        return {
            "user_id": person.id,
            "username": person.name,
            "email": person.email,
            "is_banned": not person.enabled,
        }


class Nextcloud(Application):
    """Nextcloud's OCS API, with the administrator ``admin``."""

    admin = Person("admin", "admin@example.com", "app-password", "admin")

    def respond(self, method: str, uri: str, request: Request, body: Mapping[str, str]) -> Answered:
        """Show a user, to that user or to the administrator."""
        if request.getHeader("OCS-APIRequest") != "true" or not uri.endswith("?format=json"):
            return 412, _ocs("failure", 412, [])
        asking = next(
            (
                p
                for p in (*self.people, self.admin)
                if body.get("who", "").lower() in (p.name.lower(), p.email)
                and p.password == body["secret"]
            ),
            None,
        )
        if asking is None or not asking.enabled:
            return 401, _ocs("failure", 997, [])
        if uri == "/ocs/v2.php/cloud/user?format=json":
            return 200, _ocs("ok", 200, self._shown(asking))
        name = uri.removeprefix("/ocs/v2.php/cloud/users/").removesuffix("?format=json")
        found = [p for p in self.people if p.name == name]
        if asking is not self.admin or not found:
            return 404, _ocs("failure", 404, [])
        return 200, _ocs("ok", 200, self._shown(found[0]))

    def _shown(self, person: Person) -> Mapping[str, object]:
        return {
            "enabled": person.enabled,
            "id": person.name,
            "displayname": "Alice Liddell",
            "email": person.email,
        }


class PrivacyIDEA(Application):
    """privacyIDEA's check of a password with a code, which is good once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.used: set[str] = set()

    def respond(self, method: str, uri: str, request: Request, body: Mapping[str, str]) -> Answered:
        """Check a PIN or password with its code."""
        if (method, uri) != ("POST", "/validate/check"):
            return 405, {"result": {"status": False, "error": {"code": 0}}}
        person, given = self.find(body["user"]), body["pass"]
        code = "" if person is None else given.removeprefix(person.password)
        is_right = code.isdecimal() and len(code) == 6 and given not in self.used
        self.used.add(given)
        return 200, {"result": {"status": True, "value": is_right}, "detail": {}}


def _errors(code: str) -> object:
    return {"errors": [{"code": code, "message": "…", "params": []}]}


def _ocs(status: str, code: int, data: object) -> object:
    return {"ocs": {"meta": {"status": status, "statuscode": code, "message": ""}, "data": data}}
