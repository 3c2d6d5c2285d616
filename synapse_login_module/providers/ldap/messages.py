"""Encoding and decoding LDAP messages with ldaptor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ldaptor.protocols import pureber, pureldap  # type: ignore[import-untyped]
from ldaptor.protocols.ldap import ldaperrors  # type: ignore[import-untyped]

from synapse_login_module.model import fold
from synapse_login_module.providers.ldap.policies import PolicyError, policy_error
from synapse_login_module.providers.ldap.result_codes import SIZE_LIMIT_EXCEEDED, SUCCESS

MESSAGE_BYTES = 64 * 1024
"""The longest message that a server may send, in bytes. An entry has a few attributes of one user.
"""


@dataclass(frozen=True)
class Search:
    """A search. Neither aliases nor referrals are followed.

    :param base: the distinguished name of the base.
    :param whole_tree: whether to search at and below the base; otherwise the base alone.
    :param filter: an ldaptor filter.
    :param attributes: the names of the attributes to return.
    """

    base: str | bytes
    whole_tree: bool
    filter: Any
    attributes: Sequence[str]


@dataclass(frozen=True)
class Entry:
    """An entry that a search found.

    :param dn: the distinguished name as the server spells it.
    :param attributes: the values, by the name of the attribute in lower case.
    """

    dn: bytes
    attributes: Mapping[str, Sequence[bytes]]


@dataclass(frozen=True)
class Result:
    """The result of an operation.

    :param code: the result code (RFC 4511, appendix A).
    :param message: the server's diagnostic message, at most 200 characters.
    :param entries: the entries that a search found; no more than two are kept.
    :param policy: the error of the password policy that comes with the result of a bind.
    """

    code: int
    message: str
    entries: Sequence[Entry] = ()
    policy: PolicyError | None = None

    @property
    def several(self) -> bool:
        """Whether a search found more than one entry."""
        return len(self.entries) > 1 or self.code == SIZE_LIMIT_EXCEEDED

    def __str__(self) -> str:
        known = ldaperrors.LDAPExceptionCollection.collection.get(self.code)
        name = known.name.decode("ascii") if known else f"result {self.code}"
        return f"{name} ({self.message})" if self.message else name


class _Opaque(pureber.BERDecoderContext):  # type: ignore[misc]
    """Decodes unknown elements as octets; ldaptor's own context prints a message for each."""

    def lookup_id(self, id: int) -> Any:  # noqa: A002  the name is ldaptor's
        return super().lookup_id(id) or pureber.BEROctetString


_OPERATIONS = pureldap.LDAPBERDecoderContext(fallback=_Opaque())
_DECODER = pureldap.LDAPBERDecoderContext_TopLevel(
    inherit=pureldap.LDAPBERDecoderContext_LDAPMessage(fallback=_OPERATIONS, inherit=_OPERATIONS)
)


def search_request(search: Search, entries: int, seconds: int) -> Any:
    """Make the request of a search.

    :param entries: the size limit.
    :param seconds: the time limit.
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
    """Say whether a password may be sent to a directory.

    A bind with an empty password succeeds without authentication (RFC 4513, section 5.1.2). A
    server that reads a password up to the first NUL takes one that begins with a NUL for empty.
    """
    return bool(password) and not password.startswith("\0")


def bind_request(name: str | bytes, password: str) -> Any:
    """Make the request of a bind.

    :param password: the password. An empty one would be an unauthenticated bind, which succeeds.
    :raise ValueError: when the password is empty.
    """
    if not password:
        raise ValueError("a bind without a password asks for nothing")
    return pureldap.LDAPBindRequest(dn=name, auth=octets(password))


@dataclass(frozen=True)
class Frame:
    """A message that is decoded only so far that its request is known.

    :param message_id: the message ID of the request; 0 for an unsolicited notification.
    :param ends_search: whether it is the last message of a search.
    :param octets: the whole message.
    """

    message_id: int
    ends_search: bool
    octets: bytes


def take_frame(buffer: bytearray) -> Frame | None:
    """Take the next message out of a buffer; return ``None`` when it is not complete.

    :raise Exception: of any type, when it is not an LDAP message.
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
    # A message ID has at most four octets (RFC 4511, section 4.1.1), and an operation follows it.
    if not 1 <= digits <= 4 or operation >= whole:
        raise ValueError("not a message")
    number = int.from_bytes(encoded[head + 2 : operation], "big", signed=True)
    return Frame(number, encoded[operation] == pureldap.LDAPSearchResultDone.tag, encoded)


def decoded(frame: Frame) -> tuple[Any, Any]:
    """Decode a message: the response, in ldaptor's class, and its controls.

    :raise Exception: of any type, when it is not a response.
    """
    message, _ = pureber.berDecodeObject(_DECODER, frame.octets)
    return message.value, message.controls


def entry_of(answer: Any) -> Entry:
    """Read the entry in the response to a search."""
    return Entry(
        _checked(answer.objectName),
        {
            _checked(name).decode("ascii").lower(): tuple(_checked(value) for value in values)
            for name, values in answer.attributes
        },
    )


def texts(entry: Entry, attribute: str | None) -> tuple[str, ...]:
    """Return the values of an attribute that are text."""
    found = []
    for value in entry.attributes.get(fold(attribute or ""), ()):
        with suppress(UnicodeDecodeError):
            found.append(value.decode("utf-8"))
    return tuple(found)


def result_of(answer: Any, controls: Any, entries: Sequence[Entry]) -> Result:
    """Read the result in the last response to a request.

    :param controls: the controls of the response.
    """
    if not isinstance(answer.resultCode, int):
        raise TypeError("not a code")
    text = _checked(answer.errorMessage).decode("utf-8", "replace")
    policy = None
    if isinstance(answer, pureldap.LDAPBindResponse):
        policy = policy_error(controls, answer.resultCode == SUCCESS)
    return Result(answer.resultCode, one_line(text)[:200], tuple(entries), policy)


def _checked(octets: object) -> bytes:
    """Check that a value is octets. ldaptor does not check the type of what it decodes."""
    if not isinstance(octets, bytes):
        raise TypeError("not octets")
    return octets


def octets(text: str) -> bytes:
    """Encode text as LDAP does. Lone surrogates, which no entry has, are not an error."""
    return text.encode("utf-8", "surrogatepass")


def one_line(text: str) -> str:
    """Make text fit for one line of a log, without line ends and terminal control characters."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable())
