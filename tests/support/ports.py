"""Finds free loopback ports, and checks whether a port is in use."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FIRST = 10_000
_CHOICE = random.SystemRandom()


def free_port() -> int:
    """Return a port that is free at the moment."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Return ``count`` different free ports.

    They are below the system's range of ephemeral ports. Any process could get one of those between
    this call and the start of the server that the port is for.
    """
    found: set[int] = set()
    candidates = range(_FIRST, _first_of_connections())
    while len(found) < count:
        port = _CHOICE.choice(candidates)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return list(found)


def listens(port: int) -> bool:
    """Return whether a process listens on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            return True
    except OSError:
        return False


def _first_of_connections() -> int:
    """Return the first ephemeral port (ip(7), ip_local_port_range)."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    first = int(given.split()[0])
    return first if first > 2 * _FIRST else 65536


def has_ipv6() -> bool:
    """Return whether this machine has an IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False
