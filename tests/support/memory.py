"""How much memory a process has."""

from __future__ import annotations

from pathlib import Path


def resident(pid: int) -> int:
    """What of it is resident, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
