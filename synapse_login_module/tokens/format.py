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
from collections.abc import Callable, Collection, Mapping
from threading import Lock
from typing import NamedTuple

SALT_SIZE = 16
KEY_SIZE = 32
MAX_KEY_ID = 0xFFFF
MAX_GENERATION = 0xFFFFFFFF

_FORMAT = 1
_FINGERPRINT_LABEL = b"synapse_login_module: the fingerprint of token key "
_FINGERPRINT_SIZE = 32
_HEADER = struct.Struct(">BBHQI")


class TokenKind(enum.Enum):
    """The kinds of token.

    :ivar prefix: what stands before the underscore.
    :ivar number: the kind's number inside the token.
    :ivar pattern: what every token of the kind matches.
    """

    ACCESS = ("slmat", 1)
    REFRESH = ("slmrt", 2)
    LOGIN = ("slmlt", 3)

    def __init__(self, prefix: str, number: int) -> None:
        self.prefix = prefix
        self.number = number
        self.pattern = re.compile(f"{prefix}_([A-Za-z0-9_-]{{64}})", re.ASCII)


class ParsedToken(NamedTuple):
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
    match = kind.pattern.fullmatch(token)
    if match is None:
        return None
    raw = urlsafe_b64decode(match[1])
    header, mac = raw[: _HEADER.size], raw[_HEADER.size :]
    version, number, key_id, session_id, generation = _HEADER.unpack(header)
    if version != _FORMAT or number != kind.number or session_id >= 1 << 63:
        return None
    return ParsedToken(key_id, session_id, generation, header, mac)


class KeySet(NamedTuple):
    """The keys of a file.

    :param keys: key id to 32 secret bytes.
    :param waiting: the ids of those that are known but do not sign yet.
    """

    keys: Mapping[int, bytes]
    waiting: Collection[int] = ()


class _Keys(NamedTuple):
    """The same, as they are used.

    :param newest: the key that signs.
    :param in_use: those that sign or have signed.
    """

    newest: int
    in_use: frozenset[int]
    keyed: Mapping[int, hmac.HMAC]
    fingerprints: Mapping[int, str]


class KeyRing:
    """The server's keys: tokens are made under the newest, and checked under any.

    :param keys: key id to 32 secret bytes; the highest id is the newest.
    :param read_again: gives the keys as they stand by now, or ``None`` for no news.
    :param waiting: the ids of the keys that check tokens and make none yet.
    """

    def __init__(
        self,
        keys: Mapping[int, bytes],
        read_again: Callable[[], KeySet | None] = lambda: None,
        waiting: Collection[int] = (),
    ) -> None:
        self._read_again = read_again
        self._renewing = Lock()
        self.replace(keys, waiting)

    def replace(self, keys: Mapping[int, bytes], waiting: Collection[int] = ()) -> None:
        """Have these keys in the place of the old ones."""
        signing = set(keys) - set(waiting)
        if not signing:
            raise ValueError("a key ring needs a key that signs")
        for key_id, key in keys.items():
            if not 0 <= key_id <= MAX_KEY_ID or len(key) != KEY_SIZE:
                raise ValueError(f"key {key_id} is not a {KEY_SIZE}-byte key")
        # One assignment: another thread sees the keys of before, or these.
        self._keys = _Keys(
            max(signing),
            frozenset(signing),
            {key_id: hmac.new(key, digestmod="sha256") for key_id, key in keys.items()},
            {key_id: fingerprint(key_id, key) for key_id, key in keys.items()},
        )

    @property
    def newest(self) -> int:
        """The key that new tokens are made under."""
        return self._keys.newest

    @property
    def fingerprints(self) -> Mapping[int, str]:
        """The fingerprints of all keys, by id."""
        return self._keys.fingerprints

    @property
    def in_use(self) -> Collection[int]:
        """The ids of the keys that make tokens, or did before."""
        return self._keys.in_use

    def renew(self) -> None:
        """Have the keys as they stand by now: before a session begins, so that it is under a key
        that was just added, and when one is asked for that is not here.
        """
        with self._renewing:  # lest a thread that read earlier has the last word
            keys = self._read_again()
            if keys is not None:
                self.replace(*keys)

    def holds(self, key_id: int) -> bool:
        """Whether the key is at hand."""
        return key_id in self._keys.keyed

    def find(self, key_id: int) -> bool:
        """Whether the key is at hand, or among the keys as they stand by now."""
        if not self.holds(key_id):
            self.renew()
        return self.holds(key_id)

    def derive(
        self, kind: TokenKind, key_id: int, session_id: int, generation: int, salt: bytes
    ) -> str:
        """Make a token; the same arguments always make the same one."""
        header = _HEADER.pack(_FORMAT, kind.number, key_id, session_id, generation)
        raw = header + _mac(self._keys.keyed[key_id], salt, header)
        return f"{kind.prefix}_{urlsafe_b64encode(raw).decode('ascii')}"

    def verify(self, parsed: ParsedToken, salt: bytes) -> bool:
        """Whether this server made the token, with that salt; takes the same time either way."""
        keyed = self._keys.keyed.get(parsed.key_id)
        if keyed is None and self.find(parsed.key_id):
            keyed = self._keys.keyed.get(parsed.key_id)
        return keyed is not None and hmac.compare_digest(
            _mac(keyed, salt, parsed.header), parsed.mac
        )


def fingerprint(key_id: int, key: bytes) -> str:
    """What tells a key from another of its id, and says nothing of it: 128 bits, in hexadecimal.

    No token has this HMAC: what a token's is taken over is of another length, whatever its salt.
    """
    label = _FINGERPRINT_LABEL + str(key_id).encode("ascii")
    return hmac.new(key, label, "sha256").hexdigest()[:_FINGERPRINT_SIZE]


def _mac(keyed: hmac.HMAC, salt: bytes, header: bytes) -> bytes:
    # A copy of what has been keyed already costs half of keying it anew.
    mac = keyed.copy()
    mac.update(salt + header)
    return mac.digest()
