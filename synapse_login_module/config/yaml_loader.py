"""Reads YAML files without YAML's surprises, such as sexagesimal numbers and repeated keys."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

from synapse_login_module.config.files import read_bytes
from synapse_login_module.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"

_QUOTED = "put text that begins with this character in quotes"
_PROBLEMS = {
    " tag": f"an exclamation mark begins a tag, and this tag is unknown: {_QUOTED}",
    " alias": f"an asterisk begins an alias, and this alias is unknown: {_QUOTED}",
    "cannot start any token": f"no plain text begins with this character: {_QUOTED}",
}
"""Messages by a part of PyYAML's, which they replace. Some of PyYAML's quote the text, which may be
a password that begins with such a character.
"""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NOT_PRINTABLE = yaml.reader.Reader.NON_PRINTABLE

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """A safe loader that reads ``1:30`` and ``2024-01-01`` as text."""


_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"),
    "tag:yaml.org,2002:float": re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?\Z"),
}
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, _NUMBERS.get(tag, pattern))
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:timestamp"
    ]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}


def load(path: Path) -> dict[str, Any]:
    """Read and parse a file; see :func:`parse`."""
    return parse(read_bytes(path))


def parse(document: bytes) -> dict[str, Any]:
    """Parse a document that is one mapping with text as keys, without repeated keys at any depth.

    :raise ConfigError: with one line, when it is anything else.
    """
    text = _decoded(document)
    if not text.strip():
        raise ConfigError("", "the file is empty")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _refuse_equal_keys(node)
        loaded = node and loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError("", where + _problem(error)) from None
    except Exception as error:  # PyYAML's constructors may raise anything on odd tags
        problem = "a tag (!!int, !!timestamp …) does not fit its value"
        raise ConfigError("", f"not YAML: {problem}: {type(error).__name__}") from None
    if loaded is None:
        raise ConfigError("", "there is nothing in the file but comments")
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ConfigError("", "not a mapping with text as keys")
    return loaded


def _problem(error: yaml.MarkedYAMLError) -> str:
    """Return the message of a parse error, without any of the text."""
    problem = str(error.problem or error.context)
    return next((ours for theirs, ours in _PROBLEMS.items() if theirs in problem), problem)


def _decoded(document: bytes) -> str:
    """Decode a document.

    :raise ConfigError: with the line of the first invalid byte or character.
    """
    try:
        text = document.decode("utf-16" if document[:2] in _UTF_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = document.count(b"\n", 0, error.start) + 1
        raise ConfigError("", f"line {line}: not UTF-8: save the file in UTF-8") from None
    odd = _NOT_PRINTABLE.search(text)
    if odd is not None:
        line = text.count("\n", 0, odd.start()) + 1
        raise ConfigError("", f"line {line}: the character U+{ord(odd[0]):04X} cannot be in YAML")
    return text


def _refuse_equal_keys(root: yaml.Node | None) -> None:
    """Reject repeated keys in the nodes, before merge keys are applied.

    :raise yaml.constructor.ConstructorError: with the line of the second key.
    """
    seen: set[int] = set()
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                waiting.extend((key, value))
                if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                    continue
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} is given twice",
                        problem_mark=key.start_mark,
                    )
                keys.add(key.value)
