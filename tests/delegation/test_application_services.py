"""Application services of a Synapse that delegates: bridges' users, and double puppeting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.support.delegated_server import CLIENT, WHOAMI, DelegatedCase, Reply, Session, fresh
from tests.support.ports import free_port
from tests.support.synapse.delegating import (
    AS_TOKEN,
    application_service,
    deactivate,
    delegating,
    make_user,
)
from tests.support.synapse.profile import SERVER_NAME
from tests.support.waiting import until

ENDPOINT_PORT = free_port()
PUPPET_TOKEN = "as-token-of-double-puppeting"
MODULE = {"module": "synapse_login_module.SynapseLoginModule", "config": {"delegated": True}}
PROFILE = delegating(
    "delegation-services",
    ENDPOINT_PORT,
    application_services=[
        application_service("bridge", "bridge_.*"),
        application_service("puppets", ".*", as_token=PUPPET_TOKEN, exclusive=False),
    ],
    synapse={"modules": [MODULE]},
)


class ServicesCase(DelegatedCase):
    """A test with a bridge that has its users to itself, and one that acts as real users."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT
    homeserver: ClassVar[Mapping[str, Any]] = {"forget_tokens": True}
    config: Mapping[str, Any] = {"brake": None, "existing_accounts": "all"}

    async def bridged_user(self) -> str:
        """Have the bridge make a user; return the local part."""
        name = fresh("bridge_")
        body = {
            "type": "m.login.application_service",
            "username": name,
            "inhibit_login": True,
        }
        reply = await self.at_synapse("POST", f"{CLIENT}/register", AS_TOKEN, body)
        self.assertEqual(reply.status, 200, reply)
        return name

    async def try_service_login(self, name: str, as_token: str) -> Reply:
        """Log a user in as an application service does."""
        body = {
            "type": "m.login.application_service",
            "identifier": {"type": "m.id.user", "user": name},
            "refresh_token": True,
        }
        return await self.server.ask("POST", f"{CLIENT}/login", body, as_token)

    async def service_login(self, name: str, as_token: str) -> Session:
        """Log a user in as an application service, which has to succeed."""
        reply = await self.try_service_login(name, as_token)
        self.assertEqual(reply.status, 200, reply)
        found = reply.content
        self.assertEqual(found["user_id"], f"@{name}:{SERVER_NAME}")
        return Session(
            found["user_id"], found["device_id"], found["access_token"], found["refresh_token"]
        )

    async def assert_works(self, session: Session) -> None:
        """The Synapse knows whose token it is, and lets it act."""
        reply = await self.whoami(session.token)
        self.assertEqual(reply.status, 200, reply)
        self.assertEqual(reply.content["user_id"], session.user_id)
        self.assertEqual(reply.content["device_id"], session.device_id)
        made = await self.at_synapse("POST", f"{CLIENT}/createRoom", session.token, {})
        self.assertEqual(made.status, 200, made)


class BridgeTests(ServicesCase):
    """A bridge, whose users no provider knows."""

    async def test_login(self) -> None:
        """A bridge logs its user in; the session is refreshed and ended as any other."""
        session = await self.service_login(await self.bridged_user(), AS_TOKEN)
        await self.assert_works(session)
        session = await self.server.refresh(session, strict=True)
        await self.assert_works(session)
        reply = await self.server.ask("POST", f"{CLIENT}/logout", {}, session.token)
        self.assertEqual(reply.status, 200, reply)
        await self.until_devices(session, [])
        self.assertEqual((await self.whoami(session.token)).status, 401)

    async def test_own_token(self) -> None:
        """The bridge's own token works at the Synapse, before and after a login with it."""
        name = await self.bridged_user()
        for _ in range(2):
            for user in (name, "bridge"):
                path = f"{WHOAMI}?user_id=@{user}:{SERVER_NAME}"
                reply = await self.at_synapse("GET", path, AS_TOKEN)
                self.assertEqual(reply.status, 200, reply)
                self.assertEqual(reply.content["user_id"], f"@{user}:{SERVER_NAME}")
            path = f"{CLIENT}/createRoom?user_id=@{name}:{SERVER_NAME}"
            reply = await self.at_synapse("POST", path, AS_TOKEN, {})
            self.assertEqual(reply.status, 200, reply)
            await self.service_login(name, AS_TOKEN)

    async def test_password(self) -> None:
        """Nobody logs in by password to a name of the bridge, whether its user exists or not."""
        for name in (await self.bridged_user(), fresh("bridge_"), "bridge"):
            self.server.change_user(name)
            reply = await self.server.try_login(name)
            self.assertEqual((reply.status, reply.content["errcode"]), (403, "M_FORBIDDEN"), name)
            self.assertIn("not linked", reply.content["error"])
            line = f"@{name}:{SERVER_NAME}"
            said = [each for each in self.server.process.log().splitlines() if line in each]
            self.assertIn("it is reserved for an application service", "\n".join(said))
        self.assertIn(f'link_accounts: ["@bridge:{SERVER_NAME}"]', self.server.process.log())

    async def test_other_users(self) -> None:
        """A bridge logs in no user outside its namespace, none that does not exist, and a wrong
        token logs nobody in.
        """
        name = await self.bridged_user()
        await self.server.login()
        for user, token in (
            (self.server.alice, AS_TOKEN),
            (fresh("bridge_"), AS_TOKEN),
            (name, f"{AS_TOKEN}x"),
            (name, (await self.server.login(self.server.bob)).token),
        ):
            reply = await self.try_service_login(user, token)
            self.assertIn(reply.status, (401, 403), reply)

    async def test_deactivated(self) -> None:
        """A bridge's user who was deactivated at the Synapse cannot be logged in again."""
        name = await self.bridged_user()
        session = await self.service_login(name, AS_TOKEN)
        await self.assert_works(session)
        await deactivate(self.synapse, name)
        self.assertEqual((await self.whoami(session.token)).status, 401)
        reply = await self.try_service_login(name, AS_TOKEN)
        self.assertEqual(reply.status, 403, reply)


class PuppetTests(ServicesCase):
    """An application service acts as people who have accounts of their own."""

    async def test_session(self) -> None:
        """The session works beside the person's own, and ends when the account is gone."""
        own = await self.server.login()
        puppet = await self.service_login(self.server.alice, PUPPET_TOKEN)
        for session in (own, puppet):
            await self.assert_works(session)
        self.assertEqual(await self.devices(own), sorted([own.device_id, puppet.device_id]))
        self.server.remove_user(self.server.alice)
        await until(lambda: " is gone at " in self.server.process.log(), "the end of its sessions")
        for session in (own, puppet):
            self.assertEqual((await self.whoami(session.token)).status, 401)
        reply = await self.try_service_login(self.server.alice, PUPPET_TOKEN)
        self.assertEqual(reply.status, 403, reply)

    async def test_locked(self) -> None:
        """Nobody is logged in for a person whose account is locked."""
        await self.server.login()
        self.server.change_user(self.server.alice, locked=True)
        await until(lambda: "is locked: " in self.server.process.log(), "the lock")
        reply = await self.try_service_login(self.server.alice, PUPPET_TOKEN)
        self.assertEqual((reply.status, reply.content["errcode"]), (401, "M_USER_LOCKED"), reply)

    async def test_before_the_person(self) -> None:
        """A person whom the application service logged in first can still log in by password. From
        then on both sessions end with the account.
        """
        name = fresh("before")
        reply = await self.try_service_login(name, PUPPET_TOKEN)
        self.assertEqual(reply.status, 403, reply)
        await make_user(self.synapse, name)
        self.server.change_user(name)
        puppet = await self.service_login(name, PUPPET_TOKEN)
        await self.assert_works(puppet)
        own = await self.server.login(name)
        for session in (own, puppet):
            await self.assert_works(session)
        self.server.remove_user(name)
        await until(lambda: " is gone at " in self.server.process.log(), "the end of its sessions")
        for session in (own, puppet):
            self.assertEqual((await self.whoami(session.token)).status, 401)
