"""The table of formats: how each is recognised, and what parses it. One row each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from synapse_login_module.hashes import (
    argon2,
    bcrypt,
    crypt,
    keycloak,
    pbkdf2,
    phpass,
    salted_sha,
    scrypt,
)
from synapse_login_module.hashes.kinds import Hash, check_limits

Parse = Callable[[str], Hash]

_LONGEST = 1024


class Format(NamedTuple):
    """A form that a stored hash may have.

    :param prefix: what it begins with.
    :param parse: parses it. Raises ``ValueError`` with a reason that holds nothing of the hash.
    """

    prefix: str
    parse: Parse


def _after(prefix: str, parse: Parse) -> Format:
    """Make a format that is another format after a prefix."""
    return Format(prefix, lambda text: parse(text[len(prefix) :]))


def _crypt(text: str) -> Hash:
    """Parse any hash that a system's ``crypt()`` may have made."""
    for prefix, parse in _CRYPT.items():
        if text.startswith(prefix):
            return parse(text)
    raise ValueError(_refusal(text))


_LIBCRYPT: dict[str, Parse] = {
    "$5$": crypt.parse_sha,
    "$6$": crypt.parse_sha,
    "$y$": crypt.parse_yescrypt,
    "$gy$": crypt.parse_yescrypt,
    "$7$": crypt.parse_scrypt,
}
_CRYPT: dict[str, Parse] = {**_LIBCRYPT, "$2": bcrypt.parse_foreign}


def _gitea_bcrypt(text: str) -> Hash:
    """Parse Gitea's columns. The salt is not used: bcrypt has its own."""
    _, _, _, hashed = (*text.split("$", 3), "", "", "")[:4]
    return bcrypt.parse_foreign(hashed)


FORMATS = (
    Format("$2a$", bcrypt.parse),
    Format("$2b$", bcrypt.parse),
    Format("$2y$", bcrypt.parse),
    Format("$argon2", argon2.parse),
    *map(Format, _LIBCRYPT, _LIBCRYPT.values()),
    Format("$pbkdf2", pbkdf2.parse_passlib),
    Format("$scrypt$", scrypt.parse_passlib),
    Format("$P$", phpass.parse),
    Format("$H$", phpass.parse),
    Format("$S$", phpass.parse),
    Format("U$", phpass.parse),
    # WordPress
    _after("$wp", bcrypt.parse_wordpress),
    # Nextcloud
    _after("1|", bcrypt.parse_foreign),
    _after("2|", argon2.parse),
    _after("3|", argon2.parse),
    # Django
    Format("pbkdf2_", pbkdf2.parse_django),
    Format("scrypt$", scrypt.parse_dollars),
    _after("bcrypt$", bcrypt.parse_foreign),
    _after("bcrypt_sha256$", bcrypt.parse_sha256),
    Format("argon2$argon2", lambda text: argon2.parse(text.removeprefix("argon2"))),
    # Gitea
    Format("argon2$", argon2.parse_gitea),
    Format("pbkdf2$", pbkdf2.parse_gitea),
    *(Format(f"bcrypt${digit}", _gitea_bcrypt) for digit in "0123456789"),
    # Keycloak
    Format('{"', keycloak.parse),
    # Dovecot and LDAP
    _after("{CRYPT}", _crypt),
    _after("{BLF-CRYPT}", bcrypt.parse_foreign),
    _after("{SHA256-CRYPT}", crypt.parse_sha),
    _after("{SHA512-CRYPT}", crypt.parse_sha),
    _after("{ARGON2}", argon2.parse),
    _after("{ARGON2I}", argon2.parse),
    _after("{ARGON2ID}", argon2.parse),
    Format("{PBKDF2", pbkdf2.parse_ldap),
    Format("{SSHA", salted_sha.parse),
)

_REFUSED = (
    (r"\$apr1\$", "an MD5 entry ($apr1$, what htpasswd -m makes)"),
    (r"\$1\$|\{MD5-CRYPT\}", "an MD5 entry ($1$)"),
    (r"\{SHA[0-9]*[.}]", "a SHA entry without a salt ({SHA}, what htpasswd -s makes)"),
    (r"\{S?MD5[.}]|[0-9a-f]{32}$", "an MD5 sum"),
    (r"\$2x?\$", "a bcrypt hash of a faulty version"),
    (r"[./0-9A-Za-z]{13}$", "a crypt() entry (what htpasswd -d makes)"),
)

_EXAMPLES = {
    "bcrypt": f"$2b$10${'.' * 53}",
    "argon2id": f"$argon2id$v=19$m=64,t=1,p=1${'A' * 22}${'A' * 43}",
}
"""A hash of each scheme that new hashes may be of."""

_PARSERS = {each.prefix: each.parse for each in FORMATS}
_PREFIX = re.compile("|".join(map(re.escape, sorted(_PARSERS, key=len, reverse=True))))
_SCHEME = re.compile(r"\{[A-Za-z0-9.-]+\}")


def parse_hash(text: str) -> Hash:
    """Parse a stored hash.

    :raise ValueError: when it is of no format that is accepted, or beyond the limits. Its text is a
        reason that holds nothing of the hash.
    """
    if len(text) > _LONGEST or not text.isascii():
        raise ValueError("not a hash of any known format")
    scheme = _SCHEME.match(text)
    if scheme is not None:  # directories compare the names of schemes without regard to case
        text = scheme[0].upper() + text[scheme.end() :]
    match = _PREFIX.match(text)
    if match is None:
        raise ValueError(_refusal(text))
    try:
        parsed = _PARSERS[match[0]](text)
    except UnicodeError:
        raise ValueError("not a hash of any known format") from None
    check_limits(parsed.kind)
    return parsed


def takes_prefix(prefix: str, scheme: str | None = None) -> bool:
    """Say whether a new hash after a prefix is a format that means the same.

    It does not after ``$wp``: WordPress has bcrypt hash something else than the password.

    :param scheme: the scheme of new hashes; ``None`` for any of them.
    """
    for each in _EXAMPLES if scheme is None else (scheme,):
        try:
            if parse_hash(prefix + _EXAMPLES[each]).kind.scheme == each:
                return True
        except ValueError:
            continue
    return False


def _refusal(text: str) -> str:
    """Describe a text that is of no accepted format."""
    found = (what for pattern, what in _REFUSED if re.match(pattern, text))
    return next(found, "an entry in plain text, or of no known kind")
