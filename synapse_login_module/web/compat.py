"""Whether this Twisted has what this room needs of ``twisted.web`` beyond its documented names.

A release of Twisted that lacks one of the names stops the start with a sentence, and no request
with a traceback. Tested with Twisted 24.7 and 26.10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dis import get_instructions
from inspect import isfunction

from twisted.web import http

NEEDED: Mapping[str, Sequence[str]] = {
    "HTTPChannel": (
        "_buffer",
        "_dataBuffer",
        "_handlingRequest",
        "_networkProducer",
        "_receivedHeaderCount",
        "_receivedHeaderSize",
        "_respondToBadRequestAndDisconnect",
        "_send100Continue",
        "_transferDecoder",
        "_waitingForTransport",
    ),
    "Request": ("startedWriting",),
    "_ChunkedTransferDecoder": ("_maxTrailerHeadersSize",),
}
"""The attributes that are read, set or overridden, by the class of ``twisted.web.http``."""


def find_incompatibility() -> str | None:
    """Name what this room needs of ``twisted.web`` and does not find, or return ``None``."""
    for owner, needed in NEEDED.items():
        found = attributes(getattr(http, owner, object))
        for name in needed:
            if name not in found:
                return f"twisted.web.http.{owner}.{name}"
    return None


def attributes(owner: type) -> frozenset[str]:
    """Return the names of a class, and those that its methods set on an instance."""
    return frozenset((*dir(owner), *_set_by_methods(owner)))


def _set_by_methods(owner: type) -> Iterator[str]:
    for each in owner.__mro__:
        for method in filter(isfunction, vars(each).values()):
            for instruction in get_instructions(method):
                if instruction.opname == "STORE_ATTR":
                    yield instruction.argval
