"""What the test classes against a real Synapse have in common."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.trial.unittest import TestCase

from tests.support.response import Response
from tests.support.synapse.profile import SERVER_NAME, USERS, Profile, user
from tests.support.synapse.server import SynapseServer, shared
from tests.synapse.client import Pair, SynapseClient

COMPLAINTS = re.compile(
    r"Traceback \(most recent call last\)|Unhandled [Ee]rror|sentinel context|Expected logging"
    r" context|was lost|Re-starting finished|metrics will be lost|never awaited|Logcontext error"
)
"""What a Synapse logs when the module breaks its rules, or breaks."""

_numbers = itertools.count()


def user_id(localpart: str) -> str:
    """A full user ID of the server under test."""
    return f"@{localpart}:{SERVER_NAME}"


def fresh(prefix: str) -> str:
    """A name that no other test of this process uses."""
    return f"{prefix}{next(_numbers)}"


class HomeserverCase(TestCase):
    """A test case with a Synapse to talk to.

    After each test the log is read: neither an error nor a lost logging context may be there, nor
    a token, nor a password.

    :cvar profile: the Synapse it needs.
    :cvar complaints: what of :data:`COMPLAINTS` is expected in the log; a test may set its own.
    """

    if TYPE_CHECKING:
        # Not annotated in Twisted.
        def assertEqual(self, first: object, second: object, msg: object = None) -> None: ...
        def assertNotEqual(self, first: object, second: object, msg: object = None) -> None: ...
        def assertIn(self, member: object, container: object, msg: object = None) -> None: ...
        def assertNotIn(self, member: object, container: object, msg: object = None) -> None: ...
        def assertTrue(self, condition: object, msg: object = None) -> None: ...
        def assertFalse(self, condition: object, msg: object = None) -> None: ...

    profile: ClassVar[Profile]
    complaints: str = r"(?!)"
    timeout = 180

    async def setUp(self) -> None:  # type: ignore[override]
        self.server: SynapseServer = await shared(self.profile)
        self.client = SynapseClient(self.server.client_url, self.server.module_url)
        self.addCleanup(self.client.close)
        self._log_start = len(self.server.log()), len(self.server.worker_log())
        self.addCleanup(self._check_log)
        self.addCleanup(self.server.set_fault, "")
        self.users: Mapping[str, Mapping[str, Any]] = dict(USERS)
        self.addCleanup(self.server.write_users, USERS)

    def logged(self) -> str:
        """What Synapse has logged since the test began; what a worker has, after that."""
        main, worker = self._log_start
        return self.server.log(main) + self.server.worker_log(worker)

    async def administrator(self) -> str:
        """An access token of a new administrator."""
        name = fresh("root")
        password = f"{name}-has-this-password"
        self.client.secrets.add(password)
        token = await self.server.register(name, password, admin=True)
        self.client.secrets.add(token)
        return token

    async def local_user(self, prefix: str = "local") -> tuple[str, str]:
        """Add a user unknown to all providers; return the local part and the local password."""
        name = fresh(prefix)
        password = f"{name}-has-this-password"
        self.client.secrets.add(password)
        self.client.secrets.add(await self.server.register(name, password))
        return name, password

    def new_user(self, prefix: str = "user", **more: Any) -> str:
        """A new user in the users file, not registered yet; the local part.

        :param more: further keys of the entry; ``emails`` and such.
        """
        name = fresh(prefix)
        self.users = {**self.users, name: user(**more)}
        self.write_users()
        return name

    def write_users(self) -> None:
        """Write the users file."""
        self.server.write_users(self.users)

    def change_user(self, name: str, **changes: Any) -> None:
        """Change an entry of the users file."""
        self.users = {**self.users, name: {**self.users[name], **changes}}
        self.write_users()

    def remove_user(self, name: str) -> None:
        """Take an entry out of the users file."""
        self.users = {key: value for key, value in self.users.items() if key != name}
        self.write_users()

    async def outcomes(self, what: str = "outcomes") -> dict[str, float]:
        """The module's counters, by their labels."""
        answer = await self.client.send("GET", f"{self.client.own}/_synapse/metrics")
        self.assertEqual(answer.status, 200)
        found = re.findall(
            rf"^synapse_login_{what}_total\{{(.*)\}} (\S+)$",
            answer.body.decode("utf-8"),
            re.MULTILINE,
        )
        return {labels: float(value) for labels, value in found}

    # Assertions.

    def assert_error(
        self, answer: Response, status: int, errcode: str, soft_logout: bool | None = None
    ) -> None:
        """An answer is an error with this status and code, and says this of the session."""
        self.assertEqual((answer.status, answer.errcode), (status, errcode), str(answer))
        if soft_logout is not None:
            self.assertEqual(answer.soft_logout, soft_logout, str(answer))

    async def assert_live(self, pair: Pair) -> None:
        """Synapse takes the access token of a pair."""
        answer = await self.client.whoami(pair.access)
        self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual(answer.json["user_id"], pair.user_id)
        self.assertEqual(answer.json["device_id"], pair.device_id)

    async def assert_dead(self, access: str, soft_logout: bool) -> None:
        """Synapse rejects an access token, with this value of ``soft_logout``."""
        self.assert_error(await self.client.whoami(access), 401, "M_UNKNOWN_TOKEN", soft_logout)

    async def assert_not_refreshable(self, pair: Pair, access: str | None = None) -> None:
        """No endpoint takes the refresh token of a pair.

        :param access: an access token for ``/tokenrefresh``, if that of the pair is gone.
        """
        strict = await self.client.tokenrefresh(pair, access)
        self.assertIn((strict.status, strict.errcode), _REFUSALS, str(strict))
        lenient = await self.client.refresh(pair)
        self.assert_error(lenient, 401, "M_UNKNOWN_TOKEN")
        own = await self.client.own_refresh(pair)
        self.assertIn((own.status, own.errcode), _OWN_REFUSALS, str(own))

    async def assert_revoked(self, pair: Pair) -> None:
        """A session is over for good, and its client may keep its keys."""
        await self.assert_dead(pair.access, soft_logout=True)
        await self.assert_not_refreshable(pair)

    def _check_log(self) -> None:
        log = self.logged()
        for line in log.splitlines():
            if COMPLAINTS.search(line) and not re.search(self.complaints, line):
                self.fail(f"Synapse logged {line!r}:\n{log}")
        for secret in self.client.secrets:
            if secret in log:
                self.fail(f"Synapse logged the secret {secret!r}:\n{log}")


_REFUSALS = ((403, "M_FORBIDDEN"), (401, "M_UNKNOWN_TOKEN"))
_OWN_REFUSALS = ((401, "M_UNKNOWN_TOKEN"), (403, "M_FORBIDDEN"))
