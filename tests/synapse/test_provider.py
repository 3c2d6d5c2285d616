"""Tests for Synapse's own passwords, with a homeserver of the tests."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.passwords import hash_password
from tests.providers.case import PASSWORD, WONDERLAND, lines, user
from tests.support.accounts import ALICE


class Stored(NamedTuple):
    """What Synapse's database has of a user."""

    user_id: str
    password_hash: str


class StoredHashTests(SynchronousTestCase):
    """The hashes that stand in Synapse's database."""

    if find_spec("synapse") is None:
        skip = "not installed: synapse"

    def refusal(self, stored: str) -> tuple[InvalidCredentials, testing.FakeHashing, list[str]]:
        """What comes of a login with this hash: the failure, the pool, and the log's lines."""
        from synapse_login_module.synapse.provider import SynapsePasswordProvider

        def call_synapse(function: Any, *arguments: Any) -> Deferred[Stored]:
            return succeed(Stored(ALICE, stored))

        homeserver = SimpleNamespace(call_synapse=call_synapse, pepper="")
        hashing = testing.FakeHashing()
        environment = replace(testing.environment(), homeserver=homeserver, hashing=hashing)
        provider = SynapsePasswordProvider(None, environment)
        with capturedLogs() as events:
            asked = provider.authenticate(user("alice"), PASSWORD)
            failure = self.failureResultOf(asked, InvalidCredentials)
        return failure.value, hashing, lines(events)

    def test_unusable(self) -> None:
        """One that bcrypt does not take refuses every password in a wrong one's time, counts as a
        failure of that account, and is a line in the log without the hash.
        """
        stray_salt = WONDERLAND[:28] + "/" + WONDERLAND[29:]
        for stored in ("disabled", "!", stray_salt, "$argon2id$v=19$m=65536"):
            error, hashing, logged = self.refusal(stored)
            self.assertEqual(error.user_id, ALICE)
            self.assertEqual((hashing.decoys, hashing.kinds), ([PASSWORD], []))
            (line,) = logged
            self.assertIn(f"{ALICE} cannot log in: its stored hash is none that bcrypt takes", line)
            self.assertNotIn(stored, line)

    def test_wrong(self) -> None:
        """A good one refuses a wrong password, and the log has nothing to say."""
        error, hashing, logged = self.refusal(hash_password("looking-glass", "", 4))
        self.assertEqual((error.reason, error.user_id), ("wrong_password", ALICE))
        self.assertEqual((hashing.decoys, hashing.kinds, logged), ([], [new_hashes(4).kind], []))
