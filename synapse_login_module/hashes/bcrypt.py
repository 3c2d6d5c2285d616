"""bcrypt, bare or of a password that was hashed before."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from functools import cache

import bcrypt

from synapse_login_module.hashes.encodings import groups
from synapse_login_module.hashes.kinds import Hash, Kind, NewHashes, Strength

LEAST_COST = 10
"""OWASP's Password Storage Cheat Sheet asks for this cost or more."""

MOST_COST = 16
"""The highest cost within the limit of time."""

_BYTES = 72
_SECONDS = 5.5e-5
_SALT = b"." * 22
# The salt is 21 characters and one that holds two bits; the hash is 30 characters and one that
# holds four. The unused bits are zero: bcrypt sets none, and raises if one is set in the salt.
_HASH = re.compile(
    r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$"
    r"([./A-Za-z0-9]{21}[.Oeu])([./A-Za-z0-9]{30}[.CGKOSWaeimquy26])"
)
_PHP_SPACE = b" \t\n\r\0\x0b"
_WORDPRESS_LONGEST = 4096

Prehash = Callable[[bytes], bytes | None]
"""Makes what is hashed of a password; ``None`` if no hash can be of it."""


def parse(text: str) -> Hash:
    """Parse a bare hash, which may be Synapse's.

    :raise ValueError: when bcrypt does not accept it, or no password can match it.
    """
    return _parse(text, "bcrypt", _unchanged, normalize=True)


def parse_foreign(text: str) -> Hash:
    """Parse a hash that another program marked as its own.

    :raise ValueError: when it is none.
    """
    return _parse(text, "bcrypt", _unchanged)


def parse_sha256(text: str) -> Hash:
    """Parse the hash of a password's SHA-256 in hexadecimal digits, as Django makes it.

    :raise ValueError: when it is none.
    """
    return _parse(text, "bcrypt-sha256", _sha256)


def parse_wordpress(text: str) -> Hash:
    """Parse the hash of a trimmed password's HMAC-SHA-384, as WordPress 6.8 makes it.

    :raise ValueError: when it is none.
    """
    return _parse(text, "wordpress-bcrypt", _wordpress)


def new_hashes(cost: int) -> NewHashes:
    """Make bare hashes, by Synapse's rule.

    :param cost: the logarithm of the work, 4 to 16.
    """

    def make(password: bytes) -> str:
        return bcrypt.hashpw(password[:_BYTES], bcrypt.gensalt(cost)).decode("ascii")

    return NewHashes(_kind("bcrypt", cost, _unchanged, normalize=True), make)


def _parse(text: str, scheme: str, prehash: Prehash, normalize: bool = False) -> Hash:
    cost, salt, digest = groups(_HASH, text, "a bcrypt hash")
    kind = _kind(scheme, int(cost), prehash, normalize)
    return Hash(kind, salt.encode("ascii"), digest.encode("ascii"))


@cache
def _kind(scheme: str, cost: int, prehash: Prehash, normalize: bool) -> Kind:
    def digest(password: bytes, salt: bytes) -> bytes:
        prepared = prehash(password)
        setting = b"$2b$%02d$%b" % (cost, salt)
        made = bcrypt.hashpw((password if prepared is None else prepared)[:_BYTES], setting)
        return b"" if prepared is None else made[len(setting) :]

    return Kind(
        scheme,
        (("cost", cost),),
        digest,
        _SALT,
        Strength.BCRYPT,
        _SECONDS * 2**cost,
        normalize=normalize,
        is_weak=cost < LEAST_COST,
    )


def _unchanged(password: bytes) -> bytes:
    return password


def _sha256(password: bytes) -> bytes:
    return hashlib.sha256(password).hexdigest().encode("ascii")


def trimmed_as_php(password: bytes) -> bytes:
    """Remove what PHP's ``trim()`` removes from both ends of a password."""
    return password.strip(_PHP_SPACE)


def _wordpress(password: bytes) -> bytes | None:
    trimmed = trimmed_as_php(password)
    if not 0 < len(trimmed) <= _WORDPRESS_LONGEST:
        return None
    return base64.b64encode(hmac.digest(b"wp-sha384", trimmed, "sha384"))
