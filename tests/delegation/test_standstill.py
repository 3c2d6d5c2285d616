"""The store stands still while the Synapse asks about tokens."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.delegated_server import DelegatedCase, OnPostgreSQL, Reply
from tests.support.ports import free_port
from tests.support.synapse.delegating import delegating
from tests.support.waiting import together

ENDPOINT_PORT = free_port()
PROFILE = delegating("delegation-standstill", ENDPOINT_PORT)

if TYPE_CHECKING:
    _Case = DelegatedCase
else:
    _Case = object


class StandstillMixin(_Case):
    """Tokens that the Synapse does not know are used while the store stands still."""

    @contextmanager
    def standstill(self) -> Iterator[None]:
        """Have the store stand still in the body of the ``with``."""
        raise NotImplementedError

    async def test_first_use(self) -> None:
        """The client gets 503 while the store stands still, and the token works afterwards."""
        before = await self.server.login()
        after = await self.server.refresh(before)
        with self.standstill():
            # The first use of a token is recorded. These requests end while nothing moves.
            replies: list[Reply] = await together(*(self.whoami(after.token) for _ in range(20)))
        for reply in replies:
            self.assertEqual(reply.status, 503, reply)
            self.assertNotEqual(reply.content.get("errcode"), "M_UNKNOWN_TOKEN")
        reply = await self.whoami(after.token)
        self.assertEqual(reply.status, 200, reply)
        self.assertEqual((await self.whoami(before.token)).status, 401)

    async def test_known(self) -> None:
        """A token that the Synapse knows works all the while."""
        session = await self.server.login()
        self.assertEqual((await self.whoami(session.token)).status, 200)
        with self.standstill():
            self.assertEqual((await self.whoami(session.token)).status, 200)


class SQLiteTests(StandstillMixin, DelegatedCase):
    """Another process has the SQLite file locked."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT

    @contextmanager
    def standstill(self) -> Iterator[None]:
        connection = sqlite3.connect(self.server.folder / "sessions.db", isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            yield
        finally:
            connection.close()


class PostgreSQLTests(StandstillMixin, OnPostgreSQL):
    """All processes of PostgreSQL are suspended."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT

    @contextmanager
    def standstill(self) -> Iterator[None]:
        self.database.hold()
        try:
            yield
        finally:
            self.database.release()
