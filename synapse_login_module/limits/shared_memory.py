"""Token buckets that several processes of one machine share.

They lie in a table of fixed size in a file without a name, that a parent makes and its children
inherit and map into their memory. A bucket's place is a set of eight, found by a keyed hash, which
no client can foresee; when the set is full, the bucket left alone for longest makes room. A set is
locked for the microseconds that a change takes, by a lock that the system takes back from a process
that dies.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import IO

from synapse_login_module.limits.token_bucket import KNOWN_NETWORKS, Level

_SECRET = 32
_ENTRY = struct.Struct("=Qdd")
_WAYS = 8
_SETS = 1 << 14
_LOCK_TIMEOUT = 0.02
"""Seconds: several turns of the scheduler, for whoever holds a lock to come to its turn."""


def make_table(sets: int = _SETS, random: Callable[[int], bytes] = os.urandom) -> IO[bytes]:
    """Make the file of a table in which every bucket is full."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's to close
    # Written, not merely made longer: a full disk is to be noticed now.
    file.write(random(_SECRET) + bytes(sets * _WAYS * _ENTRY.size))
    file.flush()
    return file


class SharedBuckets:
    """Buckets in a table; see :class:`~synapse_login_module.limits.token_bucket.Buckets`.

    :param descriptor: the table's file, which stays open.
    :param name: keeps the buckets of one limit apart from those of others.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name.encode()
        self._table = mmap.mmap(descriptor, 0)
        self._secret = self._table[:_SECRET]
        sets = (len(self._table) - _SECRET) // (_WAYS * _ENTRY.size)
        kept = sets // 4
        self._first, self._sets = (0, kept) if name == KNOWN_NETWORKS else (kept, sets - kept)

    @contextmanager
    def held(self, key: Hashable) -> Iterator[None]:
        """Lock the set of a bucket.

        Whoever has it is done in no time, unless it was stopped just then. It is not waited for
        without end: what can go wrong without the lock is one attempt counted wrongly.
        """
        start, size = self._place(key)[0], _WAYS * _ENTRY.size
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while not self._lock(size, start) and time.monotonic() < deadline:
            os.sched_yield()
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, size, start)

    def _lock(self, size: int, start: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, size, start)
        except OSError:
            return False
        return True

    def get(self, key: Hashable) -> Level | None:
        """Read a bucket."""
        found = self._find(key)
        return found and found[1]

    def put(self, key: Hashable, level: Level) -> None:
        """Write a bucket, if need be in the place of the one left alone for longest."""
        start, tag = self._place(key)
        found = self._find(key)
        offset = found[0] if found else min(self._entries(start), key=lambda entry: entry[3])[0]
        _ENTRY.pack_into(self._table, offset, tag, *level)

    def forget(self, key: Hashable) -> None:
        """Make a bucket full again."""
        found = self._find(key)
        if found is not None:
            _ENTRY.pack_into(self._table, found[0], 0, 0.0, 0.0)

    def _find(self, key: Hashable) -> tuple[int, Level] | None:
        start, tag = self._place(key)
        for offset, owner, level, since in self._entries(start):
            if owner == tag:
                return offset, (level, since)
        return None

    def _entries(self, start: int) -> Iterator[tuple[int, int, float, float]]:
        for offset in range(start, start + _WAYS * _ENTRY.size, _ENTRY.size):
            yield offset, *_ENTRY.unpack_from(self._table, offset)

    def _place(self, key: Hashable) -> tuple[int, int]:
        """Where the set of a bucket begins, and what tells the bucket from others in it."""
        data = self._name + b" " + repr(key).encode()
        digest = blake2b(data, key=self._secret, digest_size=16).digest()
        number, tag = struct.unpack("=QQ", digest)
        place = self._first + number % self._sets
        return _SECRET + place * _WAYS * _ENTRY.size, tag or 1
