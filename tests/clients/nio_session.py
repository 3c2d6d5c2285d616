"""A session of matrix-nio, as a program: ``nio_session.py URL USER PASSWORD [sync]``.

It logs in, asks for ``whoami``, syncs if told to, logs out, and tries the access token once more.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from typing import Any

nio: Any = import_module("nio")


async def session(url: str, user: str, password: str, with_sync: bool) -> dict[str, Any]:
    """Run the session; return the names and contents of nio's responses."""
    client = nio.AsyncClient(url, user)
    happened: dict[str, Any] = {}
    try:
        login = await client.login(password, device_name="nio")
        happened["login"] = [type(login).__name__, getattr(login, "status_code", None)]
        if not client.logged_in:
            return happened
        happened["user_id"] = client.user_id
        whoami = await client.whoami()
        happened["whoami"] = [type(whoami).__name__, whoami.user_id, whoami.device_id]
        happened["device_id"] = client.device_id
        if with_sync:
            room = await client.room_create(name="nio's room")
            happened["room"] = type(room).__name__
            sync = await client.sync(timeout=0, full_state=True)
            happened["sync"] = [type(sync).__name__, room.room_id in sync.rooms.join]
        token = client.access_token
        happened["logout"] = type(await client.logout()).__name__
        client.access_token = token
        after = await client.whoami()
        happened["after"] = [type(after).__name__, getattr(after, "status_code", None)]
    finally:
        await client.close()
    return happened


if __name__ == "__main__":
    url, user, password, *more = sys.argv[1:]
    result = asyncio.run(session(url, user, password, "sync" in more))
    print("RESULT " + json.dumps(result))
