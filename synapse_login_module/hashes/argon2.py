"""Argon2id and Argon2i (RFC 9106), which need ``pip install 'synapse-login-module[argon2]'``."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from functools import cache
from typing import Any

from synapse_login_module.hashes.encodings import from_base64, from_hex, groups
from synapse_login_module.hashes.kinds import Hash, Kind, NewHashes, Strength

LEAST_WORK = 7168 * 5
"""KiB of memory times passes. This is the least of the choices that OWASP's Password Storage Cheat
Sheet gives."""

_SECONDS = 1.1e-6
_LANE_SECONDS = 2e-4
"""Of the threads of one lane, which are started four times in each pass."""

_MOST_LANES = 16
"""Each lane is a thread while a hash is computed."""

_SALT_BYTES, _DIGEST_BYTES = 16, 32
_HASH = re.compile(
    r"\$argon2(id|i)\$(?:v=(16|19)\$)?m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,7})"
    r"\$([A-Za-z0-9+/]{11,88})\$([A-Za-z0-9+/]{22,172})"
)
_GITEA = re.compile(
    r"argon2\$([1-9][0-9]{0,9})\$([1-9][0-9]{0,9})\$([1-9][0-9]{0,7})\$[0-9]{1,3}"
    r"\$([0-9a-f]{16,128})\$([0-9a-f]{32,256})"
)


def parse(text: str) -> Hash:
    """Parse a hash of the form that the reference implementation gave it.

    :raise ValueError: when it is none, or argon2-cffi is not installed.
    """
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("an Argon2 hash that is cut short or damaged, or of another variant")
    variant, version, memory, passes, lanes, salt, digest = match.groups()
    return make_hash(
        variant,
        int(version or 16),
        (int(memory), int(passes), int(lanes)),
        from_base64(salt),
        from_base64(digest),
    )


def parse_gitea(text: str) -> Hash:
    """Parse Gitea's columns ``passwd_hash_algo``, ``salt`` and ``passwd``, joined by ``$``.

    :raise ValueError: when it is none, or argon2-cffi is not installed.
    """
    what = "an Argon2 hash of Gitea's"
    passes, memory, lanes, salt, digest = groups(_GITEA, text, what)
    costs = int(memory), int(passes), int(lanes)
    return make_hash("id", 19, costs, from_hex(salt), from_hex(digest))


def new_hashes(memory: int, passes: int, lanes: int) -> NewHashes:
    """Make Argon2id hashes.

    :param memory: in KiB.
    :raise ValueError: when the parameters do not fit, or argon2-cffi is not installed.
    """
    kind = _kind("id", 19, (memory, passes, lanes), _SALT_BYTES, _DIGEST_BYTES)

    def make(password: bytes) -> str:
        salt = os.urandom(_SALT_BYTES)
        parts = (salt, kind.digest(password, salt))
        written = "$".join(b64encode(each).decode("ascii").rstrip("=") for each in parts)
        return f"$argon2id$v=19$m={memory},t={passes},p={lanes}${written}"

    return NewHashes(kind, make)


def make_hash(
    variant: str, version: int, costs: tuple[int, int, int], salt: bytes, digest: bytes
) -> Hash:
    """Make a hash of its parts.

    :param variant: ``id`` or ``i``.
    :param costs: KiB of memory, passes, and lanes.
    :raise ValueError: when the parts do not fit, or argon2-cffi is not installed.
    """
    return Hash(_kind(variant, version, costs, len(salt), len(digest)), salt, digest)


def _kind(
    variant: str, version: int, costs: tuple[int, int, int], salt_bytes: int, digest_bytes: int
) -> Kind:
    memory, passes, lanes = costs
    fits = 1 <= lanes <= _MOST_LANES and 8 * lanes <= memory < 2**32 and 1 <= passes < 2**32
    if not fits or salt_bytes < 8 or digest_bytes < 16:
        raise ValueError("an Argon2 hash whose parameters do not fit")
    low_level = _low_level()
    kind = {"id": low_level.Type.ID, "i": low_level.Type.I}[variant]

    def digest(password: bytes, salt: bytes) -> bytes:
        try:
            made = low_level.hash_secret_raw(
                password, salt, passes, memory, lanes, digest_bytes, kind, version
            )
        except low_level.HashingError:  # the parameters fit, so memory or threads are missing
            raise MemoryError from None
        return bytes(made)

    return Kind(
        f"argon2{variant}",
        (("m", memory), ("t", passes), ("p", lanes), *((("v", 16),) if version == 16 else ())),
        digest,
        bytes(salt_bytes),
        Strength.MEMORY_HARD,
        _SECONDS * memory * passes + (_LANE_SECONDS * passes * lanes if lanes > 1 else 0.0),
        memory * 1024,
        is_weak=memory * passes < LEAST_WORK,
    )


@cache
def _low_level() -> Any:
    try:
        from argon2 import low_level
    except ImportError:
        raise ValueError(
            "an Argon2 hash, which needs pip install 'synapse-login-module[argon2]'"
        ) from None
    return low_level
