"""Locks by key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from twisted.internet.defer import DeferredLock

K = TypeVar("K", bound=Hashable)


class Locks(Generic[K]):
    """One lock for each key. It is kept while it is held or waited for."""

    def __init__(self) -> None:
        self._locks: dict[K, DeferredLock] = {}

    @asynccontextmanager
    async def held(self, key: K) -> AsyncIterator[None]:
        """Hold the lock of a key while the body of the ``with`` runs."""
        lock = self._locks.setdefault(key, DeferredLock())
        await lock.acquire()
        try:
            yield
        finally:
            lock.release()
            # The one that waited longest may have had the lock by now, and removed it.
            if not lock.locked and self._locks.get(key) is lock:
                del self._locks[key]

    def __len__(self) -> int:
        """Return how many locks are kept."""
        return len(self._locks)
