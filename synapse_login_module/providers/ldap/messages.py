"""What goes over the wire: ldaptor's messages, and what is read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldaptor.protocols import pureber, pureldap  # type: ignore[import-untyped]
from ldaptor.protocols.ldap import ldaperrors  # type: ignore[import-untyped]

from synapse_login_module.providers.ldap.result_codes import SIZE_LIMIT_EXCEEDED

MESSAGE_BYTES = 64 * 1024
"""The longest message that a server may send; an entry holds four attributes of one person."""


@dataclass(frozen=True)
class Search:
    """What to search for; neither aliases nor referrals are followed.

    :param whole_tree: at and below the base; otherwise the base alone.
    :param filter: an ldaptor filter.
    """

    base: str | bytes
    whole_tree: bool
    filter: Any
    attributes: Sequence[str]


@dataclass(frozen=True)
class Entry:
    """An entry that a search found.

    :param dn: as the server spells it.
    :param attributes: the values, by the name of the attribute in lower case.
    """

    dn: bytes
    attributes: Mapping[str, Sequence[bytes]]


@dataclass(frozen=True)
class Result:
    """How an operation ended.

    :param entries: what a search found; no more than two are kept.
    """

    code: int
    message: str
    entries: Sequence[Entry] = ()

    @property
    def several(self) -> bool:
        """Whether a search found more than one entry."""
        return len(self.entries) > 1 or self.code == SIZE_LIMIT_EXCEEDED

    def __str__(self) -> str:
        known = ldaperrors.LDAPExceptionCollection.collection.get(self.code)
        name = known.name.decode("ascii") if known else f"result {self.code}"
        return f"{name} ({self.message})" if self.message else name


class _Opaque(pureber.BERDecoderContext):  # type: ignore[misc]
    """Reads what it does not know as mere octets, where ldaptor prints a complaint."""

    def lookup_id(self, id: int) -> Any:  # noqa: A002  the name is ldaptor's
        return super().lookup_id(id) or pureber.BEROctetString


_OPERATIONS = pureldap.LDAPBERDecoderContext(fallback=_Opaque())
_DECODER = pureldap.LDAPBERDecoderContext_TopLevel(
    inherit=pureldap.LDAPBERDecoderContext_LDAPMessage(fallback=_OPERATIONS, inherit=_OPERATIONS)
)


def search_request(search: Search, entries: int, seconds: int) -> Any:
    """The request for a search.

    :param entries: how many may be found.
    :param seconds: how long it may take.
    """
    return pureldap.LDAPSearchRequest(
        baseObject=search.base,
        scope=(
            pureldap.LDAP_SCOPE_wholeSubtree
            if search.whole_tree
            else pureldap.LDAP_SCOPE_baseObject
        ),
        derefAliases=pureldap.LDAP_DEREF_neverDerefAliases,
        sizeLimit=entries,
        timeLimit=seconds,
        filter=search.filter,
        attributes=search.attributes,
    )


def can_be_sent(password: str) -> bool:
    """Whether a password may go to a directory. Without one a bind succeeds, as nobody; so it does
    with one that begins with a NUL, at a server that reads up to the first.
    """
    return bool(password) and not password.startswith("\0")


def bind_request(name: str | bytes, password: str) -> Any:
    """The request to bind.

    :param password: not empty: the directory would take that for nobody, and be content.
    """
    if not password:
        raise ValueError("a bind without a password asks for nothing")
    return pureldap.LDAPBindRequest(dn=name, auth=octets(password))


@dataclass(frozen=True)
class Frame:
    """A message that is read no further than to know what it belongs to.

    :param message_id: the number of the request that it answers.
    :param ends_search: whether it is the last of a search's answer.
    :param octets: the whole message.
    """

    message_id: int
    ends_search: bool
    octets: bytes


def take_frame(buffer: bytearray) -> Frame | None:
    """Take the next message out of a buffer; ``None`` when it is not there yet.

    :raise Exception: of any kind, when it is no message.
    """
    if buffer and buffer[0] != 0x30:
        raise ValueError("not a message")
    try:
        length, size = pureber.berDecodeLength(bytes(buffer[:8]), offset=1)
    except pureber.BERExceptionInsufficientData:
        if len(buffer) >= 8:
            raise
        return None
    head = 1 + size
    whole = head + length
    if length > MESSAGE_BYTES:
        raise ValueError("too long")
    if len(buffer) < whole:
        return None
    encoded = bytes(buffer[:whole])
    del buffer[:whole]
    digits = encoded[head + 1] if length > 1 and encoded[head] == 0x02 else 0
    operation = head + 2 + digits
    # A number of RFC 4511 has four octets at most, and an operation follows it.
    if not 1 <= digits <= 4 or operation >= whole:
        raise ValueError("not a message")
    number = int.from_bytes(encoded[head + 2 : operation], "big", signed=True)
    return Frame(number, encoded[operation] == pureldap.LDAPSearchResultDone.tag, encoded)


def operation_in(frame: Frame) -> Any:
    """The response in a message, as ldaptor has it.

    :raise Exception: of any kind, when it is none.
    """
    message, _ = pureber.berDecodeObject(_DECODER, frame.octets)
    return message.value


def entry_of(answer: Any) -> Entry:
    """The entry in a search's response."""
    return Entry(
        _checked(answer.objectName),
        {
            _checked(name).decode("ascii").lower(): tuple(_checked(value) for value in values)
            for name, values in answer.attributes
        },
    )


def result_of(answer: Any, entries: Sequence[Entry]) -> Result:
    """The result in a response that ends an answer."""
    if not isinstance(answer.resultCode, int):
        raise TypeError("not a code")
    text = _checked(answer.errorMessage).decode("utf-8", "replace")
    return Result(answer.resultCode, one_line(text)[:200], tuple(entries))


def _checked(octets: object) -> bytes:
    """What is to be octets; ldaptor has anything that is in their place."""
    if not isinstance(octets, bytes):
        raise TypeError("not octets")
    return octets


def octets(text: str) -> bytes:
    """Text as LDAP has it; half characters, which no entry has, are no error."""
    return text.encode("utf-8", "surrogatepass")


def one_line(text: str) -> str:
    """Text without line ends, and without what a terminal would take for a command."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable())
