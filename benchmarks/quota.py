"""Holds processes to a share of a core each, by Linux's control groups.

A process that is held runs for its share of every period and stands still for the rest. Source:
"CFS Bandwidth Control" and "Control Group v2" in the documentation of Linux.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PERIOD = 10_000
"""Microseconds. The kernel stops a process only at its clock's ticks, of which some are 4000 apart;
what one has run too long is taken off its next periods.
"""

_MOUNTED = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Hierarchy:
    """Where groups with a limit of processor time can be made.

    :param root: the folder.
    :param line: how a line about it begins in ``/proc/PID/cgroup``, after its number.
    :param limits: the files that take the limit, and what is written into each.
    """

    root: Path
    line: str
    limits: dict[str, str]


_FIRST = _Hierarchy(
    _MOUNTED / "cpu",
    "cpu",
    {"cpu.cfs_period_us": "{period}", "cpu.cfs_quota_us": "{quota}"},
)
_SECOND = _Hierarchy(_MOUNTED, "", {"cpu.max": "{quota} {period}"})


@contextmanager
def held(processes: Sequence[int], share: float) -> Iterator[None]:
    """Hold processes to a share of a core each, for as long as a ``with`` statement lasts.

    :param processes: their ids; what they start later is not held.
    :param share: more than 0.
    :raise OSError: when there are no such groups, or this user cannot make any.
    """
    hierarchy = _FIRST if (_FIRST.root / "cpu.cfs_quota_us").exists() else _SECOND
    made: list[tuple[int, Path, Path]] = []
    try:
        for process in processes:
            group = hierarchy.root / f"benchmarks-{os.getpid()}-{process}"
            before = _group_of(hierarchy, process)
            group.mkdir()
            made.append((process, before, group))
            for name, text in hierarchy.limits.items():
                limit = text.format(period=_PERIOD, quota=round(share * _PERIOD))
                (group / name).write_text(limit)
            (group / "cgroup.procs").write_text(str(process))
        yield
    finally:
        for process, before, group in made:
            with suppress(ProcessLookupError):
                (before / "cgroup.procs").write_text(str(process))
            group.rmdir()


def can_hold() -> bool:
    """Return whether this user can hold processes on this machine; it tries with this one."""
    try:
        with held([os.getpid()], 1.0):
            return True
    except OSError:
        return False


def _group_of(hierarchy: _Hierarchy, process: int) -> Path:
    """Return the folder of the group that a process is in."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if hierarchy.line in controllers.split(","):
            return hierarchy.root / path.lstrip("/")
    raise FileNotFoundError(f"process {process} is in no group of {hierarchy.root}")
