"""Deriving, parsing and checking tokens.

A token is ``<prefix>_<base64url>``. The prefix names the project and the kind, so that people and
secret scanners know a token when they see one. Behind it stand, without padding, 48 bytes::

    format  kind  key id  session id  generation  HMAC-SHA-256
    1       1     2       8           4           32

all numbers in network order. The HMAC is taken under the server's key over the session's salt and
the 16 bytes before it. So no token need be stored: a copy of the database holds none, and a copy
of the key makes none without the database.
"""

from __future__ import annotations

import enum
import hmac
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SALT_SIZE = 16
KEY_SIZE = 32
MAX_KEY_ID = 0xFFFF
MAX_GENERATION = 0xFFFFFFFF

_FORMAT = 1
_HEADER = struct.Struct(">BBHQI")


class TokenKind(enum.Enum):
    """The kinds of token; the value is the prefix."""

    ACCESS = "slmat"
    REFRESH = "slmrt"
    LOGIN = "slmlt"

    @property
    def number(self) -> int:
        """The kind's number inside the token."""
        return _NUMBERS[self]


_NUMBERS = {TokenKind.ACCESS: 1, TokenKind.REFRESH: 2, TokenKind.LOGIN: 3}
_PATTERNS = {
    kind: re.compile(f"{kind.value}_([A-Za-z0-9_-]{{64}})", re.ASCII) for kind in TokenKind
}


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token taken apart; nothing of it is to be believed before the MAC is checked."""

    key_id: int
    session_id: int
    generation: int
    header: bytes
    mac: bytes


def parse(kind: TokenKind, token: str) -> ParsedToken | None:
    """Take a token apart.

    :param token: any text at all.
    :return: its parts, or ``None`` when it is not of the form of this kind.
    """
    match = _PATTERNS[kind].fullmatch(token)
    if match is None:
        return None
    raw = urlsafe_b64decode(match[1])
    header, mac = raw[: _HEADER.size], raw[_HEADER.size :]
    version, number, key_id, session_id, generation = _HEADER.unpack(header)
    if version != _FORMAT or number != kind.number or session_id >= 1 << 63:
        return None
    return ParsedToken(key_id, session_id, generation, header, mac)


class KeyRing:
    """The server's keys: tokens are made under the newest, and checked under any.

    :param keys: key id to 32 secret bytes; the highest id is the newest.
    :param added: gives the keys that there are by now, when one is asked for that is not among
        these: another process may use it already. Nothing is made under it here of itself.
    """

    def __init__(
        self, keys: Mapping[int, bytes], added: Callable[[], Mapping[int, bytes]] = dict
    ) -> None:
        if not keys:
            raise ValueError("a key ring needs a key")
        for key_id, key in keys.items():
            if not 0 <= key_id <= MAX_KEY_ID or len(key) != KEY_SIZE:
                raise ValueError(f"key {key_id} is not a {KEY_SIZE}-byte key")
        self._keys = dict(keys)
        self._added = added
        self.newest = max(keys)

    def __contains__(self, key_id: object) -> bool:
        if key_id not in self._keys:
            self._keys = {**self._added(), **self._keys}
        return key_id in self._keys

    def derive(
        self, kind: TokenKind, key_id: int, session_id: int, generation: int, salt: bytes
    ) -> str:
        """Make a token; the same arguments always make the same one."""
        header = _HEADER.pack(_FORMAT, kind.number, key_id, session_id, generation)
        raw = header + self._mac(key_id, salt, header)
        return f"{kind.value}_{urlsafe_b64encode(raw).decode('ascii')}"

    def verify(self, parsed: ParsedToken, salt: bytes) -> bool:
        """Whether this server made the token, with that salt; takes the same time either way."""
        if parsed.key_id not in self:
            return False
        return hmac.compare_digest(self._mac(parsed.key_id, salt, parsed.header), parsed.mac)

    def _mac(self, key_id: int, salt: bytes, header: bytes) -> bytes:
        return hmac.digest(self._keys[key_id], salt + header, "sha256")
