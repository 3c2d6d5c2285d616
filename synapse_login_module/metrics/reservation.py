"""How much room the files of one worker's metrics take at most, and reserving it.

``prometheus_client`` maps its files into memory, and makes them with holes. A write to a hole on a
full disk ends the process with SIGBUS. So the parent reserves the room before it starts a worker,
and a worker for which there is none keeps no metrics.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from synapse_login_module.metrics.definitions import ALL, Definition, Kind
from synapse_login_module.metrics.recording import LONGEST_VALUE, MAX_SERIES

_LONGEST_BOUND = "x" * 24
_HEADER = 8
_BESIDE_KEY = 4 + 8 + 16
"""The length of a key, its padding, and a value with its time."""


@cache
def room_of_files() -> Mapping[str, int]:
    """Return the bytes that each of a worker's files takes at most, by the first part of its name.

    These are the names and the format of ``prometheus_client``.
    """
    room: dict[str, int] = {}
    for each in ALL:
        file = each.kind.value
        if each.kind is Kind.GAUGE:
            file += f"_{each.multiprocess_mode}"
        room[file] = room.get(file, _HEADER) + _room_of(each)
    return room


def _room_of(definition: Definition) -> int:
    labels = dict.fromkeys(definition.labels, "x" * LONGEST_VALUE)
    name, values = definition.name, 1
    if definition.kind is Kind.HISTOGRAM:
        labels["le"] = _LONGEST_BOUND
        name, values = f"{name}_bucket", len(definition.buckets) + 2  # infinity, and the sum
    key = json.dumps([definition.name, name, labels, definition.help])
    series = MAX_SERIES + 1 if definition.labels else 1
    return series * values * (len(key) + _BESIDE_KEY)


def reserve(folder: Path, slot: str) -> None:
    """Make the files of a worker, with all the room that they may take.

    Files that exist already keep their content.

    :param slot: see :func:`~synapse_login_module.metrics.prometheus.metrics_of_worker`.
    :raise OSError: when there is not enough room. No empty file is left then, since
        ``prometheus_client`` cannot read one.
    """
    for kind, size in room_of_files().items():
        path = folder / f"{kind}_{slot}.db"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            if not os.fstat(file).st_size:
                path.unlink()
            raise
        finally:
            os.close(file)
