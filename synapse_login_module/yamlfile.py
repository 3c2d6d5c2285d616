"""YAML files, read without YAML's surprises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from synapse_login_module.errors import ConfigError

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """A safe loader that refuses equal keys, and to which ``1:30`` and ``2024-01-01`` are text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            problem=f"the key {key.value!r} stands there twice",
                            problem_mark=key.start_mark,
                        )
                    seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


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
    """Read a file that holds one mapping.

    :raise ConfigError: on one line, when it cannot be read or is no such thing.
    """
    try:
        with path.open("rb") as file:
            loaded = yaml.load(file, Loader=_Loader)  # noqa: S506  a safe loader
    except OSError as error:
        raise ConfigError("", f"cannot read it: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError("", f"{where}{error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        raise ConfigError("", f"not YAML: {type(error).__name__}") from None
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ConfigError("", "not a mapping with text as keys")
    return loaded
