"""Loopback ports: those that nobody listens on, and whether somebody does."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FIRST = 10_000
_CHOICE = random.SystemRandom()


def free_port() -> int:
    """One that nobody listens on at the moment."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """So many, all different.

    They are below those that the system gives to whoever connects, or listens on any port: one of
    these could be taken, by any process, between this look and the start of the server that it is
    for.
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
    """Whether somebody listens on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            return True
    except OSError:
        return False


def _first_of_connections() -> int:
    """The first port that the system gives of its own choice (ip(7), ip_local_port_range)."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    first = int(given.split()[0])
    return first if first > 2 * _FIRST else 65536


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False
