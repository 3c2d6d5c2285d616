"""The headers and secrets that a configuration adds to requests, and the files that hold them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from synapse_login_module.config.files import read_secret
from synapse_login_module.errors import ConfigError

_NAME = re.compile(r"[!#$%&'*+.^`|~\w-]+", re.ASCII)
_OURS = {
    "authorization": "see authorization_file",
    "accept-encoding": "compressed answers are refused",
    "content-type": "encoding determines it",
} | dict.fromkeys(
    (
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ),
    "the request determines it",
)


def check_headers(headers: Mapping[str, str]) -> None:
    """Check headers that are added to requests.

    :raise ConfigError: with the path of the first wrong one.
    """
    seen: set[str] = set()
    for name, value in headers.items():
        problem = _OURS.get(name.lower())
        if not _NAME.fullmatch(name):
            raise ConfigError("", "a name in it is none of a header")
        if problem is not None:
            raise ConfigError(name, f"this header cannot be set: {problem}")
        if not is_header_value(value):
            raise ConfigError(name, "its value is not one line of ASCII text")
        if name.lower() in seen:
            raise ConfigError(name, "it is given twice")
        seen.add(name.lower())


def is_header_value(text: str) -> bool:
    """Say whether a text can be the value of a header, so that it ends no line of the request."""
    return bool(text) and text.isascii() and text.isprintable()


def read_authorization(path: Path) -> str:
    """Read the value of the ``Authorization`` header, without spaces and line ends around it."""
    value = read_secret(path).strip()
    if not is_header_value(value):
        raise ConfigError("", "it does not hold one line of ASCII text")
    return value


def read_headers(path: Path) -> dict[str, str]:
    """Read headers, one a line."""
    headers = _read_pairs(path)
    check_headers(headers)
    return headers


def read_secrets(path: Path, needed: Collection[str]) -> dict[str, str]:
    """Read named secrets, one a line.

    :param needed: the names that templates use.
    """
    secrets = _read_pairs(path)
    for name in sorted(set(needed) - secrets.keys()):
        raise ConfigError("", f"there is no secret named {name} in it")
    return secrets


def _read_pairs(path: Path) -> dict[str, str]:
    """Read lines of the form ``name: value``. Empty lines and lines that begin with # are skipped.

    :raise ConfigError: with the line of the first mistake, without its text.
    """
    pairs: dict[str, str] = {}
    for number, line in enumerate(read_secret(path).split("\n"), 1):
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not line.strip() or name.startswith("#"):
            continue
        if not colon or not _NAME.fullmatch(name) or not value:
            raise ConfigError("", f"line {number}: not of the form NAME: VALUE")
        if name in pairs:
            raise ConfigError("", f"line {number}: the same name as in an earlier line")
        pairs[name] = value
    return pairs
