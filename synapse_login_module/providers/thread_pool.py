"""Threads of one backend's own: it may hang, and nobody else's work hangs with it."""

from __future__ import annotations

from typing import Any

from synapse_login_module.errors import ProviderBusy, ProviderUnavailable
from synapse_login_module.thread_pool import ThreadPool

_GRACE = 2.0


class BoundedPool(ThreadPool):
    """Run queries on threads; what there is no room for fails with
    :class:`~synapse_login_module.errors.ProviderBusy`.

    :param reactor: provides ``callFromThread`` and ``callLater``.
    :param threads: how many work at once.
    :param queue: how much work may wait.
    :param grace: for how many seconds stopping waits for the threads.
    """

    def __init__(self, reactor: Any, threads: int, queue: int, grace: float = _GRACE) -> None:
        super().__init__(reactor, "backend", threads, queue, grace)

    def no_room(self) -> Exception:
        """Say that the provider is busy, which is no outage."""
        return ProviderBusy(f"{self.unfinished} pieces of work are under way already")

    def stopping(self) -> Exception:
        """Say that the provider is gone."""
        return ProviderUnavailable("the service is stopping")
