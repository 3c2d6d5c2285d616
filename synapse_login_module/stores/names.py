"""Numbers for new rows, and identifiers for devices of clients that did not send one."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable

Random = Callable[[int], bytes]
"""Returns the given number of random bytes."""

_DEVICE_ID_LENGTH = 10


def free_id(random: Random, now: int, drawn: list[int], is_free: Callable[[int], bool]) -> int:
    """Draw a number for a new row. Numbers grow with time, so that new rows lie together on disk.

    The low 31 bits are random, so that the numbers do not reveal how many logins there were.

    :param now: milliseconds since the epoch.
    :param drawn: the numbers drawn so far, to which new ones are appended. They are tried first, so
        that work that is run again draws the same number.
    :param is_free: returns whether no row has a number.
    """
    for index in itertools.count():
        if index == len(drawn):
            noise = int.from_bytes(random(4), "big") >> 1
            drawn.append((now // 1000 & 0xFFFFFFFF) << 31 | noise)
        if drawn[index] and is_free(drawn[index]):
            break
    return drawn[index]


def new_device_id(random: Random) -> str:
    """Make a device ID of ten capital letters."""
    letters = string.ascii_uppercase
    # 256 is not a multiple of 26. A slight bias is harmless, because device IDs are not secret.
    return "".join(letters[byte % 26] for byte in random(_DEVICE_ID_LENGTH))
