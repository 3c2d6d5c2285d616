"""Token buckets that several processes of one machine share.

They lie in a table of fixed size in a file without a name, that a parent makes and its children
inherit and map into their memory. An entry is 16 bytes: a tag that tells the bucket from others,
and the moment when it will be full (``gcra.py``). Both are 8 bytes and aligned, so that the
processor reads and writes each of them whole. The tag of an empty entry is 0.

A bucket's place is a set of eight, found by a keyed hash, which no client can foresee. The entries
of a set stand in the order in which they were written, the newest first; when the set is full, the
last makes room. A set is locked for the microseconds that a change takes, by a lock that the system
takes back from a process that dies.

Who only asks whether an entry is there takes no lock, and may miss one that is being moved just
then. The lock is not waited for without end; without it, a moment may get a neighbour's tag. Then
attempts are counted wrongly, by one bucket's capacity at most: one that refuses is never emptier
than empty.
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
"""Words: the tag and the moment."""

_WAYS = 8
_SETS = 1 << 14
_SET = _WAYS * _ENTRY
_LOCK_TIMEOUT = 0.02
"""Seconds: several turns of the scheduler, for whoever holds a lock to come to its turn."""


def make_table(sets: int = _SETS, random: Callable[[int], bytes] = os.urandom) -> IO[bytes]:
    """Make the file of a table in which every bucket is full."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's to close
    # Written, not merely made longer: a full disk is to be noticed now.
    file.write(random(_SECRET) + bytes(sets * _SET * _WORD))
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
        table = memoryview(mmap.mmap(descriptor, 0))
        self._secret = bytes(table[:_SECRET])
        self._tags, self._moments = table[_SECRET:].cast("Q"), table[_SECRET:].cast("d")
        sets = len(self._tags) // _SET
        kept = sets // 4
        self._first, self._sets = (0, kept) if name == KNOWN_NETWORKS else (kept, sets - kept)

    @contextmanager
    def locked(self, key: Hashable) -> Iterator[None]:
        """Lock the set of a bucket.

        The process that has it is done in no time, unless it was stopped just then. So it is not
        waited for without end.
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
        """Read a moment."""
        at = self._find(*self._place(key))
        return None if at is None else self._moments[at + 1]

    def set(self, key: Hashable, moment: float) -> None:
        """Write a moment, as the newest of its set."""
        start, tag = self._place(key)
        at = self._find(start, tag)
        if at is None:
            at = self._find(start, 0)
        if at is None:
            at = start + _SET - _ENTRY
        if at > start:  # those that were newer move on by one
            self._tags[start + _ENTRY : at + _ENTRY] = self._tags[start:at]
            self._tags[start] = 0
        self._moments[start + 1] = moment
        self._tags[start] = tag

    def delete(self, key: Hashable) -> None:
        """Drop a moment."""
        at = self._find(*self._place(key))
        if at is not None:
            self._tags[at] = 0

    def _find(self, start: int, tag: int) -> int | None:
        """Where the entry with a tag is, in words."""
        tags = self._tags[start : start + _SET : _ENTRY].tolist()
        return start + tags.index(tag) * _ENTRY if tag in tags else None

    def _place(self, key: Hashable) -> tuple[int, int]:
        """Where the set of a bucket begins, in words, and the bucket's tag."""
        data = self._name + b" " + repr(key).encode()
        digest = blake2b(data, key=self._secret, digest_size=16).digest()
        number, tag = struct.unpack("=QQ", digest)
        return (self._first + number % self._sets) * _SET, tag or 1
