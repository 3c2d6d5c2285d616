"""Plain requests to a loopback port that block until the answer is there."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

_TIMEOUT = 60.0


def ask(
    port: int, method: str, path: str, payload: object = None, token: str | None = None
) -> tuple[int, bytes]:
    """Send a request, of JSON if there is a payload; the status and the body of the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        body = None if payload is None else json.dumps(payload)
        connection.request(method, quote(path, "/?=&%"), body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def healthy(port: int) -> bool:
    """Whether a server answers there, and says that it is well."""
    try:
        return ask(port, "GET", "/health")[0] == 200
    except (OSError, HTTPException):
        return False
