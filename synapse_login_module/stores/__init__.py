"""The token stores that a configuration can name."""

from typing import TYPE_CHECKING, Any

from synapse_login_module.stores.memory import MemoryTokenStore
from synapse_login_module.stores.sqlite import SQLiteTokenStore

if TYPE_CHECKING:
    from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore

__all__ = ["MemoryTokenStore", "PostgreSQLTokenStore", "SQLiteTokenStore"]


def __getattr__(name: str) -> Any:
    """Import a store that needs a database driver when its name is first used."""
    if name != "PostgreSQLTokenStore":
        raise AttributeError(f"there is no store {name}")
    from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore

    return PostgreSQLTokenStore
