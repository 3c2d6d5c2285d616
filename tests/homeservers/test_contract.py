"""Runs the contract of homeservers, except against a real Synapse."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import TestCase

from synapse_login_module.errors import HomeserverUnavailable
from synapse_login_module.interfaces import IHomeserver
from synapse_login_module.model import HomeserverAccount
from synapse_login_module.testing import SERVER_NAME, FakeHomeserver, HomeserverContract
from tests.homeservers.case import HomeserverCase

ALICE = f"@alice:{SERVER_NAME}"


class _InMemory(HomeserverContract):
    """The contract, with accounts and devices in memory."""

    memory: FakeHomeserver

    async def deactivate(self, user_id: str) -> None:
        accounts = self.memory.accounts
        accounts[user_id] = accounts[user_id]._replace(is_deactivated=True)

    async def devices_of(self, user_id: str) -> Mapping[str, str | None]:
        return {
            device_id: name
            for (owner, device_id), name in self.memory.devices.items()
            if owner == user_id
        }

    async def make_bridged_user(self, localpart: str) -> str:
        user_id = f"@bridge_{localpart}:{SERVER_NAME}"
        self.memory.accounts[user_id] = HomeserverAccount(user_id)
        self.memory.application_services[self.as_token] = {user_id}
        return user_id

    async def reserved_user_id(self) -> str:
        user_id = f"@bridge_new:{SERVER_NAME}"
        self.memory.reserved.add(user_id)
        return user_id


class FakeHomeserverContractTests(_InMemory, TestCase):
    """The contract, for the fake."""

    def setUp(self) -> None:
        self.memory = FakeHomeserver()

    def make_homeserver(self) -> IHomeserver:
        return self.memory


class SynapseContractTests(_InMemory, HomeserverCase):
    """The contract, for a service with the answers of Synapse."""

    def setUp(self) -> None:
        super().setUp()
        self.memory = self.synapse.homeserver
        self.built = self.homeserver(forget_tokens=True)

    def make_homeserver(self) -> IHomeserver:
        return self.built


class FakeHomeserverTests(TestCase):
    """The switches of the fake."""

    def setUp(self) -> None:
        self.fake = FakeHomeserver()

    async def test_failure(self) -> None:
        """While it fails, calls are recorded and not carried out."""
        self.fake.failure = HomeserverUnavailable("down")
        with self.assertRaises(HomeserverUnavailable):
            await self.fake.make_account(ALICE, None)
        self.assertEqual(await self.fake.check(), "down")
        self.assertEqual(self.fake.accounts, {})
        self.assertEqual(self.fake.calls, [("make_account", ALICE, None)])

    async def test_lost_answers(self) -> None:
        """While it loses answers, calls are carried out and fail."""
        self.fake.loses_answers = True
        with self.assertRaises(HomeserverUnavailable):
            await self.fake.make_account(ALICE, None)
        self.assertEqual(set(self.fake.accounts), {ALICE})

    def test_held(self) -> None:
        """While it holds calls, they are carried out when it releases them, unless cancelled."""
        self.fake.held = []
        made = self.fake.make_account(ALICE, None)
        gone = self.fake.make_account(f"@bob:{SERVER_NAME}", None)
        self.assertNoResult(made)
        gone.cancel()
        self.failureResultOf(gone)
        self.fake.release()
        self.assertIs(self.successResultOf(made), True)
        self.assertEqual(set(self.fake.accounts), {ALICE})

    async def test_problem(self) -> None:
        """A check fires with the problem that it is given."""
        self.fake.problem = "wrong secret"
        self.assertEqual(await self.fake.check(), "wrong secret")

    async def test_record(self) -> None:
        """It records what it forgets, and who may reset cross-signing."""
        await self.fake.make_account(ALICE, None)
        await self.fake.forget_tokens(ALICE, None)
        await self.fake.allow_cross_signing_reset(ALICE)
        self.assertEqual((self.fake.forgotten, self.fake.resets), ([(ALICE, None)], [ALICE]))
