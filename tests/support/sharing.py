"""Servers that test cases share until the process ends."""

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
    """Stop and remove whatever servers there are when the process ends.

    One that does not stop cleanly has the process fail: its tests are counted by then.

    :param servers: by their names.
    :param stop: fails with ``AssertionError`` when a server does not stop as it should.
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
