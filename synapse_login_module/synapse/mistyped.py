"""What Synapse is given for a module whose name is mistyped in its configuration."""

from __future__ import annotations

from typing import NoReturn

from synapse.module_api.errors import ConfigError as SynapseConfigError


def class_named(name: str, right: str) -> type:
    """Make a class whose configuration says that it does not exist.

    :param name: as it is mistyped.
    :param right: the dotted path that is meant.
    """

    class Mistyped:
        """A module that does not exist."""

        @staticmethod
        def parse_config(given: object) -> NoReturn:
            """Refuse.

            :raise synapse.module_api.errors.ConfigError: always.
            """
            raise SynapseConfigError(f"there is no {name}: write {right}")

    return Mistyped
