"""Tests that the page's blocks for applications work with what those answer."""

from __future__ import annotations

import base64
import re
import textwrap
from typing import Any, ClassVar

import yaml

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.model import Account, AccountStatus, Level
from synapse_login_module.providers import HTTPProvider
from tests.providers.case import PASSWORD, ProviderCase, email, user
from tests.providers.http.applications import (
    Application,
    Keycloak,
    Nextcloud,
    Person,
    PrivacyIDEA,
    XenForo,
)
from tests.support import REPOSITORY
from tests.support.accounts import ALICE

_PAGES = REPOSITORY / "docs" / "providers"


def block(heading: str, page: str = "http") -> dict[str, Any]:
    """The configuration of a section of a page."""
    text = (_PAGES / f"{page}.rst").read_text("utf-8")
    _, section = re.split(rf"^{heading}\n-+$", text, flags=re.MULTILINE)
    found = re.search(r"^\.\. code-block:: yaml\n\n((?:   .*\n|\n)+)", section, re.MULTILINE)
    assert found is not None
    (entry,) = yaml.safe_load(textwrap.dedent(found[1]))["password_providers"]
    config: dict[str, Any] = entry["config"]
    return config


class ApplicationCase(ProviderCase):
    """An application, and a provider with the block of the page.

    :cvar kind: the stand-in.
    :cvar ids: the id of Alice.
    """

    kind: ClassVar[type[Application]]
    ids: ClassVar[Any] = Person.id

    def setUp(self) -> None:
        self.application = self.kind(people=[Person(id=self.ids)])
        self.alice = self.application.people[0]
        self.addCleanup(self.application.stop)

    def configured(self) -> HTTPProvider:
        """The provider, with the files that the page says."""
        return self.built(block(self.kind.__name__))

    def built(self, config: dict[str, Any]) -> HTTPProvider:
        """A provider of a block."""
        for key in ("url", "status_url"):
            if key in config:
                config[key] = re.sub(
                    r"https://\w+\.example\.com", self.application.url, config[key]
                )
        self.write("keycloak.secrets", f"client: {Keycloak.secret}\n")
        self.write("xenforo.headers", f"XF-Api-Key: {XenForo.key}\n")
        pair = base64.b64encode(b"admin:app-password").decode()
        self.write("nextcloud.secret", f"Basic {pair}\n")
        built: HTTPProvider = self.build(HTTPProvider, config)
        return built

    async def check_account(self, expected: Account) -> None:
        """A user is known by name in any case and by e-mail address, with one password."""
        provider = self.configured()
        for identifier in (user("alice"), user("ALICE"), email(), email("Alice@Example.com")):
            self.assertEqual(await provider.authenticate(identifier, PASSWORD), expected)
            await self.fails(provider.authenticate(identifier, "x"), InvalidCredentials)
        for name in ("nobody", "*", "x&username=alice", "x&login=alice"):
            asked = provider.authenticate(user(name), PASSWORD)
            await self.fails(asked, InvalidCredentials)
        odd = self.alice.password = "ü&password=x+%26;\U0001f916"
        self.assertEqual(await provider.authenticate(user("alice"), odd), expected)
        findings = await provider.diagnose()
        self.assertNotIn(Level.FAILED, {each.level for each in findings}, findings)

    async def check_wrong_secret(self) -> None:
        """A mistyped secret of the server's is an outage, and no wrong password."""
        provider = self.configured()
        for name in ("keycloak.secrets", "xenforo.headers", "nextcloud.secret"):
            path = self.folder() / name
            path.write_text(path.read_text()[:-3] + "x\n")
        asked = provider.authenticate(user("alice"), PASSWORD)
        problem = await self.fails(asked, ProviderUnavailable)
        self.assertEqual(str(problem), "the service answered 401")

    async def check_statuses(self, off: AccountStatus) -> None:
        """An account that is switched off or removed is seen to be."""
        provider = self.configured()
        account = await provider.authenticate(user("alice"), PASSWORD)
        assert account is not None
        self.assertIs(await provider.account_status(account.subject), AccountStatus.ACTIVE)
        self.alice.enabled = False
        self.assertIs(await provider.account_status(account.subject), off)
        self.application.people.clear()
        self.assertIsNone(await provider.account_status(account.subject))


class KeycloakTests(ApplicationCase):
    """Keycloak's direct grant."""

    kind = Keycloak

    async def test_account(self) -> None:
        """The account is the one in the id token."""
        subject = f"id:{self.alice.id}"
        await self.check_account(
            Account(ALICE, "Alice Liddell", ("alice@example.com",), subject=subject)
        )

    async def test_wrong_secret(self) -> None:
        """A wrong secret of the client is an outage."""
        await self.check_wrong_secret()

    async def test_disabled(self) -> None:
        """A disabled account is refused, and cannot be looked at."""
        provider = self.configured()
        self.alice.enabled = False
        await self.fails(provider.authenticate(user("alice"), PASSWORD), InvalidCredentials)
        status = await provider.account_status(f"id:{self.alice.id}")
        self.assertIs(status, AccountStatus.UNVERIFIABLE)


class XenForoTests(ApplicationCase):
    """XenForo's test of a login."""

    kind = XenForo
    ids = 7

    async def test_account(self) -> None:
        """The account is known by its number."""
        await self.check_account(
            Account(
                ALICE,
                emails=("alice@example.com",),
                status=AccountStatus.ACTIVE,
                subject="id:7",
            )
        )

    async def test_wrong_secret(self) -> None:
        """A wrong key is an outage."""
        await self.check_wrong_secret()

    async def test_statuses(self) -> None:
        """A banned account is locked."""
        await self.check_statuses(AccountStatus.LOCKED)
        self.assertIn("GET /api/users/7/?api_bypass_permissions=1", self.application.seen)


class NextcloudTests(ApplicationCase):
    """Nextcloud's OCS API."""

    kind = Nextcloud

    async def test_account(self) -> None:
        """The account is known by its user ID, as Nextcloud spells it."""
        await self.check_account(
            Account(
                ALICE,
                "Alice Liddell",
                ("alice@example.com",),
                status=AccountStatus.ACTIVE,
                subject="Alice",
            )
        )

    async def test_disabled(self) -> None:
        """A disabled account is refused."""
        self.alice.enabled = False
        asked = self.configured().authenticate(user("alice"), PASSWORD)
        await self.fails(asked, InvalidCredentials)

    async def test_statuses(self) -> None:
        """A disabled account is deactivated."""
        await self.check_statuses(AccountStatus.DEACTIVATED)

    async def test_wrong_secret(self) -> None:
        """A wrong app password of the administrator is an outage of the looks at accounts."""
        provider = self.configured()
        self.write("nextcloud.secret", "Basic YWRtaW46eA==\n")
        await self.fails(provider.account_status("Alice"), ProviderUnavailable)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))


class PrivacyIDEATests(ApplicationCase):
    """privacyIDEA, as the page on second factors asks it."""

    kind = PrivacyIDEA

    async def test_codes(self) -> None:
        """A password with its code logs in, once."""
        provider = self.built(block("Declare it", "second-factors"))
        account = await provider.authenticate(user("Alice"), f"{PASSWORD}492039")
        self.assertEqual(account, Account(ALICE, subject="alice"))
        for wrong in (f"{PASSWORD}492039", PASSWORD, "x492040"):
            await self.fails(provider.authenticate(user("alice"), wrong), InvalidCredentials)
        self.assertIsNotNone(await provider.authenticate(user("alice"), f"{PASSWORD}755224"))
