"""The tokens inside a real Synapse once more, on PostgreSQL; and PostgreSQL stopped under it."""

from __future__ import annotations

from tests.support.response import Response
from tests.support.synapse.profile import Profile
from tests.synapse import tokens

_POSTGRES = Profile("postgres", postgres=True)


class PostgresTokenTests(tokens.TokenTests):
    """The tokens, with PostgreSQL behind Synapse."""

    profile = _POSTGRES


class WithoutPostgresTests(tokens.TokenCase):
    """What clients are told while the database is down."""

    profile = _POSTGRES
    complaints = r""

    async def test_outage(self) -> None:
        """While PostgreSQL is down all is 503, in plain text for refreshes; nothing is lost."""
        pair = await self.client.rotate(await self.client.pair())
        self.server.stop_database()
        try:
            for answer in (
                await self.client.tokenrefresh(pair),
                await self.client.refresh(pair),
                await self.client.login(self.client.module),
            ):
                self.assert_outage(answer)
        finally:
            await self.server.start_database()
        answers = []
        for _ in range(10):
            answers.append(await self.client.tokenrefresh(pair))
            if answers[-1].status == 200:
                break
        await self.assert_live(pair.then(answers[-1]))

    def assert_outage(self, answer: Response) -> None:
        """A response says that the session has not ended."""
        self.assertEqual(answer.status, 503, str(answer))
        self.assertTrue(answer.header("Retry-After"))
        refreshing = answer.path.endswith("refresh")
        self.assertEqual(answer.media_type, "text/plain" if refreshing else "application/json")
