"""The base of this folder's test cases: a Synapse with the module, proxies and programs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from twisted.trial.unittest import TestCase

from tests.clients.proxy import Nginx, Proxy
from tests.conformance import profiles
from tests.conformance.server import ConformanceServer, shared
from tests.support.process import Process, subprocess_environment
from tests.support.synapse.profile import Profile
from tests.support.waiting import until
from tests.synapse.case import HomeserverCase

P = TypeVar("P", bound=Proxy)

PROFILE = Profile("clients", synapse={"login_via_existing_session": {"enabled": True}})
"""The default set-up of the module, with Synapse's own ``/login/get_token`` switched on."""

RESULT = "RESULT "
"""The text before the JSON that a client program prints at its end."""

_TIMEOUT = 300.0


class ProgramCase(TestCase):
    """A test case that runs programs."""

    timeout = 400

    def folder(self) -> Path:
        """Make a temporary folder, which is deleted at the end of the test."""
        folder = Path(tempfile.mkdtemp(prefix="login-client-"))
        self.addCleanup(shutil.rmtree, folder)
        return folder

    async def run_program(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> tuple[int | None, str]:
        """Run a program in the root of the repository; return its exit status and output."""
        folder = self.folder()
        variables = subprocess_environment(TMPDIR=str(folder), **(environment or {}))
        process = Process(command, folder / "output", env=variables)
        process.launch()
        self.addCleanup(process.kill)
        await until(lambda: not process.running, f"the end of {command}", timeout=_TIMEOUT)
        return process.exit_status, process.log()

    async def run_client(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Run a client program to its end; return the results that it prints."""
        status, output = await self.run_program(command, environment)
        results = [line for line in output.splitlines() if line.startswith(RESULT)]
        if status != 0 or len(results) != 1:
            self.fail(f"{command} ended with {status}:\n{output}")
        result: dict[str, Any] = json.loads(results[0][len(RESULT) :])
        return result

    async def started(self, proxy: P) -> P:
        """Start a proxy, which is stopped at the end of the test."""
        self.addCleanup(proxy.remove)
        await proxy.start()
        return proxy


class ClientCase(HomeserverCase, ProgramCase):
    """A test case with a Synapse and, on demand, nginx in front of it."""

    profile: ClassVar[Profile] = PROFILE
    timeout = ProgramCase.timeout

    async def nginx(self) -> Nginx:
        """Start nginx in front of the Synapse, until the end of the test."""
        return await self.started(Nginx(self.server.module_port, self.server.client_port))


class StandaloneCase(ProgramCase):
    """A test case with a standalone server.

    :cvar standalone: its configuration.
    """

    standalone: ClassVar[profiles.Profile] = profiles.NORMAL

    def setUp(self) -> None:
        self.server: ConformanceServer = shared(self.standalone)

    async def nginx(self) -> Nginx:
        """Start nginx in front of the server, until the end of the test."""
        return await self.started(Nginx(self.server.port, None))
