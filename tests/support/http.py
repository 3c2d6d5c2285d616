"""Blocking HTTP requests to a loopback port."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

_TIMEOUT = 60.0


def ask(
    port: int, method: str, path: str, payload: object = None, token: str | None = None
) -> tuple[int, bytes]:
    """Send a request, with JSON if there is a payload; return the response's status and body."""
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
    """Return whether a server on the port responds that it is healthy."""
    return healthy_at(port, "/health")


def healthy_at(port: int, path: str) -> bool:
    """Return whether a server on the port answers 200 at a path."""
    try:
        return ask(port, "GET", path)[0] == 200
    except (OSError, HTTPException):
        return False
