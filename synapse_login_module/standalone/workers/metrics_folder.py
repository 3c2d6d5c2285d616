"""The folder in which workers keep their metrics, so that each of them can show those of all.

``prometheus_client`` keeps the values of a process in files that are named for it. A counter has to
outlive the process that counted, so these files stay. Here they are named for a slot. A slot is
free again when its process has ended, and its next process continues its counters. So there are
never more files than there were processes at once.

Whatever happens to the folder, workers start and end as without it. What cannot be written here is
logged, and is missing from the page.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from synapse_login_module.common.repeats import OncePerPeriod
from synapse_login_module.metrics.page import PROCESSES
from synapse_login_module.metrics.prometheus import drop_gauges, is_installed
from synapse_login_module.metrics.reservation import reserve

_RUNTIME_VARIABLE = "RUNTIME_DIRECTORY"
_PREFIX = "synapse-login-metrics-"
_LOCK = "lock"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 (its folders are made with mkdtemp)
_UNLOCKED_FOR = 3600.0
"""Seconds after which a folder without a lock is taken for one that a server left."""


class MetricsFolder:
    """A private folder, which is removed with the server.

    What a server left that was killed is removed by the next one. It is made out by a lock, which
    ends with the process that holds it.

    :param place: where the folder is made; by default in the service's runtime folder, or in
        memory, if the system offers that.
    """

    log = Logger()

    def __init__(self, place: Path | None = None) -> None:
        place = place or _place()
        _remove_left_behind(place)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        # Locked before it has its name, so that another server never finds it free.
        fresh = self.path / f"{_LOCK}.new"
        self._lock: int | None = os.open(fresh, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fresh.rename(self.path / _LOCK)
        self._slots: dict[int, str] = {}
        self._processes: dict[str, int] = {"0": os.getpid()}
        self._warns_of_slots = OncePerPeriod(time.monotonic)
        self._warns_of_processes = OncePerPeriod(time.monotonic)
        self._write()

    @property
    def is_there(self) -> bool:
        """Whether no other program has removed the folder."""
        return self.path.is_dir()

    def take_slot(self, number: int) -> int | None:
        """Take a slot that no process has, and reserve the room for its files.

        :param number: which worker it is for.
        :return: ``None`` when there is no room. Then the worker keeps no metrics.
        """
        slot = next(each for each in range(1, len(self._slots) + 2) if each not in self._slots)
        try:
            reserve(self.path, str(slot))
        except OSError as error:
            if self._warns_of_slots.is_written():
                self.log.warn(
                    "worker {number} keeps no metrics: {error}", number=number, error=error
                )
            return None
        self._slots[slot] = str(number)
        return slot

    def started(self, slot: int, pid: int | None) -> None:
        """Note the process of a slot that was taken.

        :param pid: its process id; ``None`` if it could not be started.
        """
        if pid is not None:
            self._processes[self._slots[slot]] = pid
            self._note()

    def ended(self, slot: int, pid: int | None) -> None:
        """Free a slot: the counters of its process stay, its gauges go."""
        number = self._slots.pop(slot)
        with suppress(OSError):
            drop_gauges(self.path, str(slot))
        if pid is not None and self._processes.get(number) == pid:
            del self._processes[number]
            self._note()

    def remove(self) -> None:
        """Remove the folder, if it is still there."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        shutil.rmtree(self.path, ignore_errors=True)

    def _note(self) -> None:
        try:
            self._write()
        except OSError as error:
            if self._warns_of_processes.is_written():
                self.log.warn("the metrics of processes are out of date: {error}", error=error)

    def _write(self) -> None:
        fresh = self.path / f"{PROCESSES}.new"
        fresh.write_text(json.dumps(self._processes))
        fresh.replace(self.path / PROCESSES)


def folder_for(shows_metrics: bool, before: MetricsFolder | None) -> MetricsFolder | None:
    """Return the folder for workers that are about to start, if they can keep metrics.

    :param shows_metrics: whether there is a listener that shows them.
    :param before: the folder of the workers before them. It is used again if it is still there.
    """
    if not shows_metrics or not is_installed():
        return None
    if before is not None:
        if before.is_there:
            return before
        before.remove()
    try:
        return MetricsFolder()
    except OSError as error:
        MetricsFolder.log.warn("the workers keep no metrics: {error}", error=error)
        return None


def _place() -> Path:
    # systemd gives several names, separated by colons. Its RemoveIPC= spares this folder.
    runtime = os.environ.get(_RUNTIME_VARIABLE, "").split(":")[0]
    for place in (*([Path(runtime)] if runtime else []), _IN_MEMORY):
        if os.access(place, os.W_OK | os.X_OK):
            return place
    return Path(tempfile.gettempdir())


def _remove_left_behind(place: Path) -> None:
    """Remove the folders of this user's servers that have died."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or removed by another server meanwhile
            if folder.lstat().st_uid != os.geteuid():
                continue
            try:
                lock = os.open(folder / _LOCK, os.O_RDWR)
            except FileNotFoundError:  # the server died, or begins right now
                if time.time() - folder.lstat().st_mtime > _UNLOCKED_FOR:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
