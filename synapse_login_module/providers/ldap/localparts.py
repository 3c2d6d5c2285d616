"""The local part of a user ID, made from the attributes of an entry.

Each way can be reversed: it says which entries make a given local part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import islice, product
from math import prod
from typing import Annotated, Any, Protocol

from pydantic import Field

from synapse_login_module.config.validation import Strict, config_path, validate
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import fold, localpart_from
from synapse_login_module.providers.ldap.filters import both, equals, has, one_of
from synapse_login_module.providers.ldap.messages import Entry, texts

_PLACEHOLDER = re.compile(r"\{([A-Za-z][A-Za-z0-9-]*)\}")

_MOST = 32
"""How many ways there may be to divide a local part among the attributes of a template, those that
lead nowhere included, and how many combinations of their values. The search and the work for one
login are bounded by it."""

ATTRIBUTE = r"^[A-Za-z][A-Za-z0-9-]*$"


class _AddressKeys(Strict):
    address: Annotated[str, Field(pattern=ATTRIBUTE)]
    domains: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^@\s]+$")], ...], Field(strict=False, min_length=1)
    ]


class Localpart(Protocol):
    """A way to make local parts.

    :ivar attributes: the attributes that it reads.
    :ivar described: what it reads, for messages about an entry that has none or several of it.
    """

    attributes: Sequence[str]
    described: str

    def names(self, entry: Entry) -> Sequence[str]:
        """Make all names of an entry. They need not be valid local parts."""

    def makes(self, localpart: str) -> Any | None:
        """Return the filter of entries that make a local part; ``None`` when none can."""


def some(localpart: Localpart) -> Any:
    """Return the filter of entries that have every attribute that is needed."""
    return _all([has(each) for each in localpart.attributes])


def unmatched(localpart: Localpart, value: str) -> Any:
    """Return a filter like those of :meth:`Localpart.makes`, with a value that no entry has."""
    return _all([equals(each, value) for each in localpart.attributes])


class Template:
    """Attributes with text between them, such as ``{givenName}.{sn}``.

    :param text: the template.
    :raise ValueError: when it makes no local part, or none that can be divided again.
    """

    def __init__(self, text: str) -> None:
        pieces = _PLACEHOLDER.split(text)
        self._texts = [fold(each) for each in pieces[::2]]
        self.attributes: Sequence[str] = pieces[1::2]
        self.described = text if len(pieces) > 3 or any(self._texts) else self.attributes[0]
        between = self._texts[1:-1]
        if not self.attributes:
            raise ValueError("there is no attribute in it, such as {givenName}")
        if len({fold(each) for each in self.attributes}) < len(self.attributes):
            raise ValueError("an attribute is in it twice")
        if not all(between):
            raise ValueError("two attributes need some text between them, such as a dot")
        if any(each and localpart_from(f"a{each}") is None for each in self._texts):
            raise ValueError("only letters, digits and . _ = / + - can stand between attributes")

    def names(self, entry: Entry) -> Sequence[str]:
        """Make a name of each combination of values; of some, if there are too many."""
        values = [texts(entry, each) for each in self.attributes]
        if len(values) > 1 and prod(map(len, values)) > _MOST:
            # Still several, so that no one of them counts unless the client has typed it.
            values = [each[:2] for each in values]
        return [self._fill(each) for each in product(*values) if all(each)]

    def makes(self, localpart: str) -> Any | None:
        """Return the filter of entries with some division of the local part as their values."""
        found = list(islice(self._divide(localpart, 0), _MOST + 1))
        ways = [values for values in found if values is not None]
        if not ways or len(found) > _MOST:
            return None
        return one_of([_all(list(map(equals, self.attributes, values))) for values in ways])

    def _fill(self, values: Sequence[str]) -> str:
        filled = zip(values, self._texts[1:], strict=True)
        return self._texts[0] + "".join(f"{value}{text}" for value, text in filled)

    def _divide(self, rest: str, index: int) -> Iterator[tuple[str, ...] | None]:
        """Divide a local part among the attributes from one on; none of them is empty.

        ``None`` stands for a way that leads nowhere, so that these are counted too.
        """
        text = self._texts[index]
        if not fold(rest).startswith(text):
            return
        rest = rest[len(text) :]
        if index == len(self.attributes):
            if not rest:
                yield ()
            return
        following = self._texts[index + 1]
        last = index + 1 == len(self.attributes)
        if last:
            ends = [len(rest) - len(following)] if fold(rest).endswith(following) else []
        else:
            ends = [each.start() for each in re.finditer(f"(?={re.escape(following)})", fold(rest))]
        ends = [end for end in ends if end > 0]
        if not ends:
            yield None
        for end in ends:
            for others in self._divide(rest[end:], index + 1):
                yield None if others is None else (rest[:end], *others)


class Address:
    """The part before the ``@`` of an address, if its domain is one of some.

    :param attribute: the attribute that holds addresses.
    :param domains: the domains.
    """

    def __init__(self, attribute: str, domains: Sequence[str]) -> None:
        self.attributes: Sequence[str] = (attribute,)
        self._domains = [fold(each) for each in domains]
        self.described = f"{attribute} in {', '.join(self._domains)}"

    def names(self, entry: Entry) -> Sequence[str]:
        """Make a name of each address in one of the domains."""
        found: dict[str, str] = {}
        for value in texts(entry, self.attributes[0]):
            name, _, domain = value.rpartition("@")
            if name and fold(domain) in self._domains:
                found.setdefault(fold(name), name)
        return list(found.values())

    def makes(self, localpart: str) -> Any | None:
        """Return the filter of entries with such an address."""
        return one_of([equals(self.attributes[0], f"{localpart}@{each}") for each in self._domains])


def localpart_of(given: object, uid: str) -> Localpart:
    """Check the key ``localpart``.

    :param given: its value; ``None`` where the attribute ``uid`` is the local part.
    :raise ConfigError: when it makes no local part.
    """
    if given is None:
        return Template(f"{{{uid}}}")
    if isinstance(given, str):
        return config_path("localpart", Template, given)
    if not isinstance(given, Mapping):
        raise ConfigError("localpart", 'a template, or a mapping of "address" and "domains"')
    keys = config_path("localpart", validate, _AddressKeys, given)
    return Address(keys.address, keys.domains)


def _all(filters: Sequence[Any]) -> Any:
    return reduce(both, filters)
