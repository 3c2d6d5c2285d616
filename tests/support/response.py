"""What a server answered to one request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from twisted.web.http_headers import Headers


@dataclass(frozen=True)
class Response:
    """One HTTP answer, read whole.

    :param method: of the request.
    :param path: of the request, without the query.
    """

    status: int
    headers: Headers
    body: bytes
    method: str = ""
    path: str = ""

    def header(self, name: str) -> str | None:
        """The last value of a header, or ``None``."""
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None

    @property
    def media_type(self) -> str | None:
        """The media type of the body, without its parameters."""
        value = self.header("Content-Type")
        return value.partition(";")[0].strip().lower() if value else None

    @property
    def json(self) -> Any:
        """The body as JSON; always an object in this API."""
        return json.loads(self.body.decode("utf-8"))

    @property
    def errcode(self) -> Any:
        """The ``errcode`` of an error."""
        return self.json["errcode"]

    @property
    def soft_logout(self) -> bool:
        """Whether the error says that logging in again goes on with the same device."""
        return self.json.get("soft_logout", False) is True

    def __str__(self) -> str:
        return f"{self.method} {self.path} -> {self.status} {self.body[:300]!r}"
