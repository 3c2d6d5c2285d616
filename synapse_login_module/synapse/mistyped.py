"""Gives Synapse a clear error for a module whose name is mistyped in its configuration."""

from __future__ import annotations

from typing import NoReturn

from synapse.module_api.errors import ConfigError as SynapseConfigError


def class_named(name: str, right: str) -> type:
    """Make a class that rejects its configuration with the right name.

    :param name: the mistyped name.
    :param right: the dotted path to write in its place.
    """

    class Mistyped:
        """A module that does not exist."""

        @staticmethod
        def parse_config(given: object) -> NoReturn:
            """Reject the configuration.

            :raise synapse.module_api.errors.ConfigError: always.
            """
            raise SynapseConfigError(f"there is no {name}: write {right}")

    return Mistyped
