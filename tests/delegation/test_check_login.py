"""``check-login`` for a server in front of a real Synapse, and the login that follows."""

from __future__ import annotations

import sqlite3
from typing import Any

import yaml

from synapse_login_module.common.concurrency import at_once
from tests.support.delegated_server import DelegatedCase
from tests.support.foretelling import Foretold, answer_of, foretell, log_in
from tests.support.ports import free_port
from tests.support.process import cli
from tests.support.synapse.delegating import (
    application_service,
    deactivate,
    delegating,
    make_user,
)
from tests.support.synapse.profile import PASSWORD, SERVER_NAME, user

ENDPOINT_PORT = free_port()
PROFILE = delegating(
    "check-login-delegated",
    ENDPOINT_PORT,
    application_services=[application_service("bridge", "bridge_.*")],
)


class DelegatedForetoldTests(DelegatedCase):
    """What is foretold is what the server then answers."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT
    timeout = 300

    def state(self) -> object:
        """Return all rows of the server's store, and of accounts and devices at the Synapse."""
        connection = sqlite3.connect(self.server.folder / "sessions.db", timeout=60)
        try:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            rows: dict[str, list[Any]] = {
                name: connection.execute(f"SELECT * FROM {name}").fetchall()
                for (name,) in tables.fetchall()
                if name not in ("leases", "token_keys")
            }
        finally:
            connection.close()
        for table in ("users", "devices", "profiles"):
            rows[f"synapse.{table}"] = self.synapse.query(f"SELECT * FROM {table}")
        return rows

    async def foretell(
        self, name: str, password: str = PASSWORD, file: str = "config.yaml"
    ) -> Foretold:
        """Run the command, which changes nothing."""
        before = self.state()
        where = ("--config", str(self.server.folder / file))
        foretold = await foretell(where, name, password)
        self.assertEqual(self.state(), before)
        return foretold

    async def assert_foretold(self, *cases: tuple[int, str, str, str]) -> None:
        """The command foretells what each login is answered, and says why.

        :param cases: the status, what the command says, the name and the password.
        """
        where = ("--config", str(self.server.folder / "config.yaml"))
        before = self.state()
        all_foretold = await at_once(2, lambda case: foretell(where, *case[2:]), cases)
        self.assertEqual(self.state(), before)
        for (status, said, *login), foretold in zip(cases, all_foretold, strict=True):
            self.assertIn(said, foretold.texts)
            self.assertEqual(foretold.status, status, foretold.texts)
            reply = await log_in(self.server.port, *login)
            self.assertEqual(answer_of(reply), foretold.answer, foretold.texts)

    async def test_table(self) -> None:
        """Every kind of account, at the provider and at the Synapse."""
        server = self.server
        names = ("locked", "gone", "there", "ended", "bridge_puppet", "theirs")
        server.write_users(
            {
                **server.users,
                **{name: user() for name in names},
                "locked": user(locked=True),
                "gone": user(deactivated=True),
            }
        )
        await make_user(self.synapse, "there")
        for name in ("ended", server.bob):
            await server.login(name)
        await deactivate(self.synapse, "ended")
        where = ("--config", str(server.folder / "config.yaml"))
        linked = cli("links", "link", *where, f"@theirs:{SERVER_NAME}", "bcrypt", "other")
        self.assertEqual(linked.stderr, "")
        await self.assert_foretold(
            (200, "this login would make it", server.alice, PASSWORD),
            (200, "exists there and is active", server.bob, PASSWORD),
            (403, "the password is wrong", server.alice, "not-the-password"),
            (403, "no provider knows the name", "nobody", PASSWORD),
            (401, "locked of bcrypt: locked", "locked", PASSWORD),
            (403, "gone of bcrypt: deactivated", "gone", PASSWORD),
            (403, "existing_accounts: all", "there", PASSWORD),
            (403, "reserved for an application service", "bridge_puppet", PASSWORD),
            (403, "is deactivated there", "ended", PASSWORD),
            (403, "it is linked to another account", "theirs", PASSWORD),
        )

    async def test_other_configurations(self) -> None:
        """What is wrong with the homeserver's configuration is said in the result."""
        secret = self.server.folder / "wrong.secret"
        secret.write_text("another-secret\n")
        secret.chmod(0o600)
        changes: tuple[tuple[dict[str, Any], int, str], ...] = (
            ({"secret_file": str(secret)}, 503, "it answered 403"),
            ({"url": f"http://127.0.0.1:{free_port()}"}, 503, "the homeserver is unavailable"),
            ({"register_users": False}, 403, "register_users: true"),
            ({"admins": [f"@{self.server.bob}:{SERVER_NAME}"]}, 403, "administrator"),
        )
        given = self.server.config
        for change, status, said in changes:
            homeserver = {**given["homeserver"]["config"], **change}
            changed = {**given, "homeserver": {**given["homeserver"], "config": homeserver}}
            (self.server.folder / "other.yaml").write_text(yaml.safe_dump(changed))
            foretold = await self.foretell(self.server.bob, file="other.yaml")
            self.assertEqual(foretold.status, status, foretold.texts)
            self.assertIn(said, foretold.texts)
            self.assertNotIn("another-secret", foretold.texts)
