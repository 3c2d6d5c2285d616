"""The entries of this package's module in Synapse's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MODULE = "synapse_login_module.SynapseLoginModule"
"""The path of the module, as operators write it."""

_PACKAGE, _, _NAME = MODULE.partition(".")


def is_ours(entry: object) -> bool:
    """Say whether an entry of ``modules`` is this package's module, by any path in the package."""
    if not isinstance(entry, Mapping):
        return False
    package, *rooms = str(entry.get("module")).split(".")
    return package == _PACKAGE and rooms[-1:] == [_NAME]


def own_entries(given: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """List the entries of this package's module, with their places in ``modules``.

    :param given: Synapse's configuration, which may be mistaken.
    """
    entries = given.get("modules")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if is_ours(entry):
            yield index, entry
