"""Token stores, as the configuration names them."""

from typing import TYPE_CHECKING, Any

from synapse_login_module.stores.memory import MemoryTokenStore
from synapse_login_module.stores.sqlite import SQLiteTokenStore

if TYPE_CHECKING:
    from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore

__all__ = ["MemoryTokenStore", "PostgreSQLTokenStore", "SQLiteTokenStore"]


def __getattr__(name: str) -> Any:
    """Import what needs a driver only when it is named."""
    if name != "PostgreSQLTokenStore":
        raise AttributeError(f"there is no store {name}")
    from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore

    return PostgreSQLTokenStore
