"""What Synapse answers to the old and to the new token after each event; the table in docs/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.delegation.answers import PAGE, TABLE, rendered
from tests.support.delegated_server import CLIENT, DelegatedCase, Session, fresh
from tests.support.ports import free_port
from tests.support.synapse.delegating import deactivate, delegating
from tests.support.waiting import until

if TYPE_CHECKING:
    _Case = DelegatedCase
else:
    _Case = object


class EventsMixin(_Case):
    """Each event, on a token that the Synapse knows and on one that it does not.

    :cvar column: the column of the table for a token that the Synapse knows.
    """

    column: ClassVar[str]

    async def see(self, event: str) -> None:
        """Compare the answers after an event with the table."""
        row = TABLE[event]
        for column in (self.column, "new"):
            name = fresh("user")
            self.server.change_user(name)
            before = await self.server.login(name)
            if column != "new":
                self.assertEqual((await self.whoami(before.token)).status, 200)
            after = await getattr(self, f"event_{event}")(name, before)
            old = (await self.whoami(before.token)).status
            self.assertEqual(old, getattr(row.old, column), f"{event}, {column}")
            if after is None:
                self.assertIsNone(row.fresh)
            else:
                self.assertEqual((await self.whoami(after.token)).status, row.fresh)

    async def test_lenient(self) -> None:
        """After a lenient refresh both tokens work."""
        await self.see("lenient")

    async def test_confirmed(self) -> None:
        """The old token is dead once the new one is used."""
        await self.see("confirmed")

    async def test_strict(self) -> None:
        """After a strict refresh the old token is dead."""
        await self.see("strict")

    async def test_again(self) -> None:
        """A login on the same device ends the earlier session."""
        await self.see("again")

    async def test_logout(self) -> None:
        """After a logout the token is dead, whatever Synapse remembers."""
        await self.see("logout")

    async def test_reuse(self) -> None:
        """Reuse of a refresh token ends the session."""
        await self.see("reuse")

    async def test_gone(self) -> None:
        """An account that is gone loses its tokens."""
        await self.see("gone")

    async def test_locked(self) -> None:
        """A locked account's tokens are neither accepted nor refused."""
        await self.see("locked")

    async def test_deactivated(self) -> None:
        """An account that Synapse has deactivated loses its tokens."""
        await self.see("deactivated")

    async def event_lenient(self, name: str, session: Session) -> Session:
        """Refresh."""
        return await self.server.refresh(session)

    async def event_confirmed(self, name: str, session: Session) -> Session:
        """Refresh, and use the new token."""
        after = await self.server.refresh(session)
        await self.whoami(after.token)
        return after

    async def event_strict(self, name: str, session: Session) -> Session:
        """Refresh by ``/tokenrefresh``."""
        return await self.server.refresh(session, strict=True)

    async def event_again(self, name: str, session: Session) -> Session:
        """Log in on the same device."""
        return await self.server.login(name, device_id=session.device_id)

    async def event_logout(self, name: str, session: Session) -> None:
        """Log out."""
        await self.server.ask("POST", f"{CLIENT}/logout", {}, session.token)
        await self.until_devices(session, [])

    async def event_reuse(self, name: str, session: Session) -> None:
        """Use a refresh token again whose pair has been replaced for good."""
        after = await self.server.refresh(session, strict=True)
        for token in (session.refresh_token, after.refresh_token):
            reply = await self.server.ask("POST", f"{CLIENT}/refresh", {"refresh_token": token})
            self.assertEqual(reply.status, 401, reply)

    async def event_gone(self, name: str, session: Session) -> None:
        """Take the account out of the file."""
        self.server.remove_user(name)
        await self._until_logged(f"@{name}:", "is gone at")

    async def event_locked(self, name: str, session: Session) -> None:
        """Lock the account in the file."""
        self.server.change_user(name, locked=True)
        await self._until_logged(f"@{name}:", "is locked: its provider says so")

    async def event_deactivated(self, name: str, session: Session) -> None:
        """Deactivate the account at the Synapse."""
        await deactivate(self.synapse, name)

    async def _until_logged(self, *parts: str) -> None:
        def logged() -> bool:
            lines = self.server.process.log().splitlines()
            return any(all(part in line for part in parts) for line in lines)

        await until(logged, f"the line {parts}")


_PORTS = free_port(), free_port()
_CONFIG = {"brake": None, "tokens": {"reuse_interval": 0, "account_check_interval": "15m"}}


class RememberingTests(EventsMixin, DelegatedCase):
    """A Synapse without the module remembers tokens for two minutes."""

    profile = delegating("delegation-remembers", _PORTS[0])
    endpoint_port = _PORTS[0]
    config = _CONFIG
    column = "known"


class ForgettingTests(EventsMixin, DelegatedCase):
    """A Synapse with the module forgets tokens when it is told to."""

    profile = delegating(
        "delegation-forgets",
        _PORTS[1],
        synapse={
            "modules": [
                {
                    "module": "synapse_login_module.SynapseLoginModule",
                    "config": {"delegated": True},
                }
            ]
        },
    )
    endpoint_port = _PORTS[1]
    homeserver: ClassVar[Mapping[str, Any]] = {"forget_tokens": True}
    config = _CONFIG
    column = "forgotten"


class PageTests(SynchronousTestCase):
    """The table in docs/."""

    def test_up_to_date(self) -> None:
        """It is what the tests check: ``python -m tests.delegation.answers`` writes it."""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), rendered())
