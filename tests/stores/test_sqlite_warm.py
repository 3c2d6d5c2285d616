"""Tests for sessions that are read again, on the caller's thread."""

from __future__ import annotations

import sqlite3

from twisted.internet.defer import Deferred

from synapse_login_module.errors import ExpiredToken, StoreUnavailable, UnknownToken
from synapse_login_module.model import Login, SessionInfo, TokenPair
from synapse_login_module.stores import SQLiteTokenStore
from tests.stores.test_stores import ALICE, SQLiteTestCase


class WarmSessionTests(SQLiteTestCase):
    """Sessions of access tokens that have been found before."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_shared()
        self.login = self.issue(self.store, "PHONE")
        self.wait_for(self.look())

    def open_shared(self) -> SQLiteTokenStore:
        """Open a store on the file that has shared its keys."""
        store = self.open()
        self.wait_for(store.share_token_keys())
        return store

    def look(self, token: str | None = None, allow_expired: bool = False) -> Deferred[SessionInfo]:
        """Find the session of a token, by default of the login's."""
        return self.store.session_for_access_token(
            token or self.login.tokens.access_token, allow_expired
        )

    def refresh(self, login: Login, strict: bool) -> TokenPair:
        """Refresh a session."""
        assert login.tokens.refresh_token is not None
        presented = self.wait_for(self.store.present(login.tokens.refresh_token))
        return self.wait_for(self.store.refresh(presented, None, strict))

    def test_at_once(self) -> None:
        """The session is there at once, and is the same as before."""
        warm = self.successResultOf(self.look())
        self.assertEqual((warm.user_id, warm.device_id), (ALICE, "PHONE"))
        other = self.issue(self.store)
        cold = self.look(other.tokens.access_token)
        self.assertNoResult(cold)
        self.assertEqual(self.wait_for(cold).device_id, other.device_id)
        self.successResultOf(self.look(other.tokens.access_token))

    def test_revoked(self) -> None:
        """A session that has ended is not found, once its end is acknowledged."""
        session = self.successResultOf(self.look())
        self.wait_for(self.store.revoke(session))
        self.failureResultOf(self.look(), UnknownToken)

    def test_revoked_elsewhere(self) -> None:
        """The same goes for the end of a session by another server on the file."""
        self.wait_for(self.open_shared().revoke_all(ALICE))
        self.failureResultOf(self.look(), UnknownToken)

    def test_superseded(self) -> None:
        """After a strict refresh the old token is rejected, and the new one is accepted."""
        new = self.refresh(self.login, strict=True)
        self.failureResultOf(self.look(), ExpiredToken)
        self.assertEqual(self.successResultOf(self.look(new.access_token)).device_id, "PHONE")

    def test_confirms(self) -> None:
        """The first use of a new token is written, and from then on the old one is rejected."""
        new = self.refresh(self.login, strict=False)
        self.successResultOf(self.look())
        confirming = self.look(new.access_token)
        self.assertNoResult(confirming)
        self.wait_for(confirming)
        self.failureResultOf(self.look(), ExpiredToken)
        self.successResultOf(self.look(new.access_token))
        confirmed = self.select("SELECT generation, confirmed FROM sessions")
        self.assertEqual(confirmed, [(1, 1)])

    def test_expired(self) -> None:
        """A token expires in time."""
        assert self.login.tokens.expires_in_ms is not None
        self.clock.advance(self.login.tokens.expires_in_ms / 1000)
        self.failureResultOf(self.look(), ExpiredToken)
        self.successResultOf(self.look(allow_expired=True))

    def test_forged(self) -> None:
        """A token that is not authentic is rejected, although its session has been read."""
        token = self.login.tokens.access_token
        forged = token[:-1] + ("A" if token[-1] != "A" else "Q")
        self.failureResultOf(self.look(forged), UnknownToken)

    def test_key_not_shared(self) -> None:
        """As long as the store's keys have not been compared, the thread decides."""
        self.store = self.open()
        self.wait_for(self.look())
        self.store._shared._shared = {}, set()
        asked = self.look()
        self.assertNoResult(asked)
        self.wait_for(asked)

    def test_failing_read(self) -> None:
        """If a read fails here, the thread reads."""
        assert self.store._connection is not None
        self.store._connection.close()
        asked = self.look()
        self.assertNoResult(asked)
        self.assertEqual(self.wait_for(asked).device_id, "PHONE")

    def test_nothing_written(self) -> None:
        """The connection of this thread cannot write."""
        assert self.store._connection is not None
        with self.assertRaises(sqlite3.OperationalError):
            self.store._connection.execute("DELETE FROM sessions")

    def test_writer_not_delayed(self) -> None:
        """No read stays open, so that the file of changes can be emptied."""
        self.successResultOf(self.look())
        [(busy, _, _)] = self.select("PRAGMA wal_checkpoint(TRUNCATE)")
        self.assertEqual(busy, 0)

    def test_stopped(self) -> None:
        """After the stop nothing is read."""
        self.close(self.store)
        self.failureResultOf(self.look(), StoreUnavailable)
