"""What the tests of links and addresses have in common."""

from __future__ import annotations

from typing import Any

import yaml

from tests.support.response import Response
from tests.support.synapse.profile import BCRYPT, Profile
from tests.support.waiting import together
from tests.synapse.case import fresh, user_id
from tests.synapse.logins import LoginCase

PEOPLE = "tests.synapse.people.PeopleProvider"

PROVIDERS = [
    {"module": PEOPLE, "config": {"path": "people.yaml"}},
    {"module": BCRYPT, "name": "file", "config": {"path": "users.yaml"}},
]
"""Two providers: ``people``, whose accounts have subjects, and ``file``."""

NOT_LINKED = "There is an account of this name here already, and it is not linked to yours"


def linking(name: str, synapse: dict[str, Any] | None = None, **module: Any) -> Profile:
    """A Synapse with these providers."""
    return Profile(name, {"password_providers": PROVIDERS, **module}, synapse or {})


class LinkCase(LoginCase):
    """Helpers. Each test begins with an empty file of the provider ``people``."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.people: dict[str, dict[str, Any]] = {}
        self.write_people()

    def write_people(self) -> None:
        """Write the file."""
        path = self.server.folder / "people.yaml"
        path.with_suffix(".new").write_text(yaml.safe_dump(self.people))
        path.with_suffix(".new").replace(path)

    def person(self, name: str, **more: Any) -> str:
        """Add a person to the file; return the password."""
        password = fresh(f"password-of-{name}-")
        self.client.secrets.add(password)
        self.people[name] = {"password": password, **more}
        self.write_people()
        return password

    def remove_person(self, name: str) -> None:
        """Remove a person from the file."""
        del self.people[name]
        self.write_people()

    @property
    def listeners(self) -> tuple[str, ...]:
        """Synapse's own, and the module's."""
        return self.client.own, self.client.module

    async def local_account(self, name: str, password: str, admin: bool = False) -> str:
        """Register a user with a local password; return an access token."""
        self.client.secrets.add(password)
        token = await self.server.register(name, password, admin)
        self.client.secrets.add(token)
        return token

    async def passwordless(self, prefix: str = "old") -> str:
        """An account as the older modules made them; the local part."""
        name = fresh(prefix)
        await self.local_account(name, fresh("password-that-nobody-keeps"))
        self.set_local_hash(name, None)
        return name

    def links(self, user: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of links, pending ones too: user, provider, subject, pending."""
        where, values = ("", ()) if user is None else (" WHERE user_id = ?", (user_id(user),))
        return self.server.query(
            f"SELECT user_id, provider, subject, pending FROM synapse_login_links{where}"
            " ORDER BY user_id",
            *values,
        )

    def assert_linked(self, user: str, subject: str, provider: str = "people") -> None:
        """An account has this link."""
        self.assertEqual(self.links(user), [(user_id(user), provider, subject, 0)])

    async def assert_login(self, name: str, password: str, user: str) -> dict[str, Any]:
        """A login at each listener is good, and as this user; the last one's answer."""
        content: dict[str, Any] = {}
        for base in self.listeners:
            answer = await self.client.login(base, name, password, refresh_token=True)
            self.assertEqual((answer.status, answer.json.get("user_id")), (200, user_id(user)))
            content = answer.json
        return content

    async def assert_not_linked(self, name: str, password: str) -> None:
        """A login at each listener is refused; the response and a line in the log say why."""
        for base in self.listeners:
            before = len(self.logged())
            answer = await self.client.login(base, name, password)
            self.assert_error(answer, 403, "M_FORBIDDEN")
            self.assertEqual(answer.json["error"], NOT_LINKED)
            line = "refused reason=not_linked"
            self.assertEqual(self.logged()[before:].count(line), 1)
            self.assertEqual(self.logged()[before:].count("is not linked, and the login"), 1)

    async def assert_wrong(self, name: str, password: str) -> None:
        """A login at each listener is refused as one with a wrong password is."""
        for base in self.listeners:
            answer = await self.client.login(base, name, password)
            self.assert_error(answer, 403, "M_FORBIDDEN")
            self.assertEqual(answer.json["error"], "Invalid username or password")

    async def reauthenticate(self, pair: Any, name: str, password: str) -> Response:
        """Delete the device of a session, with a password."""
        return await self.client.delete_device(pair.device_id, pair.access, name, password)

    async def at_once(self, *logins: tuple[str, str, str]) -> list[tuple[str, Response]]:
        """Log in so often at the same time; the names, and the answers to each."""
        answers = await together(
            *(self.client.login(base, name, password) for base, name, password in logins)
        )
        return [(name, answer) for (_, name, _), answer in zip(logins, answers, strict=True)]
