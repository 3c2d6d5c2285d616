"""Many rounds of MD5 or SHA-512, as PHP programs do them: phpass, and Drupal 7 and later."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from synapse_login_module.hashes.bcrypt import trimmed_as_php
from synapse_login_module.hashes.encodings import CRYPT_DIGITS
from synapse_login_module.hashes.kinds import Hash, Kind, Strength

_HASH = re.compile(r"(U?)\$([PHS])\$([./0-9A-S])([./0-9A-Za-z]{8})([./0-9A-Za-z]{22,86})")
_DIGEST_DIGITS = {"P": 22, "H": 22, "S": 43}
"""The length of the digest as text. Drupal cuts its hash at 55 characters."""

_LONGEST = {"P": 4096, "H": 4096, "S": 512}
_SECONDS = {"P": 6e-7, "H": 6e-7, "S": 9e-7}
_MOST_ROUNDS = {"P": 18, "H": 18, "S": 20}
"""Logarithms. Each round hashes the password too, so that the longest one takes up to fifteen times
as long as the estimate. And short ones hold the interpreter lock most of the time."""


def parse(text: str) -> Hash:
    """Parse ``$P$…``, ``$H$…`` or ``$S$…``, also with a ``U`` before it.

    Drupal puts the ``U`` before hashes that it made of MD5 sums, for accounts of older versions.

    :raise ValueError: when it is none.
    """
    match = _HASH.fullmatch(text)
    if match is None or len(match[5]) != _DIGEST_DIGITS[match[2]]:
        raise ValueError("a phpass hash that is cut short or damaged")
    of_md5, variant, count, salt, digest = match.groups()
    rounds = CRYPT_DIGITS.index(count)
    most = _MOST_ROUNDS[variant]
    if rounds > most:
        raise ValueError(f"a phpass hash of 2^{rounds} rounds: more than 2^{most}")
    kind = Kind(
        f"phpass {of_md5}${variant}$",
        (("rounds", 2**rounds),),
        _digest(bool(of_md5), variant, rounds),
        b"." * 8,
        Strength.ITERATED,
        _SECONDS[variant] * 2**rounds,
        is_weak=True,
    )
    return Hash(kind, salt.encode("ascii"), digest.encode("ascii"))


def _digest(of_md5: bool, variant: str, rounds: int) -> Callable[[bytes, bytes], bytes]:
    function = hashlib.sha512 if variant == "S" else hashlib.md5
    longest, length = _LONGEST[variant], _DIGEST_DIGITS[variant]

    def digest(password: bytes, salt: bytes) -> bytes:
        if of_md5:
            given = hashlib.md5(password, usedforsecurity=False).hexdigest().encode("ascii")
        elif variant == "P":
            given = trimmed_as_php(password)
        elif variant == "H":
            given = _escaped(trimmed_as_php(password))
        else:
            given = password
        fits, given = 0 < len(given) <= longest, given[:longest]
        state = function(salt + given, usedforsecurity=False).digest()
        for _ in range(2**rounds):
            state = function(state + given, usedforsecurity=False).digest()
        return _encode(state)[:length] if fits else b""

    return digest


def _escaped(password: bytes) -> bytes:
    """Escape a password as HTML, which phpBB does with all that it is sent."""
    for character, entity in (b"&", b"&amp;"), (b"<", b"&lt;"), (b">", b"&gt;"), (b'"', b"&quot;"):
        password = password.replace(character, entity)
    return password


def _encode(raw: bytes) -> bytes:
    """Write bytes as phpass does: three bytes are four digits, the lowest first."""
    written = []
    for start in range(0, len(raw), 3):
        part = raw[start : start + 3]
        number = int.from_bytes(part, "little")
        written += [CRYPT_DIGITS[number >> 6 * place & 63] for place in range(len(part) + 1)]
    return "".join(written).encode("ascii")
