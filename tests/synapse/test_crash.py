"""Synapse is killed, as ``kill -9`` does, and no acknowledged pair is lost and no chain forked."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater
from twisted.web._newclient import RequestNotSent
from twisted.web.client import RequestTransmissionFailed, ResponseFailed

from tests.support.response import Response
from tests.support.synapse.profile import Profile
from tests.support.waiting import reactor
from tests.synapse.client import Pair, SynapseClient
from tests.synapse.tokens import TokenCase

_KILLS = 10
_CLIENTS = 4
BROKEN = (
    ConnectError,
    ConnectionClosed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
)

_PATIENT = {"reuse_interval": "10m"}
"""A busy machine takes longer to start Synapse again than two requests may race."""


class Device:
    """A client that refreshes without pause until Synapse dies.

    :ivar pair: the last pair whose answer came.
    :ivar before: the pair before it.
    :ivar refreshes: how many answers came.
    """

    def __init__(self, client: SynapseClient, pair: Pair) -> None:
        self._client = client
        self.pair = pair
        self.before: Pair | None = None
        self.refreshes = 0

    async def refresh_until_death(self) -> None:
        """Refresh strictly; ends when an answer fails to come."""
        while True:
            try:
                answer = await self._client.tokenrefresh(self.pair)
            except BROKEN:
                return
            self.advance(answer)

    def advance(self, answer: Response) -> None:
        """Take the next pair."""
        self.before, self.pair = self.pair, self.pair.then(answer)
        self.refreshes += 1


class KillTests(TokenCase):
    """Killed at any moment."""

    profile = Profile("killed", module={"tokens": _PATIENT})
    timeout = 300

    async def test_kill(self) -> None:
        """Killed again and again amid strict refreshes, Synapse forgets and forks nothing.

        After each death, for each client: the pair it holds works, or the refresh that was never
        answered went through and that pair is dead at both endpoints. Never both, and never do
        two pairs live.
        """
        refreshes, lost, kept = 0, 0, 0
        for number in range(_KILLS):
            devices = [Device(self.client, await self.client.pair()) for _ in range(_CLIENTS)]
            running = [Deferred.fromCoroutine(each.refresh_until_death()) for each in devices]
            await deferLater(reactor, 0.05 + 0.037 * number)
            await self.server.kill()
            await gatherResults(running)
            await self.server.start()
            for device in devices:
                refreshes += device.refreshes
                if await self.outcome(device):
                    kept += 1
                else:
                    lost += 1
        self.assertEqual(kept + lost, _KILLS * _CLIENTS)
        self.assertGreater(refreshes, 0)
        self.assertGreater(kept, 0, "no client kept its pair: nothing was shown")

    async def outcome(self, device: Device) -> bool:
        """Whether the last pair that was acknowledged works; if not, check that it is dead."""
        pair = device.pair
        self.assertLessEqual(self.chained_tokens(pair), 1)
        alive = (await self.client.whoami(pair.access)).status == 200
        answer = await self.client.tokenrefresh(pair)
        self.assertEqual(answer.status, 200 if alive else 403, str(answer))
        if alive:
            await self.assert_live(pair.then(answer))
            await self.assert_dead(pair.access, soft_logout=True)
        else:
            await self.assert_dead(pair.access, soft_logout=True)
            self.assert_error(await self.client.own_refresh(pair), 403, "M_FORBIDDEN")
        if device.before is not None:
            self.assertEqual((await self.client.whoami(device.before.access)).status, 401)
        self.assertEqual(self.chained_tokens(pair), 1)
        return alive


class MomentTests(TokenCase):
    """Killed at a chosen moment of a strict refresh."""

    profile = Profile("killed-within", module={"tokens": {"refresh_token": "always", **_PATIENT}})

    async def die(self, moment: str) -> Pair:
        """Have Synapse killed within a refresh, and start it again; the pair that was presented."""
        pair = await self.client.rotate(await self.client.pair())
        self.server.set_fault(moment)
        with self.assertRaises(BROKEN):
            await self.client.tokenrefresh(pair)
        await self.server.wait_for_death()
        self.server.set_fault("")
        await self.server.start()
        return pair

    async def test_in_the_transaction(self) -> None:
        """Killed inside the transaction, the old pair is intact: access, and both refreshes."""
        pair = await self.die("kill in transaction")
        await self.assert_live(pair)
        new = await self.client.rotate(pair)
        await self.assert_live(new)
        await self.assert_dead(pair.access, soft_logout=True)
        pair = await self.die("kill in transaction")
        await self.assert_live(pair.then(await self.client.own_refresh(pair)))

    async def test_after_the_commit(self) -> None:
        """Killed after it, the old pair is dead everywhere: the client has to log in again."""
        pair = await self.die("kill after commit")
        await self.assert_dead(pair.access, soft_logout=True)
        self.assert_error(await self.client.tokenrefresh(pair), 403, "M_FORBIDDEN")
        self.assert_error(await self.client.own_refresh(pair), 403, "M_FORBIDDEN")
        self.assertEqual(self.chained_tokens(pair), 1)
        again = await self.client.pair(device_id=pair.device_id)
        await self.assert_live(again)
        self.assertEqual(self.chained_tokens(pair), 1)

    async def test_before_the_issue(self) -> None:
        """Killed within a login on a known device, its earlier session lives on beside the new one.

        No client was told of the new one, and its access token expires, also for a client that did
        not ask for a refresh token. The next login on the device ends both.
        """
        for wants_refresh_token in (True, False):
            old = await self.client.pair()
            self.server.set_fault("kill before issue")
            with self.assertRaises(BROKEN):
                await self.client.login(
                    self.client.module,
                    device_id=old.device_id,
                    refresh_token=wants_refresh_token,
                )
            await self.server.wait_for_death()
            self.server.set_fault("")
            await self.server.start()
            await self.assert_live(old)
            old = await self.client.rotate(old)
            self.assertEqual(self.chained_tokens(old), 2)
            lasting = self.server.query(
                "SELECT 1 FROM access_tokens WHERE user_id = ? AND device_id = ?"
                " AND valid_until_ms IS NULL",
                old.user_id,
                old.device_id,
            )
            self.assertEqual(lasting, [])
            again = await self.client.pair(device_id=old.device_id)
            await self.assert_live(again)
            self.assertEqual(self.chained_tokens(again), 1)
            await self.assert_dead(old.access, soft_logout=False)
            await self.assert_not_refreshable(old, again.access)

    async def test_lenient_after_the_commit(self) -> None:
        """A lenient refresh that was cut off gives its pair when it is asked again."""
        old = await self.client.pair()
        self.server.set_fault("kill after commit")
        with self.assertRaises(BROKEN):
            await self.client.refresh(old)
        await self.server.wait_for_death()
        self.server.set_fault("")
        await self.server.start()
        await self.assert_live(old)
        new = old.then(await self.client.refresh(old))
        self.assertEqual(old.then(await self.client.refresh(old)), new)
        await self.assert_live(new)
        self.assertEqual(self.chained_tokens(new), 1)
