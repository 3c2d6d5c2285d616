"""matrix-js-sdk, through nginx; ``npm install --prefix tests/clients/js_sdk`` installs it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.clients.case import ClientCase, StandaloneCase
from tests.clients.proxy import Nginx
from tests.conformance import accounts, profiles
from tests.support.ports import free_ports
from tests.support.synapse.profile import PASSWORD, Profile
from tests.synapse.case import user_id

FOLDER = Path(__file__).with_name("js_sdk")
INSTALL = "npm install --prefix tests/clients/js_sdk"

SHORT = Profile("clients-short", synapse={"refreshable_access_token_lifetime": "2s"})
"""Access tokens of clients that refresh live for two seconds."""


def command(program: str, *arguments: str) -> list[str]:
    """Return the command of a program in ``js_sdk``; skip the test if it cannot run."""
    node = shutil.which("node")
    if node is None:
        raise SkipTest("Node.js is not installed: there is no node")
    if not (FOLDER / "node_modules" / "matrix-js-sdk").is_dir():
        raise SkipTest(f"matrix-js-sdk is not installed: {INSTALL}")
    return [node, str(FOLDER / program), *arguments]


class SynapseTests(ClientCase):
    """matrix-js-sdk with a Synapse that has the module."""

    profile = SHORT

    async def test_session(self) -> None:
        """It logs in, its access tokens expire while it syncs, it refreshes and continues."""
        session = command("session.mjs", (await self.nginx()).url, "alice", PASSWORD, "sync")
        happened = await self.run_client(session)
        check(self, happened, user_id("alice"))
        self.assertGreater(happened["syncs"], 0)
        self.assertIn("refresh outcome=ok reason=lenient", self.logged())

    async def test_outage(self) -> None:
        """An outage during a refresh does not log it out; it refreshes after the outage."""
        (closed,) = free_ports(1)
        down = await self.started(Nginx(closed, self.server.client_port))
        url = (await self.nginx()).url
        happened = await self.run_client(command("outage.mjs", url, "alice", PASSWORD, down.url))
        self.assertFalse(happened["loggedOut"])
        self.assertEqual(happened["refreshErrors"], ["HTTPError 503"])
        self.assertEqual(len(happened["errors"]), 1)
        self.assertEqual(happened["refreshes"], 1)
        self.assertEqual(happened["whoami"]["user_id"], user_id("alice"))


class StandaloneTests(StandaloneCase):
    """matrix-js-sdk with the standalone server."""

    standalone = profiles.SHORT_ACCESS

    async def test_session(self) -> None:
        """It logs in, its access tokens expire, it refreshes, continues and logs out."""
        proxy = await self.nginx()
        account = accounts.CHEEKY
        happened = await self.run_client(
            command("session.mjs", proxy.url, account.user, account.password, "whoami")
        )
        check(self, happened, self.server.target.user_id(account))


def check(case: Any, happened: dict[str, Any], expected_user: str) -> None:
    """Check a session of ``session.mjs``."""
    case.assertEqual(happened["userId"], expected_user)
    case.assertEqual(happened["whoami"]["user_id"], expected_user)
    case.assertEqual(happened["whoamiAfter"], happened["whoami"])
    case.assertGreaterEqual(happened["refreshes"], 2)
    case.assertEqual(happened["distinctTokens"], happened["refreshes"] + 1)
    case.assertEqual(happened["refreshErrors"], [])
    case.assertFalse(happened["loggedOut"])
    case.assertEqual(happened["logout"], {})
