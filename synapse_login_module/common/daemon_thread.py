"""Work that blocks, on a thread of its own which does not keep the program from exiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def in_daemon_thread(reactor: Any, work: Callable[[], T]) -> Deferred[T]:
    """Run work on a new thread.

    The reactor's own threads are joined when it stops, so work there that hangs would hang the
    program.

    :param reactor: provides ``callFromThread``.
    :return: fires with what the work returned, or fails with what it raised. Cancelling it leaves
        the thread to itself.
    """
    done: Deferred[T] = Deferred()

    def tell(result: Any) -> None:
        if not done.called:
            done.callback(result)

    def run() -> None:
        result: Any = None
        try:
            result = work()
        except BaseException:
            result = Failure()
        reactor.callFromThread(tell, result)

    threading.Thread(target=run, name="blocking work", daemon=True).start()
    return done
