"""Distinguished names (RFC 4514), made from a template or compared with it."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import NamedTuple

from ldaptor.protocols.ldap import distinguishedname  # type: ignore[import-untyped]

from synapse_login_module.model import fold
from synapse_login_module.providers.ldap.filters import PLACEHOLDER
from synapse_login_module.providers.ldap.messages import octets

_PAIR = re.compile(rb"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)
_COMMA = re.compile(rb"((?:\\.|[^\\,])*)(?:,|\Z)", re.DOTALL)
_PLUS = re.compile(rb"((?:\\.|[^\\+])*)(?:\+|\Z)", re.DOTALL)
_WORD = PLACEHOLDER.encode("ascii")


class _Assertion(NamedTuple):
    """One attribute and value of a relative distinguished name, both normalized for comparison."""

    attribute: str
    value: bytes


_RDN = tuple[_Assertion, ...]


def filled_name(template: str, localpart: str) -> str:
    """Put a local part, escaped, in the place of ``{localpart}`` in a distinguished name."""
    escaped: str = distinguishedname.escape(localpart)
    return template.replace(PLACEHOLDER, escaped)


def is_distinguished_name(text: str) -> bool:
    """Say whether a text is a distinguished name (RFC 4514)."""
    try:
        return bool(_rdns(octets(text)))
    except ValueError:
        return False


class Template:
    """A distinguished name with ``{localpart}`` in it.

    :raise ValueError: when it is not a distinguished name.
    :ivar parent: the parent of all names that it makes; ``None`` when the parent depends on the
        local part, or when there is none.
    """

    def __init__(self, text: str) -> None:
        self._rdns = _rdns(octets(text))
        above = _split(_COMMA, octets(text))[1:]
        parent = b",".join(above).decode("utf-8", "surrogatepass").strip()
        self.parent = parent if parent and PLACEHOLDER not in parent else None

    def is_named_by(self, attribute: str) -> bool:
        """Say whether the first relative name is this attribute with the local part alone."""
        return self._rdns[0] == (_Assertion(fold(attribute), _WORD),)

    def makes(self, dn: bytes) -> bool:
        """Say whether it makes this name from some local part, case and spaces aside."""
        try:
            rdns = _rdns(dn)
        except ValueError:
            return False
        return all(
            own is not None and other is not None and _agree(own, other)
            for own, other in zip_longest(self._rdns, rdns)
        )


def _agree(own: _RDN, other: _RDN) -> bool:
    return len(own) == len(other) and all(
        one.attribute == two.attribute and (_WORD in one.value or one.value == two.value)
        for one, two in zip(own, other, strict=True)
    )


def _rdns(dn: bytes) -> list[_RDN]:
    return [
        tuple(sorted(_assertion(each) for each in _split(_PLUS, rdn))) for rdn in _split(_COMMA, dn)
    ]


def _split(pattern: re.Pattern[bytes], text: bytes) -> list[bytes]:
    """Split a text at the separators that are not escaped.

    :param pattern: matches a part and the separator after it.
    :raise ValueError: when the text is not a distinguished name.
    """
    parts, position = [], 0
    while (match := pattern.match(text, position)) is not None:
        parts.append(match[1])
        if match.end() == len(text):
            return parts + ([b""] if match[0][len(match[1]) :] else [])
        position = match.end()
    raise ValueError("no distinguished name")


def _assertion(text: bytes) -> _Assertion:
    attribute, equals, value = text.partition(b"=")
    if not equals or not attribute.strip().isascii() or not attribute.strip():
        raise ValueError("no distinguished name")
    plain = _PAIR.sub(_unescaped, value.strip()).decode("utf-8", "replace")
    # The placeholder is in lower case, so case folding does not change it.
    return _Assertion(
        fold(attribute.strip().decode("ascii")), octets(" ".join(plain.casefold().split()))
    )


def _unescaped(match: re.Match[bytes]) -> bytes:
    pair = match[1]
    return bytes.fromhex(pair.decode("ascii")) if len(pair) == 2 else pair
