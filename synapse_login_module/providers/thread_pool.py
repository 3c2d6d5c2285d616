"""Thread pools for backends. Each backend has its own, so that one that hangs delays no other."""

from __future__ import annotations

from typing import Any

from synapse_login_module.common.thread_pool import ThreadPool
from synapse_login_module.errors import ProviderBusy, ProviderUnavailable

_GRACE = 2.0


class BoundedPool(ThreadPool):
    """The threads of one backend. Work that the queue has no room for fails with
    :class:`~synapse_login_module.errors.ProviderBusy`.

    :param reactor: provides ``callFromThread`` and ``callLater``.
    :param threads: how many threads work at once.
    :param queue: how many jobs may wait.
    :param grace: seconds that stopping waits for the threads.
    """

    def __init__(self, reactor: Any, threads: int, queue: int, grace: float = _GRACE) -> None:
        super().__init__(reactor, "backend", threads, queue, grace)

    def no_room(self) -> Exception:
        """Make the error of a busy provider, which is not an outage."""
        return ProviderBusy(f"{self.unfinished} pieces of work are under way already")

    def stopping(self) -> Exception:
        """Make the error of a provider that stops, which is an outage."""
        return ProviderUnavailable("the service is stopping")
