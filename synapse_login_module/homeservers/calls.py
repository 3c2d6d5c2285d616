"""Calls one process of Synapse, and reads what it answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from synapse_login_module.errors import (
    HomeserverUnavailable,
    HomeserverUnreachable,
    ProviderUnavailable,
    ProviderUnreachable,
)
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.outbound.circuit import Circuit, CircuitBreaking, State
from synapse_login_module.outbound.http import BackendClient

_FAILURES, _WINDOW, _PAUSE = 5, 60.0, 10.0
_ERRCODE = re.compile(r"[A-Z][A-Z_]{1,63}")
_CAUSES = {
    403: "secret_file and the secret of matrix_authentication_service in homeserver.yaml differ",
    404: "matrix_authentication_service is not enabled in homeserver.yaml",
}
_FAILED = re.compile(r"it answered 500$")
_SILENT = re.compile(r"no whole answer in [0-9.]+ seconds$")
_REFUSALS = frozenset(("M_UNKNOWN", "M_FORBIDDEN", "M_UNRECOGNIZED"))


@dataclass(frozen=True)
class Answer:
    """An answer of Synapse.

    :param call: the name of the call.
    :param status: the HTTP status.
    """

    call: str
    status: int
    body: bytes

    @property
    def content(self) -> dict[str, Any] | None:
        """The JSON object of its body, or ``None`` when it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @property
    def errcode(self) -> str:
        """The Matrix error code, or ``""`` when there is none."""
        errcode = (self.content or {}).get("errcode")
        return errcode if isinstance(errcode, str) and _ERRCODE.fullmatch(errcode) else ""

    def require(self, *statuses: int) -> dict[str, Any]:
        """Return the JSON object of an answer with one of these statuses.

        :raise HomeserverUnavailable: for any other answer. A web page is one, which a proxy may
            have sent with any status.
        """
        if self.status not in statuses:
            raise self.unexpected()
        found = self.content
        if found is None:
            raise HomeserverUnavailable(f"{self.call}: its answer is not a JSON object")
        return found

    def unexpected(self) -> HomeserverUnavailable:
        """Make the error of an answer that the call does not provide for."""
        errcode = self.errcode
        answered = f"{self.call}: it answered {self.status} {errcode}".rstrip()
        cause = _CAUSES.get(self.status) if errcode in _REFUSALS else None
        return HomeserverUnavailable(answered if cause is None else f"{answered}: {cause}")

    def malformed(self, key: str) -> HomeserverUnavailable:
        """Make the error of an answer in which a value is missing or of a wrong type."""
        return HomeserverUnavailable(f"{self.call}: {key} in its answer is not as expected")


def advised(error: HomeserverUnavailable, key: str) -> str:
    """Describe an error of a call, with what to look at while the server is set up.

    :param key: the key of the configuration that has the URL.
    """
    said = str(error)
    if isinstance(error, HomeserverUnreachable):
        return f"{said}: does Synapse run there? (homeserver.config.{key})"
    if _SILENT.search(said):
        return f"{said}: is it http or https? (homeserver.config.{key})"
    if _FAILED.search(said):
        return f"{said}: see Synapse's log: can it read secret_path?"
    return said


class SynapseProcess:
    """One process of Synapse, as it is called for one purpose.

    After five outages in a row within a minute it is not called for ten seconds. An outage is no
    answer within the timeout, or a status from 500 on.

    :param url: its URL, without a slash at the end.
    :param client: sends the requests, to this process alone.
    :param reactor: tells the time.
    :param metrics: measures the calls.
    """

    log = Logger()

    def __init__(
        self, url: str, client: BackendClient, reactor: Any, metrics: Metrics | None = None
    ) -> None:
        self.url = url
        self._client = client
        self._clock = reactor.seconds
        self._metrics = metrics or Metrics()
        self._is_down = False
        breaking = CircuitBreaking(_FAILURES, _WINDOW, _PAUSE, reactor.seconds)
        self._circuit = Circuit("it", breaking, self._changed)

    async def call(
        self,
        name: str,
        method: str,
        path: str,
        token: str | None,
        body: object = None,
        fails: bool = True,
    ) -> Answer:
        """Send a request, which may be repeated without harm.

        :param name: the call's name, for errors.
        :param token: sent as the bearer token, unless it is ``None``.
        :param body: sent as JSON, unless it is ``None``.
        :param fails: whether a status from 500 on counts as an outage. It does not where a client
            can cause it.
        :raise HomeserverUnavailable: without a part of request or response in its message.
        """
        headers, sent = {"Accept": "application/json"}, None
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            sent = json.dumps(body).encode("ascii")
        began, outcome = self._clock(), "unavailable"
        try:
            with self._circuit.attempt():
                answer = await self._client.request(method, f"{self.url}{path}", headers, sent)
                outcome = _outcome_of(answer.code)
                if answer.code >= 500 and fails:
                    raise ProviderUnavailable(f"it answered {answer.code}")
        except ProviderUnreachable as error:
            outcome = "unreachable"
            raise HomeserverUnreachable(f"{name} at {self.url}: {error}") from None
        except ProviderUnavailable as error:
            raise HomeserverUnavailable(f"{name} at {self.url}: {error}") from None
        except CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.homeserver_calls.of(name, outcome).observe(self._clock() - began)
        return Answer(f"{name} at {self.url}", answer.code, answer.body)

    def close(self) -> Deferred[None]:
        """Close the persistent connections."""
        return self._client.close()

    def _changed(self, state: State) -> None:
        """Log the beginning and the end of an outage. Each trial that fails opens it again."""
        if state is State.OPEN and not self._is_down:
            self._is_down = True
            self.log.warn(
                "the homeserver at {url} is down: one call in {pause} seconds is tried",
                url=self.url,
                pause=int(_PAUSE),
            )
        elif state is State.CLOSED and self._is_down:
            self._is_down = False
            self.log.info("the homeserver at {url} is there again", url=self.url)


def _outcome_of(status: int) -> str:
    """Return the outcome of an answer, for the metrics."""
    if status >= 500:
        return "failed"
    return "refused" if status >= 400 else "ok"
