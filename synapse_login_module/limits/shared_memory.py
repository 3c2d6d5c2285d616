"""Token buckets that several processes of one machine share.

The buckets are in a table of fixed size. The table is a file without a name, which a parent makes
and its children inherit and map into memory. An entry is 16 bytes: a tag that identifies the
bucket, and the moment when the bucket will be full (``gcra.py``). Both are 8 bytes and aligned, so
that the processor reads and writes each of them whole. The tag of an empty entry is 0.

A bucket belongs to a set of eight entries. A keyed hash chooses the set, so no client can predict
it. The entries of a set are ordered by the time of their last write, the newest first; when the set
is full, the last one is evicted. A set is locked for the microseconds that a change takes. The
system releases the lock of a process that dies.

A reader that only asks whether an entry is there takes no lock. It may miss an entry that is being
moved at that moment. A writer waits for the lock for a limited time, and then writes without it. In
that case a moment may get the tag of its neighbour, and attempts are counted wrongly, by one
bucket's capacity at most: a bucket that refuses is never emptier than empty.
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

from synapse_login_module.limits.token_bucket import KNOWN_NETWORKS

_SECRET = 32
_WORD = 8
_ENTRY = 2
"""The words of an entry: the tag and the moment."""

_WAYS = 8
_SETS = 1 << 14
_SET = _WAYS * _ENTRY
_LOCK_TIMEOUT = 0.02
"""Seconds to wait for a lock: several time slices, so that the process that holds it can run."""


def make_table(sets: int = _SETS, random: Callable[[int], bytes] = os.urandom) -> IO[bytes]:
    """Create the file of a table in which every bucket is full.

    :param sets: the number of sets.
    :param random: returns a given number of random bytes.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    # The zeros are written, so that a full disk is noticed now.
    file.write(random(_SECRET) + bytes(sets * _SET * _WORD))
    file.flush()
    return file


class SharedBuckets:
    """Buckets in a table; see :class:`~synapse_login_module.limits.token_bucket.Buckets`.

    A quarter of the sets is reserved for :data:`KNOWN_NETWORKS`, so that attempts cannot evict
    them.

    :param descriptor: the file of the table, which stays open.
    :param name: the name of the limit, whose buckets are kept apart from those of others.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name.encode()
        table = memoryview(mmap.mmap(descriptor, 0))
        self._secret = bytes(table[:_SECRET])
        self._tags, self._moments = table[_SECRET:].cast("Q"), table[_SECRET:].cast("d")
        sets = len(self._tags) // _SET
        kept = sets // 4
        self._first, self._sets = (0, kept) if name == KNOWN_NETWORKS else (kept, sets - kept)

    @contextmanager
    def locked(self, key: Hashable) -> Iterator[None]:
        """Lock the set of a bucket, or go on without the lock after a timeout.

        The process that holds the lock releases it within microseconds, unless it is stopped.
        """
        start, size = _SECRET + self._place(key)[0] * _WORD, _SET * _WORD
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

    def get(self, key: Hashable) -> float | None:
        """Read the moment of a bucket."""
        at = self._find(*self._place(key))
        return None if at is None else self._moments[at + 1]

    def set(self, key: Hashable, moment: float) -> None:
        """Write the moment of a bucket, as the newest entry of its set."""
        start, tag = self._place(key)
        at = self._find(start, tag)
        if at is None:
            at = self._find(start, 0)
        if at is None:
            at = start + _SET - _ENTRY
        if at > start:  # newer entries move back by one
            self._tags[start + _ENTRY : at + _ENTRY] = self._tags[start:at]
            self._tags[start] = 0
        self._moments[start + 1] = moment
        self._tags[start] = tag

    def delete(self, key: Hashable) -> None:
        """Delete the moment of a bucket."""
        at = self._find(*self._place(key))
        if at is not None:
            self._tags[at] = 0

    def _find(self, start: int, tag: int) -> int | None:
        """Find the entry with a tag; return its position in words, or ``None``."""
        tags = self._tags[start : start + _SET : _ENTRY].tolist()
        return start + tags.index(tag) * _ENTRY if tag in tags else None

    def _place(self, key: Hashable) -> tuple[int, int]:
        """Return the position of a bucket's set, in words, and the bucket's tag."""
        data = self._name + b" " + repr(key).encode()
        digest = blake2b(data, key=self._secret, digest_size=16).digest()
        number, tag = struct.unpack("=QQ", digest)
        return (self._first + number % self._sets) * _SET, tag or 1
