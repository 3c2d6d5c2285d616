"""The schemes of ``crypt()`` in ``/etc/shadow``, computed by the system's libcrypt."""

from __future__ import annotations

import re

from synapse_login_module.hashes.encodings import CRYPT_DIGITS, groups
from synapse_login_module.hashes.kinds import Hash, Kind, Strength
from synapse_login_module.hashes.libcrypt import crypt, supports

_CHEAP = {
    "$5$": b"$5$rounds=1000$a$",
    "$6$": b"$6$rounds=1000$a$",
    "$y$": b"$y$j75$......$",
    "$gy$": b"$gy$j75$......$",
    "$7$": b"$7$6/..../....salt$",
}
"""A setting for each scheme, to find out whether the library has it."""

_SHA_SECONDS = {"$5$": 5e-7, "$6$": 7e-7}
_SHA_DEFAULT, _SHA_LEAST, _SHA_MOST = 5000, 200_000, 1_000_000
"""The rounds where a hash does not say, those that take as long as OWASP's PBKDF2, and the most.
With the longest password each round takes up to ten times as long as the estimate.
"""

_SHA = re.compile(
    r"(\$[56]\$)(rounds=([1-9][0-9]{3,8})\$)?([./0-9A-Za-z]{1,16})\$([./0-9A-Za-z]{43,86})"
)
_SHA_DIGEST = {"$5$": 43, "$6$": 86}
# One character each of N and r, and nothing else: what mkpasswd and passwd write.
_YESCRYPT = re.compile(
    r"(\$g?y\$)j([./0-9A-Z])([./0-9A-Za-j])\$([./0-9A-Za-z]{2,86})\$[./0-9A-Za-z]{43}"
)
_SCRYPT = re.compile(
    r"(\$7\$)([./0-9A-Za-z])([./0-9A-Za-z]{5})([./0-9A-Za-z]{5})([./0-9A-Za-z]{1,86})\$[./0-9A-Za-z]{43}"
)
_LONGEST = 511
"""The most bytes of a password. More are an error of libxcrypt's."""

_LEAST_N = 1024
_YESCRYPT_SECONDS, _LEAST_WORK = 4e-7, 4096 * 32
"""yescrypt's least work, N·r, is what Debian chose for it."""


def parse_sha(text: str) -> Hash:
    """Parse ``$5$…`` or ``$6$…``: SHA-crypt.

    :raise ValueError: when it is none, or the system has no libcrypt for it.
    """
    match = _SHA.fullmatch(text)
    if match is None or len(match[5]) != _SHA_DIGEST[match[1]]:
        raise ValueError("a hash of crypt's $5$ or $6$ that is cut short or damaged")
    scheme, rounds, salt = match[1], int(match[3] or _SHA_DEFAULT), match[4]
    if rounds > _SHA_MOST:
        raise ValueError(f"a hash of crypt's {scheme} of {rounds} rounds: more than {_SHA_MOST}")
    return _hash(
        text,
        scheme,
        # The password is hashed with the salt, so the salt's length counts for the time.
        (("rounds", rounds), ("salt", len(salt))),
        f"{scheme}{match[2] or ''}{'.' * len(salt)}$",
        Strength.ITERATED,
        _SHA_SECONDS[scheme] * rounds,
        is_weak=rounds < _SHA_LEAST,
    )


def parse_yescrypt(text: str) -> Hash:
    """Parse ``$y$…`` or ``$gy$…``: yescrypt, and the same with GOST's hash function.

    :raise ValueError: when it is none, or the system has no libcrypt for it.
    """
    match = _YESCRYPT.fullmatch(text)
    if match is None:
        raise ValueError("a yescrypt hash that is cut short or damaged, or has rare parameters")
    scheme, n, r, salt = match.groups()
    cost = 2 ** (CRYPT_DIGITS.index(n) + 1), CRYPT_DIGITS.index(r) + 1, 1
    # The library refuses a salt of 4n + 1 digits: one digit is less than a byte.
    stand_in = f"{scheme}j{n}{r}${'.' * (len(salt) - (len(salt) % 4 == 1))}$"
    return _memory_hard(text, scheme, cost, stand_in, _YESCRYPT_SECONDS)


def parse_scrypt(text: str) -> Hash:
    """Parse ``$7$…``: scrypt as libxcrypt writes it.

    :raise ValueError: when it is none, or the system has no libcrypt for it.
    """
    scheme, n, r, p, salt = groups(_SCRYPT, text, "a hash of crypt's $7$")
    cost = 2 ** CRYPT_DIGITS.index(n), _number(r), _number(p)
    stand_in = f"{scheme}{n}{r}{p}{'.' * len(salt)}$"
    return _memory_hard(text, scheme, cost, stand_in, _YESCRYPT_SECONDS)


def _memory_hard(
    text: str, scheme: str, cost: tuple[int, int, int], stand_in: str, seconds: float
) -> Hash:
    n, r, p = cost
    if n < _LEAST_N or r < 1 or p < 1:
        raise ValueError(f"a hash of crypt's {scheme} with parameters that no libcrypt makes")
    return _hash(
        text,
        scheme,
        (("N", n), ("r", r), *((("p", p),) if p > 1 else ())),
        stand_in,
        Strength.MEMORY_HARD,
        seconds * n * r * p,
        128 * r * (n + p),
        is_weak=n * r * p < _LEAST_WORK,
    )


def _hash(
    text: str,
    scheme: str,
    parameters: tuple[tuple[str, int], ...],
    stand_in: str,
    strength: Strength,
    seconds: float,
    memory: int = 0,
    is_weak: bool = False,
) -> Hash:
    """Make a hash. What a kind calls its salt is the whole setting here.

    :param stand_in: a setting with the same parameters and another salt.
    """
    if not supports(_CHEAP[scheme]):
        raise ValueError(f"a hash of crypt's {scheme}, which this system's libcrypt does not make")
    other = stand_in.encode("ascii")

    def digest(password: bytes, setting: bytes) -> bytes:
        fits = len(password) <= _LONGEST and b"\0" not in password
        given = password.replace(b"\0", b"?")[:_LONGEST]
        made = crypt(given, setting)
        # If the library refuses the salt, it does so at once. It does not refuse the other one.
        if not made and not crypt(given, other):
            raise MemoryError
        return made if fits else b""

    kind = Kind(
        f"crypt {scheme}",
        parameters,
        digest,
        other,
        strength,
        seconds,
        memory,
        is_weak=is_weak,
    )
    return Hash(kind, text.encode("ascii"), text.encode("ascii"))


def _number(digits: str) -> int:
    """Return a number of crypt's base64, whose first digit is the lowest."""
    return sum(CRYPT_DIGITS.index(digit) << 6 * place for place, digit in enumerate(digits))
