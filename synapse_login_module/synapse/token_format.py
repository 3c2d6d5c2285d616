"""The form of Synapse's tokens, and the tag by which a refresh token names its session.

A token has a prefix, the user's local part in base64, a random part in base62 and a checksum.
Synapse's own ``/refresh`` checks the form.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from zlib import crc32

SESSION_SIZE = 16
NONCE_SIZE = 12
_MAC_SIZE = 12
_LONGEST = 1024
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def is_token(text: str) -> bool:
    """Say whether a text could be a token at all. Other texts are not looked up."""
    return text.isascii() and text.isprintable() and 0 < len(text) <= _LONGEST


def access_token(user_id: str, random: bytes) -> str:
    """Make an access token of Synapse's form."""
    return _token("syt", user_id, random)


def refresh_token(user_id: str, random: bytes) -> str:
    """Make a refresh token of Synapse's form."""
    return _token("syr", user_id, random)


def random_part(token: str, size: int) -> tuple[str, bytes] | None:
    """Return the local part and the random part of a token; ``None`` when it has another form.

    :param size: bytes of the random part.
    """
    parts = token.split("_")
    if len(parts) != 4 or not token.isascii() or len(token) > _LONGEST:
        return None
    number = 0
    for letter in parts[2]:
        digit = _BASE62.find(letter)
        if digit < 0:
            return None
        number = number * 62 + digit
    try:
        localpart = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode("utf-8")
        return localpart, number.to_bytes(size, "big")
    except (ValueError, OverflowError):
        return None


def _token(kind: str, user_id: str, random: bytes) -> str:
    localpart = user_id[1:].partition(":")[0].encode("utf-8")
    name = base64.b64encode(localpart).decode("ascii").rstrip("=")
    body = f"{kind}_{name}_{_base62(int.from_bytes(random, 'big'), 1)}"
    return f"{body}_{_base62(crc32(body.encode('ascii')), 6)}"


def _base62(number: int, width: int) -> str:
    letters = ""
    while number:
        number, digit = divmod(number, 62)
        letters = _BASE62[digit] + letters
    return letters.rjust(width, "0")


class RefreshTokenTag:
    """Makes refresh tokens whose random part names their session, and reads it without a database.

    The random part is the session's id, a nonce, and an HMAC over both and the user ID.

    :param secret: the homeserver's secret, of which the key is derived.
    :param server_name: the server name of the user IDs.
    """

    def __init__(self, secret: bytes, server_name: str) -> None:
        self._key = hmac.digest(secret, b"synapse_login_module session mark", "sha256")
        self._server_name = server_name

    def make(self, user_id: str, session_id: bytes, nonce: bytes) -> str:
        """Make a refresh token with the tag of a session."""
        body = session_id + nonce
        return refresh_token(user_id, body + self._mac(user_id, body))

    def read(self, token: str) -> bytes:
        """Return the session's id that a refresh token names, or else a hash of the token."""
        parts = random_part(token, SESSION_SIZE + NONCE_SIZE + _MAC_SIZE)
        if parts is not None:
            localpart, raw = parts
            body, mac = raw[:-_MAC_SIZE], raw[-_MAC_SIZE:]
            user_id = f"@{localpart}:{self._server_name}"
            whole = hmac.compare_digest(self._mac(user_id, body), mac)
            # The whole text has to match: a token with a typo must not count as an old one.
            if whole and refresh_token(user_id, raw) == token:
                return body[:SESSION_SIZE]
        return hashlib.sha256(token.encode("utf-8")).digest()[:SESSION_SIZE]

    def _mac(self, user_id: str, body: bytes) -> bytes:
        named = user_id.encode("utf-8") + b"\0" + body
        return hmac.digest(self._key, named, "sha256")[:_MAC_SIZE]
