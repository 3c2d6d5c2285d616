"""The response to a request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from twisted.web.http_headers import Headers


@dataclass(frozen=True)
class Response:
    """One HTTP response, read whole.

    :param method: the request's method.
    :param path: the request's path without the query.
    """

    status: int
    headers: Headers
    body: bytes
    method: str = ""
    path: str = ""

    def header(self, name: str) -> str | None:
        """Return the last value of a header, or ``None``."""
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None

    @property
    def media_type(self) -> str | None:
        """The media type of the body, without its parameters."""
        value = self.header("Content-Type")
        return value.partition(";")[0].strip().lower() if value else None

    @property
    def json(self) -> Any:
        """The body as JSON, which is always an object in this API."""
        return json.loads(self.body.decode("utf-8"))

    @property
    def errcode(self) -> Any:
        """The ``errcode`` of an error response."""
        return self.json["errcode"]

    @property
    def soft_logout(self) -> bool:
        """Whether the error says ``soft_logout``: a new login continues with the same device."""
        return self.json.get("soft_logout", False) is True

    def __str__(self) -> str:
        return f"{self.method} {self.path} -> {self.status} {self.body[:300]!r}"
