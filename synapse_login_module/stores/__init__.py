"""Token stores, as the configuration names them."""

from synapse_login_module.stores.memory import MemoryTokenStore
from synapse_login_module.stores.sqlite import SQLiteTokenStore

__all__ = ["MemoryTokenStore", "SQLiteTokenStore"]
