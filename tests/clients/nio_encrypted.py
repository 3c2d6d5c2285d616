"""An encrypted conversation of matrix-nio, as a program: ``nio_encrypted.py URL USER PASSWORD``.

It logs in, joins the room that it is invited to, waits for a message that it can decrypt, sends an
encrypted one, deletes the user's other devices, and logs out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from importlib import import_module
from typing import Any

nio: Any = import_module("nio")

ANSWER = "an encrypted message of matrix-nio"


async def conversation(url: str, user: str, password: str, folder: str) -> dict[str, Any]:
    """Have the conversation; return what was seen of it."""
    client = nio.AsyncClient(url, user, store_path=folder)
    happened: dict[str, Any] = {"received": [], "not_decrypted": 0}

    def decrypted(room: Any, event: Any) -> None:
        if event.sender != client.user_id:
            happened["received"].append([event.body, event.decrypted])

    def not_decrypted(room: Any, event: Any) -> None:
        happened["not_decrypted"] += 1

    client.add_event_callback(decrypted, nio.RoomMessageText)
    client.add_event_callback(not_decrypted, nio.MegolmEvent)
    try:
        flows = await client.login_info()
        happened["flows"] = flows.flows
        login = await client.login(password, device_name="nio")
        happened["login"] = type(login).__name__
        happened["keys"] = type(await client.keys_upload()).__name__
        while not happened["received"]:
            await client.sync(timeout=500)
            for room in list(client.invited_rooms):
                await client.join(room)
            if client.should_upload_keys:
                await client.keys_upload()
            if client.should_query_keys:
                await client.keys_query()
        (room,) = client.rooms
        happened["encrypted"] = client.rooms[room].encrypted
        sent = await client.room_send(
            room,
            "m.room.message",
            {"msgtype": "m.text", "body": ANSWER},
            ignore_unverified_devices=True,
        )
        happened["sent"] = type(sent).__name__
        happened["deletions"] = await deletions(client, user, password)
        happened["devices"] = [each.id for each in (await client.devices()).devices]
        happened["logout"] = type(await client.logout()).__name__
    finally:
        await client.close()
    return happened


async def deletions(client: Any, user: str, password: str) -> list[str]:
    """Delete the user's other devices; return the names of nio's responses.

    The first request has no password, the second has a wrong one.
    """
    others = [each.id for each in (await client.devices()).devices if each.id != client.device_id]
    asked = await client.delete_devices(others)
    happened = [type(asked).__name__]
    for typed in (f"not {password}", password):
        identifier = {"type": "m.id.user", "user": user}
        auth = {"type": "m.login.password", "identifier": identifier, "password": typed}
        answer = await client.delete_devices(others, {**auth, "session": asked.session})
        happened.append(type(answer).__name__)
    return happened


if __name__ == "__main__":
    url, user, password = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(conversation(url, user, password, folder))
    print("RESULT " + json.dumps(result))
