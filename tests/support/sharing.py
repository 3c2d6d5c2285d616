"""Stops the servers that test cases share when the process ends."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def stop_at_exit(
    servers: dict[str, T], stop: Callable[[T], None], remove: Callable[[T], None]
) -> None:
    """Stop and remove the servers when the process ends.

    If one does not stop cleanly, the process fails, because the tests have been counted by then.

    :param servers: the servers by name; may change until the process ends.
    :param stop: raises ``AssertionError`` when a server does not stop cleanly.
    """

    def stop_all() -> None:
        clean = True
        for name, server in servers.items():
            try:
                stop(server)
            except AssertionError as error:
                print(f"{name}: {error}", file=sys.stderr)
                clean = False
            remove(server)
        servers.clear()
        if not clean:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    atexit.register(stop_all)
