"""What the server says in its log when it and the Synapse do not fit, and when they do again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.delegated_server import CLIENT, DelegatedServer, asked
from tests.support.ports import free_port
from tests.support.synapse.delegating import SECRET, SECRET_FILE, delegating
from tests.support.synapse.profile import Profile
from tests.support.synapse.server import SynapseServer, shared
from tests.support.waiting import reactor, until

ENDPOINT_PORT = free_port()
PROFILE = delegating("delegation-wrong", ENDPOINT_PORT)
ALONE = Profile("delegation-alone", module=None, files={SECRET_FILE: f"{SECRET}\n"})


class WrongCase(TestCase):
    """A test with a Synapse, and a server that may not fit.

    :cvar profile: the Synapse.
    """

    profile: ClassVar[Profile] = PROFILE
    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]
        self.synapse = await shared(self.profile)

    async def start(self, homeserver: Mapping[str, Any] | None = None) -> DelegatedServer:
        """Start a server; it starts whatever is wrong."""
        server = DelegatedServer(self, self.synapse, ENDPOINT_PORT, homeserver)
        await server.process.start()
        return server

    async def start_with_secret(self, secret: str) -> DelegatedServer:
        """Start a server with another secret than the Synapse's."""
        server = DelegatedServer(self, self.synapse, ENDPOINT_PORT, {"secret_file": "my.secret"})
        path = server.folder / "my.secret"
        path.write_text(f"{secret}\n")
        path.chmod(0o600)
        await server.process.start()
        return server

    async def said(self, server: DelegatedServer, text: str) -> str:
        """Wait until the log has lines with a text; return the only one."""

        def lines() -> list[str]:
            return [line for line in server.process.log().splitlines() if text in line]

        await until(lines, text)
        (line,) = lines()
        self.assertNotIn(SECRET, server.process.log())
        return line


class WrongSecretTests(WrongCase):
    """The secrets differ."""

    async def test_at_start(self) -> None:
        """The server says at its start that they do. A login gets 503."""
        server = await self.start_with_secret("another-secret")
        line = await self.said(server, "homeserver: ")
        self.assertIn("it answered 403", line)
        self.assertIn("secret_file and the secret of matrix_authentication_service", line)
        self.assertIn(self.synapse.client_url, line)
        reply = await server.try_login(server.alice)
        self.assertEqual(reply.status, 503, reply)

    async def test_asked_with_another(self) -> None:
        """When the Synapse asks about tokens, the server says that once, and clients get 503."""
        server = await self.start_with_secret("another-secret")
        for number in range(3):
            path = f"{CLIENT}/account/whoami"
            reply = await asked(self.synapse.client_port, "GET", path, token=f"token{number}")
            self.assertEqual(reply.status, 503, reply)
        line = await self.said(server, "with a wrong secret")
        self.assertIn("127.0.0.1 asked", line)
        self.assertIn("secret_file and matrix_authentication_service in homeserver.yaml", line)


class AwayTests(WrongCase):
    """The Synapse is not there when the server starts."""

    async def test_later(self) -> None:
        """The server says so once, logs users in when the Synapse is there, and says that too."""
        synapse = SynapseServer(PROFILE)
        self.addCleanup(synapse.remove)
        self.synapse = synapse
        server = await self.start()
        line = await self.said(server, "homeserver: ")
        self.assertIn(f"query_user at {synapse.client_url}: ConnectionRefusedError", line)
        self.assertEqual((await server.try_login(server.alice)).status, 503)
        await synapse.start()
        status = 503
        while status == 503:
            await deferLater(reactor, 0.5)
            status = (await server.try_login(server.alice)).status
        self.assertEqual(status, 200)
        session = await server.login()
        path = f"{CLIENT}/account/whoami"
        reply = await asked(synapse.client_port, "GET", path, token=session.token)
        self.assertEqual(reply.status, 200, reply)
        await self.said(server, "homeserver: it is there, with the same secret")
        await self.said(server, "homeserver: it asks about tokens")
        await synapse.stop()


class AloneTests(WrongCase):
    """A Synapse that does not delegate."""

    profile = ALONE

    async def test_at_start(self) -> None:
        """The server says at its start that it does not. A login gets 503."""
        server = await self.start()
        line = await self.said(server, "homeserver: ")
        self.assertIn("matrix_authentication_service is not enabled in homeserver.yaml", line)
        self.assertEqual((await server.try_login(server.alice)).status, 503)
