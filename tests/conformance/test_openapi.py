"""Requests that Schemathesis generates from the description: every response conforms to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.conformance.case import ConformanceTestCase
from tests.conformance.description import OPENAPI_FILE
from tests.conformance.profiles import Profile

_PROFILE = Profile("generated")
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
_PATIENCE = 55


class GeneratedRequestTests(ConformanceTestCase):
    """The findings of Schemathesis."""

    profile = _PROFILE
    timeout = _PATIENCE + 30

    def setUp(self) -> None:
        super().setUp()
        self.own_server()
        command = shutil.which("st", path=os.fspath(Path(sys.executable).parent))
        command = command or shutil.which("st")
        if command is None:
            self.skipTest("Schemathesis is not installed")
        self._command: str = command

    async def test_without_access_token(self) -> None:
        """Without an access token, every response conforms to the description."""
        await self._generate("--include-path-regex", "/v3/|/versions$|/health$|msc2918")

    async def test_with_access_token(self) -> None:
        """With an access token, every response conforms to the description."""
        login = self.succeeded(await self.client.login())
        await self._generate(
            "--include-path-regex",
            "/r0/",
            "--exclude-path-regex",
            "/logout",
            "--header",
            f"Authorization: Bearer {login['access_token']}",
        )
        await self.assert_alive(login["access_token"])

    async def _generate(self, *options: str) -> None:
        folder = tempfile.mkdtemp(prefix="login-generated-")
        self.addCleanup(shutil.rmtree, folder)
        arguments = [
            self._command,
            "run",
            os.fspath(OPENAPI_FILE),
            "--url",
            self.target.base_url,
            "--checks",
            ",".join(_CHECKS),
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "15",
            "--max-time",
            "12",
            "--seed",
            "1",
            "--generation-deterministic",
            "--request-timeout",
            "10",
            "--continue-on-failure",
            "--no-color",
            *options,
        ]
        status, output = await _finished(arguments, folder)
        self.assertEqual(status, 0, output)


def _finished(arguments: list[str], folder: str) -> Deferred[tuple[int, str]]:
    def run() -> tuple[int, str]:
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            env={**os.environ, "NO_PROXY": "*", "SCHEMATHESIS_HOOKS": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return -1, f"not done in {_PATIENCE} s:\n{output}"
        return process.returncode, output

    return deferToThread(run)
