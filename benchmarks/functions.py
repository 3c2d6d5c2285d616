"""Count the functions of this package that one login and one refresh run through.

``python -m benchmarks.functions`` starts the standalone server in this process, with accounts in a
file and sessions in SQLite, and prints a table. ``--list`` names the functions, in the order of
their first call.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.task import react

import synapse_login_module
from synapse_login_module.standalone.plan import load_config
from synapse_login_module.standalone.server import build_server
from tests.support.accounts import ALICE_PASSWORD
from tests.support.configuration import CHEAP_HASH, good_config, write_config
from tests.support.ports import free_port

_PACKAGE = Path(synapse_login_module.__file__).parent
_CLIENT = "/_matrix/client/v3"


class Calls:
    """Records the functions of this package that are called, in the order of their first call."""

    def __init__(self) -> None:
        self._called: dict[CodeType, None] = {}

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Record a call; see :func:`sys.setprofile`."""
        if event == "call" and frame.f_code.co_filename.startswith(f"{_PACKAGE}/"):
            self._called.setdefault(frame.f_code)

    def take(self) -> list[CodeType]:
        """Return the functions called since the last time."""
        found, self._called = list(self._called), {}
        return found


async def count(reactor: Any, folder: Path, calls: Calls) -> dict[str, list[CodeType]]:
    """Return the functions that each kind of request ran through.

    The first request of a kind is not counted, because it initializes things.
    """
    port = free_port()
    accounts = folder / "users.yaml"
    accounts.write_text(json.dumps({"users": {"alice": {"password_hash": CHEAP_HASH}}}))
    config = good_config(port)
    config["password_providers"][0]["config"] = {"path": str(accounts)}
    config["rate_limits"] = {}
    config["token_store"] = {
        "module": "synapse_login_module.stores.SQLiteTokenStore",
        "config": {"path": "sessions.db"},
    }
    server = build_server(load_config(write_config(folder, config), reactor), reactor)
    server.privilegedStartService()
    server.startService()

    async def post(path: str, **body: object) -> Any:
        response = await treq.post(f"http://127.0.0.1:{port}{_CLIENT}{path}", json=body)
        answer = await response.json()
        assert response.code == 200, answer
        return answer

    async def login() -> Any:
        return await post(
            "/login",
            type="m.login.password",
            identifier={"type": "m.id.user", "user": "alice"},
            password=ALICE_PASSWORD,
            refresh_token=True,
        )

    try:
        pair = await post("/refresh", refresh_token=(await login())["refresh_token"])
        calls.take()
        await login()
        found = {"POST /login": calls.take()}
        await post("/refresh", refresh_token=pair["refresh_token"])
        found["POST /refresh"] = calls.take()
        return found
    finally:
        await server.stopService()


def main() -> None:
    """Parse the command line, count and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.functions", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the functions")
    options = parser.parse_args()
    calls = Calls()

    async def work(reactor: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            found = await count(reactor, Path(folder), calls)
        for request, functions in found.items():
            files = {each.co_filename for each in functions}
            print(f"{request:16}{len(functions):4} functions in {len(files)} files")
            for each in functions if options.list else ():
                path = Path(each.co_filename).relative_to(_PACKAGE)
                print(f"    {path}:{each.co_firstlineno} {each.co_name}")

    threading.setprofile(calls.note)
    sys.setprofile(calls.note)
    react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


if __name__ == "__main__":
    main()
