"""The module's metrics at the metrics listener of a real Synapse."""

from __future__ import annotations

from synapse_login_module.metrics.definitions import ALL, Place
from tests.support.prometheus import families, sample_values
from tests.synapse.logins import PLAIN, LoginCase

_OK = 'synapse_login_outcomes_total{event="login",outcome="ok",reason="password"}'


class MetricsTests(LoginCase):
    """``/_synapse/metrics``."""

    profile = PLAIN

    async def page(self) -> str:
        answer = await self.client.send("GET", f"{self.client.own}/_synapse/metrics")
        self.assertEqual(answer.status, 200)
        return answer.body.decode("utf-8")

    async def test_names(self) -> None:
        """The metrics are those of the standalone server, but for what is of its store and site."""
        kinds = families(await self.page())
        mine = {
            name: kind
            for name, kind in kinds.items()
            if name.startswith("synapse_login_") and not name.endswith("_created")
        }
        expected = {each.name: each.kind.value for each in ALL if each.place is Place.EVERYWHERE}
        self.assertEqual(mine, expected)

    async def test_counts(self) -> None:
        """A login at either listener is counted, with what the provider took."""
        before = sample_values(await self.page())
        for listener in (self.client.own, self.client.module):
            self.assertEqual((await self.client.login(listener, "alice")).status, 200)
        after = sample_values(await self.page())
        self.assertEqual(after[_OK] - before[_OK], 2)
        took = 'synapse_login_provider_duration_seconds_count{operation="authenticate",provider='
        name = f'{took}"bcrypt"}}'
        self.assertEqual(after[name] - before.get(name, 0), 2)
        self.assertEqual(after["synapse_login_hashing_queue_length"], 0)
        self.assertGreater(after["synapse_login_hashing_wait_seconds_count"], 1)
