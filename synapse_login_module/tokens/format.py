"""Deriving, parsing and verifying tokens.

A token is ``<prefix>_<base64url>``. The prefix names the project and the kind, so that people and
secret scanners recognise a token. The part after the underscore encodes, without padding, 48
bytes::

    format  kind  key id  session id  generation  HMAC-SHA-256
    1       1     2       8           4           32

Numbers are in network byte order. The HMAC is computed under the server's key over the session's
salt followed by the 16 bytes before the HMAC. Tokens are not stored, so a copy of the database
holds none. Forging a token takes both the key and the database.
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

    :ivar prefix: the text before the underscore.
    :ivar number: the number of the kind inside the token.
    :ivar pattern: a regular expression that every token of the kind matches in full.
    """

    ACCESS = ("slmat", 1)
    REFRESH = ("slmrt", 2)
    LOGIN = ("slmlt", 3)

    def __init__(self, prefix: str, number: int) -> None:
        self.prefix = prefix
        self.number = number
        self.pattern = re.compile(f"{prefix}_([A-Za-z0-9_-]{{64}})", re.ASCII)


class ParsedToken(NamedTuple):
    """The parts of a token. They are not authentic until the MAC is verified.

    :param header: the 16 bytes before the MAC.
    """

    key_id: int
    session_id: int
    generation: int
    header: bytes
    mac: bytes


def parse(kind: TokenKind, token: str) -> ParsedToken | None:
    """Parse a token, without verifying it.

    :param token: any text.
    :return: the parts of the token, or ``None`` when the text is not a token of this kind.
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
    """The keys of a key file.

    :param keys: 32 secret bytes by key id.
    :param waiting: the ids of the keys that verify tokens but do not sign yet.
    """

    keys: Mapping[int, bytes]
    waiting: Collection[int] = ()


class _PreparedKeys(NamedTuple):
    """The keys of a key file, prepared for use.

    :param newest: the id of the key that signs.
    :param in_use: the ids of the keys that sign or have signed.
    :param keyed: by key id, an HMAC that has been given the key and no text.
    :param fingerprints: the fingerprints by key id.
    """

    newest: int
    in_use: frozenset[int]
    keyed: Mapping[int, hmac.HMAC]
    fingerprints: Mapping[int, str]


class KeyRing:
    """The server's keys: the newest signs tokens, and all of them verify tokens.

    :param keys: 32 secret bytes by key id. Of the keys that may sign, the highest id is the newest.
    :param read_again: reads the key file again; returns the keys, or ``None`` when they are
        unchanged.
    :param waiting: the ids of the keys that verify tokens but do not sign yet.
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
        """Replace all keys.

        :raise ValueError: when no key signs, or a key or its id has the wrong size.
        """
        signing = set(keys) - set(waiting)
        if not signing:
            raise ValueError("a key ring needs a key that signs")
        for key_id, key in keys.items():
            if not 0 <= key_id <= MAX_KEY_ID or len(key) != KEY_SIZE:
                raise ValueError(f"key {key_id} is not a {KEY_SIZE}-byte key")
        # One assignment, so that another thread sees either the old keys or the new ones.
        self._keys = _PreparedKeys(
            max(signing),
            frozenset(signing),
            {key_id: hmac.new(key, digestmod="sha256") for key_id, key in keys.items()},
            {key_id: fingerprint(key_id, key) for key_id, key in keys.items()},
        )

    @property
    def newest(self) -> int:
        """The id of the key that signs new tokens."""
        return self._keys.newest

    @property
    def fingerprints(self) -> Mapping[int, str]:
        """The fingerprints of all keys, by key id."""
        return self._keys.fingerprints

    @property
    def in_use(self) -> Collection[int]:
        """The ids of the keys that sign or have signed tokens."""
        return self._keys.in_use

    def renew(self) -> None:
        """Read the key file again, if it has changed.

        This is called before a session begins, so that a key that was just added signs it, and when
        a token needs a key that is not loaded.
        """
        with self._renewing:  # so that a thread that read earlier does not replace newer keys
            keys = self._read_again()
            if keys is not None:
                self.replace(*keys)

    def holds(self, key_id: int) -> bool:
        """Return whether the key is loaded."""
        return key_id in self._keys.keyed

    def find(self, key_id: int) -> bool:
        """Return whether the key is loaded, after reading the key file again if it was not."""
        if not self.holds(key_id):
            self.renew()
        return self.holds(key_id)

    def derive(
        self, kind: TokenKind, key_id: int, session_id: int, generation: int, salt: bytes
    ) -> str:
        """Derive a token. The same arguments always return the same token."""
        header = _HEADER.pack(_FORMAT, kind.number, key_id, session_id, generation)
        raw = header + _mac(self._keys.keyed[key_id], salt, header)
        return f"{kind.prefix}_{urlsafe_b64encode(raw).decode('ascii')}"

    def subkey(self, key_id: int, label: bytes) -> bytes | None:
        """Derive the key of another purpose from one of these keys.

        :param label: names the purpose. It must not be 32 bytes long, as the text under a token's
            MAC is, and must not be the label of a fingerprint.
        :return: 32 secret bytes, always the same for the same arguments; ``None`` when the key is
            not loaded, after reading the key file again.
        """
        if not self.find(key_id):
            return None
        keyed = self._keys.keyed.get(key_id)
        return None if keyed is None else _mac(keyed, label, b"")

    def verify(self, parsed: ParsedToken, salt: bytes) -> bool:
        """Return whether a token was derived under one of these keys with this salt.

        The MAC is compared in constant time.
        """
        keyed = self._keys.keyed.get(parsed.key_id)
        if keyed is None and self.find(parsed.key_id):
            keyed = self._keys.keyed.get(parsed.key_id)
        return keyed is not None and hmac.compare_digest(
            _mac(keyed, salt, parsed.header), parsed.mac
        )


def fingerprint(key_id: int, key: bytes) -> str:
    """Return the fingerprint of a key: 128 bits in hexadecimal, which do not reveal the key.

    Two keys of one id have different fingerprints. The fingerprint is not the MAC of any token,
    because the text under a token's MAC has another length, whatever the salt.
    """
    label = _FINGERPRINT_LABEL + str(key_id).encode("ascii")
    return hmac.new(key, label, "sha256").hexdigest()[:_FINGERPRINT_SIZE]


def _mac(keyed: hmac.HMAC, salt: bytes, header: bytes) -> bytes:
    # Copying a keyed HMAC takes half the time of keying a new one.
    mac = keyed.copy()
    mac.update(salt + header)
    return mac.digest()
