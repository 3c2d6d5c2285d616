"""PBKDF2 (RFC 8018), as the programs that use it write it."""

from __future__ import annotations

import hashlib
import re

from synapse_login_module.hashes.encodings import from_adapted_base64, from_base64, from_hex, groups
from synapse_login_module.hashes.kinds import Hash, Kind, Strength

_WHAT = "a PBKDF2 hash"
_DIGEST_SIZES = {"sha1": 20, "sha256": 32, "sha512": 64}
_SECONDS = {"sha1": 3.5e-7, "sha256": 4.5e-7, "sha512": 6.5e-7}
"""Of one iteration that makes one block."""

_LEAST = {"sha1": 1_300_000, "sha256": 600_000, "sha512": 210_000}
"""The iterations that OWASP's Password Storage Cheat Sheet asks for."""

_BASE64 = r"[A-Za-z0-9+/]{16,172}={0,2}"
_ADAPTED = r"[A-Za-z0-9./]"
_DJANGO = re.compile(rf"pbkdf2_(sha1|sha256)\$([0-9]{{1,9}})\$([^$]{{1,128}})\$({_BASE64})")
_PASSLIB = re.compile(
    rf"\$pbkdf2(?:-(sha256|sha512))?\$([0-9]{{1,9}})\$({_ADAPTED}{{1,200}})\$({_ADAPTED}{{22,172}})"
)
_LDAP = re.compile(
    rf"\{{PBKDF2(?:-(SHA1|SHA256|SHA512))?\}}"
    rf"([0-9]{{1,9}})\$({_ADAPTED}{{1,200}})\$({_ADAPTED}{{22,172}})"
)
_DOVECOT = re.compile(r"\{PBKDF2\}\$1\$([^$]{1,128})\$([0-9]{1,9})\$([0-9a-f]{40})")
_DISCOURSE = re.compile(
    r"\$pbkdf2-(sha256|sha512)\$i=([0-9]{1,9}),l=[0-9]{1,3}\$([^$]{1,128})\$([0-9a-f]{32,256})"
)
_GITEA = re.compile(r"pbkdf2\$([0-9]{1,9})\$[0-9]{1,3}\$([^$]{10,128})\$([0-9a-f]{32,256})")
_OLD_GITEA_SALT = 10


def parse_django(text: str) -> Hash:
    """Parse ``pbkdf2_sha256$…`` or ``pbkdf2_sha1$…``, as Django writes it.

    :raise ValueError: when it is none.
    """
    name, iterations, salt, digest = groups(_DJANGO, text, _WHAT)
    return make_hash(name, int(iterations), salt.encode(), from_base64(digest))


def parse_passlib(text: str) -> Hash:
    """Parse ``$pbkdf2-sha256$…``, as passlib writes it, or Discourse's columns
    ``password_algorithm`` and ``password_salt``, then ``$`` and ``password_hash``.

    :raise ValueError: when it is none.
    """
    discourse = _DISCOURSE.fullmatch(text)
    if discourse is not None:
        name, iterations, salt, digest = discourse.groups()
        return make_hash(name, int(iterations), salt.encode(), from_hex(digest))
    name, iterations, salt, digest = groups(_PASSLIB, text, _WHAT)
    return make_hash(
        name or "sha1", int(iterations), from_adapted_base64(salt), from_adapted_base64(digest)
    )


def parse_ldap(text: str) -> Hash:
    """Parse ``{PBKDF2…}``, as Dovecot or OpenLDAP writes it.

    :raise ValueError: when it is none.
    """
    dovecot = _DOVECOT.fullmatch(text)
    if dovecot is not None:
        salt, iterations, digest = dovecot.groups()
        return make_hash("sha1", int(iterations), salt.encode(), from_hex(digest))
    name, iterations, salt, digest = groups(_LDAP, text, _WHAT)
    return make_hash(
        (name or "sha1").lower(),
        int(iterations),
        from_adapted_base64(salt),
        from_adapted_base64(digest),
    )


def parse_gitea(text: str) -> Hash:
    """Parse Gitea's columns ``passwd_hash_algo``, ``salt`` and ``passwd``, joined by ``$``.

    :raise ValueError: when it is none.
    """
    iterations, salt, digest = groups(_GITEA, text, _WHAT)
    # Gitea's first salts were ten characters of text.
    salted = salt.encode() if len(salt) == _OLD_GITEA_SALT else from_hex(salt)
    return make_hash("sha256", int(iterations), salted, from_hex(digest))


def make_hash(name: str, iterations: int, salt: bytes, digest: bytes) -> Hash:
    """Make a hash of its parts.

    :param name: the hash function: ``sha1``, ``sha256`` or ``sha512``.
    :raise ValueError: when the parts do not fit.
    """
    if name not in _DIGEST_SIZES or iterations < 1 or not salt or len(digest) < 16:
        raise ValueError("a PBKDF2 hash whose parameters do not fit")
    size = len(digest)
    blocks = -(-size // _DIGEST_SIZES[name])

    def compute(password: bytes, salt: bytes) -> bytes:
        return hashlib.pbkdf2_hmac(name, password, salt, iterations, size)

    kind = Kind(
        f"pbkdf2-{name}",
        (("iterations", iterations), *((("blocks", blocks),) if blocks > 1 else ())),
        compute,
        bytes(len(salt)),
        Strength.ITERATED,
        _SECONDS[name] * iterations * blocks,
        is_weak=iterations < _LEAST[name],
    )
    return Hash(kind, salt, digest)
