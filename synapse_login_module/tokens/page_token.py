"""The tokens of the account page: made under the token keys, short-lived, and stored nowhere.

Such a token is ``slmpt_<base64url>``. The part after the underscore encodes, without padding::

    format  key id  expires at  link  user ID     HMAC-SHA-256
    1       2       8           16    at most 255  32

Numbers are in network byte order, the time is in milliseconds since the epoch. The HMAC is computed
under a key of its own, which is derived from a token key, over everything before the HMAC. So a
page token is good for the account page alone, on every server that has the key. ``link`` is a
digest of the account's link: a page token ends when its user ID is linked to another account.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from synapse_login_module.errors import ExpiredToken, UnknownToken
from synapse_login_module.model import Link
from synapse_login_module.tokens.format import KeyRing

LIFETIME = 15 * 60_000
"""Milliseconds that a page token is good for."""

_FORMAT = 1
_LABEL = b"synapse_login_module: the key of account page tokens"
_HEADER = struct.Struct(">BHQ16s")
_MAC_SIZE = 32
_MAX_USER_ID = 255
_PATTERN = re.compile(r"slmpt_([A-Za-z0-9_-]{1,424})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageToken:
    """A token of the account page, as a sign-in gives it.

    :param expires_in_ms: milliseconds that it is good for.
    """

    token: str = field(repr=False)
    user_id: str
    expires_in_ms: int


class PageVisit(NamedTuple):
    """What an authentic token of the account page says.

    :param key_id: the id of the token key that it was made under.
    :param link: the digest of the link that its user had.
    """

    user_id: str
    key_id: int
    link: bytes

    def is_of(self, link: Link | None) -> bool:
        """Return whether a user's link is the one that the token was made for."""
        return link is not None and hmac.compare_digest(self.link, _digest(link))


class PageTokens:
    """Makes and reads the tokens of the account page.

    :param keys: the token keys.
    :param clock: the wall clock, in seconds.
    """

    def __init__(self, keys: KeyRing, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock

    def make(self, link: Link) -> PageToken:
        """Make a token for the user of a link, under the key that signs."""
        key_id = self._keys.newest
        user = link.user_id.encode("utf-8")
        expires_at = int(self._clock() * 1000) + LIFETIME
        signed = _HEADER.pack(_FORMAT, key_id, expires_at, _digest(link)) + user
        raw = urlsafe_b64encode(signed + self._mac(key_id, signed)).rstrip(b"=")
        return PageToken(f"slmpt_{raw.decode('ascii')}", link.user_id, LIFETIME)

    def read(self, token: str) -> PageVisit:
        """Check a token, and return what it says.

        :param token: any text.
        :raise UnknownToken: when it is not authentic, or its key is not loaded.
        :raise ExpiredToken: when it has expired.
        """
        match = _PATTERN.fullmatch(token)
        if match is None or len(match[1]) % 4 == 1:
            raise UnknownToken
        raw = urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
        signed, mac = raw[:-_MAC_SIZE], raw[-_MAC_SIZE:]
        if not _HEADER.size < len(signed) <= _HEADER.size + _MAX_USER_ID:
            raise UnknownToken
        version, key_id, expires_at, link = _HEADER.unpack_from(signed)
        if version != _FORMAT or not hmac.compare_digest(self._mac(key_id, signed), mac):
            raise UnknownToken
        if self._clock() * 1000 >= expires_at:
            raise ExpiredToken
        return PageVisit(signed[_HEADER.size :].decode("utf-8"), key_id, link)

    def _mac(self, key_id: int, signed: bytes) -> bytes:
        key = self._keys.subkey(key_id, _LABEL)
        if key is None:
            raise UnknownToken
        return hmac.digest(key, signed, "sha256")


def _digest(link: Link) -> bytes:
    return hashlib.sha256("\0".join(link[1:]).encode("utf-8")).digest()[:16]
