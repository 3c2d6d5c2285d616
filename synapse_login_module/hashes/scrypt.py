"""scrypt (RFC 7914), as the programs that use it write it."""

from __future__ import annotations

import hashlib
import re

from synapse_login_module.hashes.encodings import from_base64, from_hex, groups
from synapse_login_module.hashes.kinds import MOST_MEMORY, Hash, Kind, Strength

LEAST_WORK = 2**14 * 8 * 5
"""N·r·p. This is the least of the choices that OWASP's Password Storage Cheat Sheet gives."""

_WHAT = "a scrypt hash"
_SECONDS = 4.5e-7
_BLOCK_SECONDS = 5e-6
"""Of PBKDF2, which makes each of the r·p blocks of 128 bytes, and reads them at the end."""

_BASE64 = r"[A-Za-z0-9+/]{22,172}={0,2}"
_DJANGO = re.compile(
    rf"scrypt\$([0-9]{{1,10}})\$([^$]{{1,128}})\$([0-9]{{1,9}})\$([0-9]{{1,9}})\$({_BASE64})"
)
_PASSLIB = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,9}),p=([0-9]{1,9})"
    rf"\$([A-Za-z0-9+/]{{1,172}})\$({_BASE64})"
)
_GITEA = re.compile(
    r"scrypt\$([0-9]{1,10})\$([0-9]{1,9})\$([0-9]{1,9})\$[0-9]{1,3}"
    r"\$([0-9a-f]{16,128})\$([0-9a-f]{32,256})"
)


def parse_dollars(text: str) -> Hash:
    """Parse ``scrypt$…``: Django's, or Gitea's columns ``passwd_hash_algo``, ``salt`` and
    ``passwd``, joined by ``$``.

    :raise ValueError: when it is none.
    """
    gitea = _GITEA.fullmatch(text)
    if gitea is not None:
        n, r, p, salt, digest = gitea.groups()
        return _hash(int(n), int(r), int(p), from_hex(salt), from_hex(digest))
    n, salt, r, p, digest = groups(_DJANGO, text, _WHAT)
    return _hash(int(n), int(r), int(p), salt.encode(), from_base64(digest))


def parse_passlib(text: str) -> Hash:
    """Parse ``$scrypt$ln=…``, as passlib writes it.

    :raise ValueError: when it is none.
    """
    ln, r, p, salt, digest = groups(_PASSLIB, text, _WHAT)
    return _hash(2 ** int(ln), int(r), int(p), from_base64(salt), from_base64(digest))


def _hash(n: int, r: int, p: int, salt: bytes, digest: bytes) -> Hash:
    size = len(digest)
    # RFC 7914, section 2: N is a power of two, and less than 2 to the power of 16 r.
    fits = r >= 1 and p >= 1 and r * p < 2**30 and 2 <= n < 2 ** min(16 * r, 64)
    if not fits or n & (n - 1) or size < 16:
        raise ValueError("a scrypt hash whose parameters do not fit")

    def compute(password: bytes, salt: bytes) -> bytes:
        # OpenSSL counts a little more than the memory of the kind.
        try:
            return hashlib.scrypt(
                password, salt=salt, n=n, r=r, p=p, maxmem=2 * MOST_MEMORY, dklen=size
            )
        except ValueError as error:
            if "malloc" in str(error):
                raise MemoryError from None
            raise

    kind = Kind(
        "scrypt",
        (("N", n), ("r", r), ("p", p)),
        compute,
        bytes(len(salt)),
        Strength.MEMORY_HARD,
        _SECONDS * n * r * p + _BLOCK_SECONDS * r * p,
        128 * r * (n + p),
        is_weak=n * r * p < LEAST_WORK,
    )
    return Hash(kind, salt, digest)
