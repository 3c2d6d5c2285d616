"""Fetches what this server and the proxy in front of it serve."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model.findings import in_milliseconds
from synapse_login_module.outbound.examining import in_words
from synapse_login_module.outbound.http import BackendClient, RequestLimits, TLSPolicy

CONNECT_SECONDS = 5
_TOTAL_SECONDS = 5.0
_AT_ONCE = 8

LOGIN = "/_matrix/client/v3/login"
VERSIONS = "/_matrix/client/versions"


class Fetched(NamedTuple):
    """What was fetched.

    :param status: the HTTP status; 0 when there was no answer.
    :param took: how long it took.
    :param problem: why there was no answer; empty when there was one.
    """

    status: int
    body: bytes
    took: str
    problem: str


def json_object(body: bytes) -> Mapping[str, Any]:
    """Parse a body; return an empty mapping for one that is no JSON object."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class Fetcher:
    """Sends GET requests, without following redirects."""

    def __init__(self, reactor: Any) -> None:
        limits = RequestLimits(CONNECT_SECONDS, _TOTAL_SECONDS, _AT_ONCE)
        self._client = BackendClient(reactor, TLSPolicy(), limits)

    async def fetch(self, url: str) -> Fetched:
        """Fetch a URL; what goes wrong is part of the result."""
        began = time.perf_counter()
        try:
            answer = await self._client.request("GET", url, {"Accept": "application/json"})
        except ProviderUnavailable as error:
            return Fetched(0, b"", "", in_words(error))
        return Fetched(answer.code, answer.body, in_milliseconds(time.perf_counter() - began), "")

    async def close(self) -> None:
        """Close the persistent connections."""
        await self._client.close()
