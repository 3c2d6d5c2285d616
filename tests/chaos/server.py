"""The server of the chaos tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import server
from tests.support.configuration import good_config, password_hash, write_config
from tests.support.ports import free_port

SERVER_NAME = "chaos.example"
USER = "alice"
PASSWORD = "correct horse"


class ChaosServer(server.Server):
    """A server without rate limits, whose tokens do not expire.

    :param folder: the folder for all its files.
    :param cost: the cost of the bcrypt hash of the one account.
    :param store: the dotted path of the token store.
    :param port: the port to listen on; ``None`` for any free one.
    :param database: the file of its sessions, if it is not in the folder.
    :param changes: changes to its configuration: keys of sections to replace, or whole values.
    :param launch: how it is started.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cost: int = 4,
        store: str = "synapse_login_module.stores.SQLiteTokenStore",
        port: int | None = None,
        database: Path | None = None,
        changes: Mapping[str, Any] | None = None,
        **launch: Any,
    ) -> None:
        folder = folder.absolute()
        folder.mkdir()
        port = port or free_port()
        self.database = database or folder / "sessions.db"
        config = good_config(
            port,
            users={USER: {"password_hash": password_hash(PASSWORD, cost)}},
            server_name=SERVER_NAME,
            token_store={"module": store, "config": {"path": str(self.database)}},
            tokens={"refreshable_access_token_lifetime": None, "reuse_interval": "1d"},
            hashing={"threads": 2, "rounds": cost},
        )
        for section, value in (changes or {}).items():
            is_section = isinstance(value, Mapping)
            config[section] = {**config.get(section, {}), **value} if is_section else value
        super().__init__(write_config(folder, config), port, **launch)
