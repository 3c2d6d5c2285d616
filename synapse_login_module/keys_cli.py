"""The commands for the keys of tokens: what they do, and what they print.

A key is added in two steps, so that every server knows it before one signs with it: where a file
is copied too late, or not at all, nothing was signed with a key that is missing somewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from synapse_login_module.tokens import keyfile


def rotate(path: Path, random: Callable[[int], bytes], now: bool) -> str:
    """Add a key to the file.

    :param now: whether it signs at once, which is for one server alone.
    :return: what to print.
    """
    key_id = keyfile.rotate(path, random, now=now)
    if now:
        return f"key {key_id} added to {path}, and signs from the next login on"
    return (
        f"key {key_id} added to {path}; it signs nothing yet. Copy the file to every machine that"
        " shares the sessions, and run activate-key on each"
    )


def activate(path: Path) -> str:
    """Have the newest key sign; what to print."""
    return f"key {keyfile.activate(path)} of {path} signs from the next login on"
