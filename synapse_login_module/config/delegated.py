"""The module's configuration in a Synapse that delegates authentication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse_login_module.config.validation import Strict, validate
from synapse_login_module.errors import Mistakes

_DELEGATED = "delegated"


class DelegatedConfig(Strict):
    """The module's configuration in a Synapse that delegates authentication."""

    delegated: bool


def is_delegated(given: object) -> bool:
    """Say whether a ``config:`` block is for a Synapse that delegates authentication."""
    return isinstance(given, Mapping) and given.get(_DELEGATED) is True


def parse_delegated(given: Mapping[str, Any]) -> DelegatedConfig:
    """Check such a ``config:`` block.

    :raise synapse_login_module.errors.ConfigError: with the path of every other key.
    """
    mistakes = Mistakes()
    for key in given:
        if key != _DELEGATED:
            mistakes.add(str(key), "not valid beside delegated: true, which is all that applies")
    mistakes.raise_any()
    return validate(DelegatedConfig, given)
