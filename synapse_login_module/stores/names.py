"""Numbers for new rows, and names for devices that a client has not named."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable

Random = Callable[[int], bytes]
"""Makes that many random bytes."""

_DEVICE_ID_LENGTH = 10


def free_id(random: Random, now: int, drawn: list[int], is_free: Callable[[int], bool]) -> int:
    """A number for a new row that grows with time, so that new rows lie together on disk.

    Its low 31 bits are random: nobody can count logins by it.

    :param now: milliseconds since the epoch.
    :param drawn: the numbers that were drawn; they come first when the work is done again.
    :param is_free: says whether no row has a number.
    """
    for index in itertools.count():
        if index == len(drawn):
            noise = int.from_bytes(random(4), "big") >> 1
            drawn.append((now // 1000 & 0xFFFFFFFF) << 31 | noise)
        if drawn[index] and is_free(drawn[index]):
            break
    return drawn[index]


def new_device_id(random: Random) -> str:
    """A name for a device: ten capital letters."""
    letters = string.ascii_uppercase
    # 256 is no multiple of 26: a little bias is harmless in a name that is no secret.
    return "".join(letters[byte % 26] for byte in random(_DEVICE_ID_LENGTH))
