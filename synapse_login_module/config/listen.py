"""Checks endpoint descriptions before anything listens."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.endpoints import serverFromString

from synapse_login_module.errors import ConfigError

_LAST_PORT = 65535
_SEPARATOR = re.compile(r"(?<!\\):")


def check(reactor: Any, description: str) -> None:
    """Check that Twisted can parse a description.

    :raise ConfigError: when it cannot, or the port is out of range.
    """
    port = _port(description)
    if port is not None and not 0 <= port <= _LAST_PORT:
        raise ConfigError("", f"there is no port {port}: the last is {_LAST_PORT}")
    try:
        serverFromString(reactor, description)
    except OSError as error:  # for instance of a certificate
        problem = f"{error.filename}: {error.strerror}"
        raise ConfigError("", f"{description!r}: cannot read {problem}") from None
    except Exception as error:  # a third party's endpoint parser may raise anything
        example = "write it like tcp:8008:interface=127.0.0.1"
        raise ConfigError("", f"{description!r} is not an endpoint: {error}: {example}") from None


def _port(description: str) -> int | None:
    """Return the port of a description, or ``None`` if it has none."""
    kind, *arguments = _SEPARATOR.split(description)
    if kind not in ("tcp", "tcp6", "ssl"):
        return None
    named = [each.partition("=")[2] for each in arguments if each.startswith("port=")]
    try:
        return int((named[-1:] or [*arguments[:1], ""])[0])
    except ValueError:
        return None


def is_local(description: str) -> bool:
    """Return whether only this machine can connect to an endpoint; ``False`` if unknown."""
    kind, *arguments = _SEPARATOR.split(description)
    if kind == "unix":
        return True
    if kind not in ("tcp", "tcp6", "ssl"):
        return False
    interface = _interface(arguments)
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return interface == "localhost"


def _interface(arguments: Sequence[str]) -> str:
    """Return the interface among a TCP endpoint's arguments, or an empty text."""
    named = [each.partition("=")[2] for each in arguments if each.startswith("interface=")]
    return (named[-1:] or [*arguments[1:2], ""])[0].replace("\\:", ":")


def url(description: str) -> str:
    """Return the URL of an endpoint.

    The description itself stands for one that does not say where it listens: ``systemd``, port 0,
    and endpoints of third parties.
    """
    kind, *arguments = _SEPARATOR.split(description)
    if kind == "unix":
        named = [each.partition("=")[2] for each in arguments if each.startswith("address=")]
        return "unix:" + (named[-1:] or [*arguments[:1], ""])[0].replace("\\:", ":")
    port = _port(description)
    if not port:
        return description
    scheme = "https" if kind == "ssl" else "http"
    host = _interface(arguments) or ("::" if kind == "tcp6" else "0.0.0.0")  # noqa: S104
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
