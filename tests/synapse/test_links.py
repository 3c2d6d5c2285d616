"""Whose account: what is linked to whom, on a real Synapse."""

from __future__ import annotations

from tests.synapse.case import fresh, user_id
from tests.synapse.linkcase import LinkCase, linking

PLAIN = linking("links")


class OthersAccountsTests(LinkCase):
    """Nobody becomes somebody else, in the default configuration."""

    profile = PLAIN

    async def test_administrator(self) -> None:
        """A provider's account is not the administrator's of the same name but for case."""
        name = fresh("admin")
        local = fresh("password-of-the-administrator")
        await self.local_account(name, local, admin=True)
        for spelled in (name, name.capitalize()):
            await self.assert_not_linked(spelled, self.person(spelled))
            self.remove_person(spelled)
        self.assertIn(f'link_accounts: ["{user_id(name)}"]', self.logged())
        self.assertEqual(self.links(name), [])
        await self.assert_login(name, local, name)
