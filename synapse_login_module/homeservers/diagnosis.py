"""The diagnosis of a Synapse that delegates authentication to this server."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from synapse_login_module.errors import HomeserverUnavailable
from synapse_login_module.homeservers.calls import SynapseProcess
from synapse_login_module.homeservers.config import SynapseConfig
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import (
    failed,
    good,
    has_failure,
    in_milliseconds,
    on_one_line,
    warning,
)
from synapse_login_module.outbound.examining import advice_on_connecting, of_tls

OLDEST = 1, 136
"""The first release of Synapse that has ``matrix_authentication_service``."""

_VERSION = "/_synapse/admin/v1/server_version"
_METADATA = "/_matrix/client/v1/auth_metadata"

_ADVICE: Mapping[str, str] = {
    "differ": "put the same secret into secret_file and the file of secret_path in homeserver.yaml,"
    " and restart both",
    "not enabled": "enable matrix_authentication_service in homeserver.yaml, and restart Synapse",
    "server_name": "correct server_name, or homeserver.config.url",
    "users are not of": "correct server_name, or homeserver.config.url",
    "does Synapse run there": "start Synapse, or correct homeserver.config.url",
    "http or https": "correct homeserver.config.url: http or https",
    "secret_path": "let Synapse read the file of secret_path, and restart it",
    "delegated: true": "load SynapseLoginModule with delegated: true in that Synapse, or set"
    " forget_tokens: false",
}


class HomeserverDiagnosis:
    """Examines the Synapse.

    :param main: calls it.
    :param check: as ``check`` of :class:`~synapse_login_module.interfaces.IHomeserver`.
    :param public_baseurl: the URL at which clients reach this server.
    """

    def __init__(
        self,
        config: SynapseConfig,
        main: SynapseProcess,
        check: Callable[[], Awaitable[str | None]],
        public_baseurl: str | None,
        reactor: Any,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._main = main
        self._check = check
        self._public_baseurl = public_baseurl
        self._reactor = reactor
        self._clock = clock

    async def __call__(self) -> list[Finding]:
        """Examine TLS, delegation and secret, then the version, and the way back to this server."""
        seconds = self._config.keys.timeout / 1000
        url, key = self._config.url, "homeserver.config.ca_file"
        tls = self._config.tls
        findings = await of_tls(url, tls, self._reactor, seconds, self._clock(), key)
        if has_failure(findings):
            return findings
        began = time.perf_counter()
        problem = await self._check()
        if problem is not None:
            return [*findings, _failed(url, problem)]
        took = in_milliseconds(time.perf_counter() - began)
        return [
            *findings,
            good(url, f"it delegates, with the same secret; answered in {took}"),
            await self._of_version(),
            await self._of_the_way_back(),
        ]

    async def _of_version(self) -> Finding:
        what = "version"
        try:
            answer = await self._main.call(what, "GET", _VERSION, None, fails=False)
        except HomeserverUnavailable as error:
            return _failed(what, str(error))
        release = (answer.content or {}).get("server_version")
        numbers = re.match(r"(\d+)\.(\d+)", release) if isinstance(release, str) else None
        if numbers is None:
            # A proxy may hide the path.
            found = f"it does not say which release of Synapse it is (status {answer.status})"
            return warning(what, found, f"see that it is {OLDEST[0]}.{OLDEST[1]} or newer")
        # A checkout of Synapse adds its branch behind a space.
        found = f"Synapse {on_one_line(str(release).partition(' ')[0], 40)}"
        if (int(numbers[1]), int(numbers[2])) < OLDEST:
            return failed(what, found, f"upgrade Synapse to {OLDEST[0]}.{OLDEST[1]} or newer")
        return good(what, found)

    async def _of_the_way_back(self) -> Finding:
        """Have Synapse read this server's metadata, which it serves to clients as its own."""
        what = "endpoint"
        try:
            answer = await self._main.call(what, "GET", _METADATA, None, fails=False)
        except HomeserverUnavailable as error:
            return _failed(what, str(error))
        issuer = (answer.content or {}).get("issuer")
        if answer.status != 200 or not isinstance(issuer, str):
            return failed(
                what,
                f"Synapse does not reach this server ({answer.status} for its metadata)",
                "start this server; endpoint of matrix_authentication_service has to be the URL of"
                " internal_listen",
            )
        if self._public_baseurl is not None and issuer != f"{self._public_baseurl}/":
            return failed(
                what,
                f"Synapse delegates to another service, which is called {on_one_line(issuer, 100)}",
                "correct endpoint of matrix_authentication_service or public_baseurl, and restart"
                " both",
            )
        return good(what, "Synapse has reached this server")


def _failed(what: str, problem: str) -> Finding:
    advice = next((each for words, each in _ADVICE.items() if words in problem), None)
    return failed(what, problem, advice or advice_on_connecting(problem, "homeserver.config.url"))
