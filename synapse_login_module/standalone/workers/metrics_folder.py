"""The folder in which workers keep their metrics, so that each of them can show those of all.

``prometheus_client`` keeps the values of a process in files that are named for it. A counter has to
outlive the process that counted, so these files stay. Here they are named for a slot. A slot is
free again when its process has ended, and its next process continues its counters. So there are
never more files than there were processes at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from synapse_login_module.metrics.page import PROCESSES
from synapse_login_module.metrics.prometheus import drop_gauges

_PREFIX = "synapse-login-metrics-"
_LOCK = "lock"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 (its folders are made with mkdtemp)


class MetricsFolder:
    """A private folder, which is removed with the server.

    What a server left that was killed is removed by the next one. It is made out by a lock, which
    ends with the process that holds it.

    :param place: where the folder is made; by default in memory, if the system offers that.
    """

    def __init__(self, place: Path | None = None) -> None:
        place = place or _place()
        _remove_left_behind(place)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        # Locked before it has its name, so that another server never finds it free.
        fresh = self.path / f"{_LOCK}.new"
        self._lock = os.open(fresh, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fresh.rename(self.path / _LOCK)
        self._slots: dict[int, str] = {}
        self._processes: dict[str, int] = {"0": os.getpid()}
        self._write()

    def take_slot(self) -> int:
        """Return a slot that no process has."""
        return next(slot for slot in range(1, len(self._slots) + 2) if slot not in self._slots)

    def started(self, slot: int, number: int, pid: int | None) -> None:
        """Note the process of a slot.

        :param number: which worker it is.
        :param pid: its process id; ``None`` if it could not be started.
        """
        self._slots[slot] = str(number)
        if pid is not None:
            self._processes[str(number)] = pid
            self._write()

    def ended(self, slot: int, pid: int | None) -> None:
        """Free a slot: the counters of its process stay, its gauges go."""
        number = self._slots.pop(slot)
        with suppress(OSError):
            drop_gauges(self.path, str(slot))
        if self._processes.get(number) == pid:
            del self._processes[number]
            self._write()

    def remove(self) -> None:
        """Remove the folder."""
        os.close(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self) -> None:
        fresh = self.path / f"{PROCESSES}.new"
        fresh.write_text(json.dumps(self._processes))
        fresh.replace(self.path / PROCESSES)


def _place() -> Path:
    return _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _remove_left_behind(place: Path) -> None:
    """Remove the folders of this user's servers that have died."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or removed by another server meanwhile
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
