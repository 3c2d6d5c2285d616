"""Checks endpoint descriptions before anything listens."""

from __future__ import annotations

import re
import socket
from typing import Any, NamedTuple

from synapse_login_module.common.loopback import is_loopback
from synapse_login_module.errors import ConfigError

_LAST_PORT = 65535
_SEPARATOR = re.compile(r"(?<!\\):")
_PLAIN_TCP = re.compile(
    r"tcp:(?:port=)?([0-9]{1,5})(?::interface=((?:[A-Za-z0-9.-]|\\:)*))?", re.ASCII
)


class PlainTCP(NamedTuple):
    """A port and an interface, which are all that a description says."""

    port: int
    interface: str


def plain_tcp(description: str) -> PlainTCP | None:
    """Return the port and the interface of a description that says no more than these.

    Such an endpoint does not need Twisted's module of endpoints, which imports all of TLS.
    """
    found = _PLAIN_TCP.fullmatch(description)
    if found is None:
        return None
    return PlainTCP(int(found[1]), (found[2] or "").replace("\\:", ":"))


def check(reactor: Any, description: str, *, starts: bool = False) -> None:
    """Check that Twisted can parse a description.

    :param starts: whether the server starts now, so that systemd has to have handed over its
        sockets. It hands them over to the server alone.
    :raise ConfigError: when it cannot, or the port is out of range.
    """
    port = _port(description)
    if port is not None and not 0 <= port <= _LAST_PORT:
        raise ConfigError("", f"there is no port {port}: the last is {_LAST_PORT}")
    if plain_tcp(description) is not None:
        return
    from twisted.internet.endpoints import serverFromString

    try:
        serverFromString(reactor, description)
    except OSError as error:  # for instance of a certificate
        problem = f"{error.filename}: {error.strerror}"
        raise ConfigError("", f"{description!r}: cannot read {problem}") from None
    except Exception as error:  # a third party's endpoint parser may raise anything
        # Twisted looks for the socket once it has parsed the rest.
        if isinstance(error, LookupError) and _may_be_handed_over(description):
            if not starts:
                return
            raise ConfigError("", f"systemd has not handed over {description!r}") from None
        example = "write it like tcp:8008:interface=127.0.0.1"
        raise ConfigError("", f"{description!r} is not an endpoint: {error}: {example}") from None


def is_of_systemd(description: str) -> bool:
    """Return whether systemd opens the socket of an endpoint."""
    return _SEPARATOR.split(description)[0] == "systemd"


def _may_be_handed_over(description: str) -> bool:
    """Return whether systemd can have a socket of a description."""
    _, *arguments = _SEPARATOR.split(description)
    plain = [each for each in arguments if "=" not in each]
    named = dict(each.split("=", 1) for each in arguments if "=" in each)
    given = {**dict(zip(("domain", "index"), plain, strict=False)), **named}
    return (
        is_of_systemd(description)
        and hasattr(socket, f"AF_{given.get('domain')}")
        and given.get("index", "0").isdecimal()
    )


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
    if _SEPARATOR.split(description)[0] == "unix":
        return True
    interface = _interface(description)
    return interface is not None and is_loopback(interface)


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
    host = _interface(description) or ("::" if kind == "tcp6" else "0.0.0.0")  # noqa: S104
    return _url(scheme, host, port)


def local_url(description: str) -> str | None:
    """Return the URL at which this machine reaches an endpoint, without a slash at its end.

    :return: ``None`` for a Unix socket, and for what is not known to be TCP without TLS.
    """
    port, interface = _port(description), _interface(description)
    if not port or interface is None or description.startswith("ssl"):
        return None
    any_address = "::1" if description.startswith("tcp6") else "127.0.0.1"
    host = any_address if interface in ("", "0.0.0.0") else interface  # noqa: S104  it is read here
    host = "::1" if host == "::" else host
    return _url("http", host, port)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _interface(description: str) -> str | None:
    """Return the interface of a TCP endpoint, ``""`` for all; ``None`` for another endpoint."""
    kind, *arguments = _SEPARATOR.split(description)
    if kind not in ("tcp", "tcp6", "ssl"):
        return None
    named = [each.partition("=")[2] for each in arguments if each.startswith("interface=")]
    return (named[-1:] or [*arguments[1:2], ""])[0].replace("\\:", ":")
