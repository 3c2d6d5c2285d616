"""matrix-nio, through nginx."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.clients.case import ClientCase, StandaloneCase
from tests.conformance import accounts
from tests.support.process import require
from tests.support.synapse.profile import PASSWORD
from tests.synapse.case import user_id

PROGRAM = Path(__file__).with_name("nio_session.py")


def command(url: str, user: str, password: str, *more: str) -> list[str]:
    """Return the command of a session of nio; skip the test if nio is not installed."""
    require("nio")
    return [sys.executable, str(PROGRAM), url, user, password, *more]


class SynapseTests(ClientCase):
    """matrix-nio with a Synapse that has the module."""

    async def test_session(self) -> None:
        """It logs in, makes a room, syncs, logs out, and its token is dead then."""
        proxy = await self.nginx()
        name = self.new_user("nio")
        happened = await self.run_client(command(proxy.url, name, PASSWORD, "sync"))
        check(self, happened, user_id(name))
        self.assertEqual(happened["room"], "RoomCreateResponse")
        self.assertEqual(happened["sync"], ["SyncResponse", True])
        self.assertIn("provider=bcrypt", self.logged())

    async def test_wrong_password(self) -> None:
        """It gets the error for a wrong password."""
        proxy = await self.nginx()
        happened = await self.run_client(command(proxy.url, "alice", "not this one"))
        self.assertEqual(happened, {"login": ["LoginError", "M_FORBIDDEN"]})


class StandaloneTests(StandaloneCase):
    """matrix-nio with the standalone server."""

    async def test_session(self) -> None:
        """It logs in, asks who it is, logs out, and its token is dead then."""
        account = accounts.CHEEKY
        session = command((await self.nginx()).url, account.user, account.password)
        happened = await self.run_client(session)
        check(self, happened, self.server.target.user_id(account))


def check(case: Any, happened: dict[str, Any], expected_user: str) -> None:
    """Check a session that ended with a logout."""
    case.assertEqual(happened["login"], ["LoginResponse", None])
    case.assertEqual(happened["user_id"], expected_user)
    case.assertEqual(happened["whoami"], ["WhoamiResponse", expected_user, happened["device_id"]])
    case.assertEqual(happened["logout"], "LogoutResponse")
    case.assertEqual(happened["after"], ["WhoamiError", "M_UNKNOWN_TOKEN"])
