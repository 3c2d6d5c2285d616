"""One round of salted SHA, as directories keep it: ``{SSHA}``, ``{SSHA256}``, ``{SSHA512}``."""

from __future__ import annotations

import hashlib
import re

from synapse_login_module.hashes.encodings import from_base64, from_hex, groups
from synapse_login_module.hashes.kinds import Hash, Kind, Strength

_NAMES = {"SSHA": "sha1", "SSHA256": "sha256", "SSHA512": "sha512"}
_HASH = re.compile(r"\{(SSHA|SSHA256|SSHA512)(?:\.(B64|HEX))?\}([A-Za-z0-9+/]{28,400}={0,2})")
_SECONDS = 2e-6


def parse(text: str) -> Hash:
    """Parse a hash; Dovecot may say in its scheme how it is written: ``{SSHA256.HEX}``.

    :raise ValueError: when it is none.
    """
    scheme, encoding, written = groups(_HASH, text, "a salted SHA hash")
    raw = from_hex(written) if encoding == "HEX" else from_base64(written)
    name = _NAMES[scheme]
    size = hashlib.new(name).digest_size
    if len(raw) <= size:
        raise ValueError("a SHA hash without a salt")

    def digest(password: bytes, salt: bytes) -> bytes:
        return hashlib.new(name, password + salt).digest()

    kind = Kind(
        f"{{{scheme}}}",
        (),
        digest,
        bytes(len(raw) - size),
        Strength.FAST,
        _SECONDS,
        is_weak=True,
    )
    return Hash(kind, raw[size:], raw[:size])
