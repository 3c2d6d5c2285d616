"""What a stored hash is: how it was made, and how a password is checked against it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from hmac import compare_digest
from typing import NamedTuple

MOST_SECONDS = 5.0
"""The longest that one check may take, by the estimate of :class:`Kind`."""

MOST_MEMORY = 256 * 2**20
"""The most bytes that one check may take."""

_NORMALIZED = 1024
QUICK = 0.03
"""Seconds. A check that takes less is followed by others that take about as long."""

_PADDING = 60_000
"""The iterations of PBKDF2 that take about as long as ``QUICK``."""


def prepare(password: str, pepper: str, normalize: bool) -> bytes:
    """Make the bytes of a password: NFKC, where it is wanted, then the pepper, then UTF-8.

    Synapse does the same. But here NFKC sees only the first 1,024 characters. For thousands of
    combining marks it takes seconds, and holds the interpreter lock that long.

    :param normalize: whether to apply NFKC, which other programs do not.
    """
    given = unicodedata.normalize("NFKC", password[:_NORMALIZED]) if normalize else password
    return (given + pepper).encode("utf-8", "surrogatepass")


class Strength(IntEnum):
    """What protects a hash when it is stolen. A higher one is better at any cost."""

    FAST = 0
    """One round of a hash function."""
    ITERATED = 1
    """Many rounds, which graphics cards compute fast."""
    BCRYPT = 2
    """Many rounds in 4 KiB of memory."""
    MEMORY_HARD = 3
    """Many rounds in much memory."""


@dataclass(frozen=True)
class Kind:
    """A scheme with its parameters: all that decides how long a check takes.

    :param scheme: the name of the scheme.
    :param parameters: its parameters, by their names.
    :param digest: computes the digest of a password with a salt. It takes as long for a password
        that no hash can be of, such as one that is too long, and returns ``b""`` then. Raises
        ``MemoryError`` when there is not enough memory.
    :param salt: a salt like those of such hashes, for decoys.
    :param strength: what protects such a hash.
    :param seconds: how long a check takes on an ordinary core, estimated.
    :param memory: how many bytes a check takes, as far as it is a parameter.
    :param normalize: whether NFKC is applied to a password first, where the configuration does not
        say. It is Synapse's rule for bcrypt; other programs do not do it.
    :param is_weak: whether its parameters are below what OWASP's Password Storage Cheat Sheet asks
        for, so that a stolen hash is guessed too fast.
    :param pepper: what the configuration appends to passwords. Decoys have it too, because some
        schemes take longer for a longer password.
    """

    scheme: str
    parameters: tuple[tuple[str, int], ...]
    digest: Callable[[bytes, bytes], bytes] = field(compare=False, repr=False)
    salt: bytes = field(compare=False, repr=False)
    strength: Strength = field(compare=False)
    seconds: float = field(compare=False)
    memory: int = field(default=0, compare=False)
    normalize: bool = False
    is_weak: bool = field(default=False, compare=False)
    pepper: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        """Return the scheme and its parameters, such as ``bcrypt cost=12``."""
        return " ".join((self.scheme, *(f"{name}={value}" for name, value in self.parameters)))

    def ruled(self, normalize: bool | None, pepper: str = "") -> Kind:
        """Return the kind with what the configuration says about NFKC, if it does, and with its
        pepper.
        """
        if normalize is None:
            normalize = self.normalize
        if (normalize, pepper) == (self.normalize, self.pepper):
            return self
        return replace(self, normalize=normalize, pepper=pepper)

    def decoy(self, password: str) -> None:
        """Take as long as a check of a hash of this kind."""
        self.digest(prepare(password, self.pepper, self.normalize), self.salt)

    @property
    def is_quick(self) -> bool:
        """Whether a check takes so little that the rest of a login tells unknown users apart.

        bcrypt is not meant: only tests have it that cheap.
        """
        return self.strength < Strength.BCRYPT and self.seconds < QUICK

    def is_weaker_than(self, other: Kind) -> bool:
        """Say whether a hash of the other kind is better in one way, and worse in no way."""
        if self.strength != other.strength:
            return self.strength < other.strength
        return self.seconds < other.seconds and self.memory <= other.memory


class Hash(NamedTuple):
    """A stored hash.

    :param kind: how it was made.
    :param salt: its salt, in the form that the kind takes.
    :param digest: what the right password gives. It is never empty.
    """

    kind: Kind
    salt: bytes
    digest: bytes

    def verify(self, password: bytes) -> bool:
        """Say whether it is the hash of this password. Blocks while it is computed."""
        return compare_digest(self.kind.digest(password, self.salt), self.digest)


@dataclass(frozen=True)
class NewHashes:
    """How new hashes are made.

    :param kind: their kind.
    :param make: makes one, of a password's bytes.
    """

    kind: Kind
    make: Callable[[bytes], str] = field(repr=False)


def pad() -> None:
    """Take a constant time, about that of a cheap hash. Blocks."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", _PADDING)


def check_limits(kind: Kind) -> None:
    """Reject a kind that takes too long, or too much memory.

    :raise ValueError: says what is too much.
    """
    if kind.seconds > MOST_SECONDS:
        raise ValueError(f"{kind} takes too long: more than about {MOST_SECONDS:.0f} seconds")
    if kind.memory > MOST_MEMORY:
        raise ValueError(f"{kind} takes too much memory: more than {MOST_MEMORY >> 20} MiB")
