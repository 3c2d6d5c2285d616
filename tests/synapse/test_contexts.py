"""What the module leaves in Synapse's log and metrics: its logging contexts are never mixed up.

Every test of :class:`~tests.synapse.case.HomeserverCase` reads the log at its end. Here are
those that do what is most likely to go wrong.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Coroutine
from typing import Any

from twisted.internet.task import deferLater

from tests.support.response import Response
from tests.support.synapse.profile import PASSWORD, Profile
from tests.support.waiting import reactor, together, until
from tests.synapse.case import HomeserverCase, fresh, user_id
from tests.synapse.handover import OTHER, OTHER_PASSWORD, OTHER_USER, named
from tests.synapse.logins import by_email

_SECRETS = [
    {"type": "com.example.secret", "identifier": named(), "secret": secret}
    for secret in ("open sesame", "wrong")
]


class ContextCase(HomeserverCase):
    """A test case that waits for what goes on behind the answers."""

    async def calm_down(self) -> None:
        """Wait until whatever was left behind has come to its end."""
        pair = await self.client.pair()
        for _ in range(3):
            pair = await self.client.rotate(pair)
        before = -1

        def unchanged() -> bool:
            nonlocal before
            now = len(self.server.log())
            same, before = now == before, now
            return same

        for _ in range(4):
            await until(unchanged, "an end of the log")


class ContextTests(ContextCase):
    """Logging contexts, after all that clients and providers may do."""

    profile = Profile("busy", more_modules=[OTHER])

    async def hang_up(self, port: int, path: str, body: object, token: str, after: float) -> None:
        """Send a request, and go away before the answer, or just after it."""
        content = json.dumps(body).encode("utf-8")
        head = (
            f"POST /_matrix/client/v3{path} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(head.encode("ascii") + content)
            await deferLater(reactor, after)

    async def test_busy(self) -> None:
        """Everything at once, on all endpoints, with wrong passwords and with slow providers."""
        for fault in ("", "slow"):
            self.server.set_fault(fault)
            pairs = [await self.client.pair() for _ in range(4)]
            work: list[Coroutine[Any, Any, Response]] = []
            for pair in pairs:
                work += [
                    self.client.tokenrefresh(pair),
                    self.client.tokenrefresh(pair, "wrong"),
                    self.client.refresh(pair),
                    self.client.own_refresh(pair),
                    self.client.whoami(pair.access),
                ]
            for base in (self.client.own, self.client.module):
                work += [
                    self.client.login(base),
                    self.client.login(base, password="wrong"),
                    self.client.login(base, fresh("nobody")),
                    self.client.login(base, self.new_user(emails=[f"{fresh('e')}@example.com"])),
                    self.client.login(base, "lock"),
                    self.client.login(base, "gone"),
                    self.client.login(base, identifier=by_email("alice@example.com")),
                    self.client.login(base, OTHER_USER, OTHER_PASSWORD),
                    *(self.client.post(base, "/login", body) for body in _SECRETS),
                    self.client.post(base, "/login", {}),
                    self.client.send("GET", f"{base}/_matrix/client/v3/login"),
                    self.client.send("OPTIONS", f"{base}/_matrix/client/v3/login"),
                    self.client.send("POST", f"{base}/_matrix/client/v3/login", b"{"),
                ]
            for answer in await together(*work):
                self.assertLess(answer.status, 500, str(answer))
        await self.calm_down()

    async def test_outages(self) -> None:
        """A provider that fails or hangs, at logins and at refreshes."""
        for fault in ("unavailable", "hang"):
            pair = await self.client.pair()
            self.server.set_fault(fault)
            refreshed, *logins = await together(
                self.client.tokenrefresh(pair),
                self.client.login(self.client.own),
                self.client.login(self.client.module),
            )
            self.assertEqual([each.status for each in logins], [503, 503])
            await self.assert_live(pair.then(refreshed))
            self.server.set_fault("")
        await self.calm_down()

    async def test_clients_that_go_away(self) -> None:
        """Clients go away at any moment of a login or a refresh, from all listeners."""
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": PASSWORD,
            "refresh_token": True,
        }
        begun = await self.outcomes()
        for fault in ("", "slow", "hang"):
            work: list[Coroutine[Any, Any, None]] = []
            for number in range(12):
                pair = await self.client.pair()
                after = 0.003 * number
                refresh = {"refresh_token": pair.refresh}
                first = {**login, "identifier": {"type": "m.id.user", "user": self.new_user()}}
                for port, path, body in (
                    (self.server.module_port, "/login", {**login, "device_id": fresh("DEVICE")}),
                    (self.server.module_port, "/login", first),
                    (self.server.module_port, "/login", _SECRETS[number % 2]),
                    (self.server.client_port, "/login", login),
                    (self.server.module_port, "/tokenrefresh", refresh),
                    (self.server.module_port, "/refresh", refresh),
                ):
                    work.append(self.hang_up(port, path, body, pair.access, after))
            self.server.set_fault(fault)
            await together(*work)
            await deferLater(reactor, 1.0 if fault == "hang" else 0.2)
            self.server.set_fault("")
            await self.calm_down()
        self.assertIn("login outcome=failed reason=disconnected", self.logged())
        # What is handed over comes to its end though the client be gone, and is counted.
        ended = await self.outcomes()
        for labels in (
            'event="login",outcome="ok",reason="homeserver"',
            'event="login",outcome="refused",reason="wrong_password"',
        ):
            self.assertEqual(ended[labels] - begun.get(labels, 0.0), 18, labels)
        answer = await self.client.login(self.client.module)
        self.assertEqual(answer.status, 200, str(answer))

    async def test_metrics(self) -> None:
        """The outcomes are among Synapse's metrics."""
        before = await self.outcomes()
        pair = await self.client.pair()
        await self.client.rotate(pair)
        await self.client.login(self.client.module, password="wrong")
        after = await self.outcomes()
        for labels in (
            'event="login",outcome="ok",reason="password"',
            'event="login",outcome="refused",reason="wrong_password"',
            'event="refresh",outcome="ok",reason="strict"',
        ):
            self.assertEqual(after[labels], before.get(labels, 0.0) + 1)

    async def test_provider_metrics(self) -> None:
        """Synapse's metrics have the outcomes of each provider."""
        before = await self.outcomes("provider_outcomes")
        await self.client.login(self.client.module, password="wrong")
        after = await self.outcomes("provider_outcomes")
        grown = [labels for labels in after if after[labels] == before.get(labels, 0.0) + 1]
        refused = 'operation="authenticate",outcome="refused"'
        self.assertEqual(len([labels for labels in grown if refused in labels]), 1, grown)

    async def test_audit_line(self) -> None:
        """Logins and refreshes have one line each in Synapse's log, with user and address."""
        pair = await self.client.rotate(await self.client.pair())
        for event, reason in (("login", "password"), ("refresh", "strict")):
            line = (
                f"{event} outcome=ok reason={reason} address=127.0.0.1 provider=\\S+"
                f' user="{pair.user_id}" device="{pair.device_id}"'
            )
            self.assertEqual(len(re.findall(line, self.logged())), 1, self.logged())


class ImpatientTests(ContextCase):
    """Refreshes that do not wait for a provider that is slow."""

    profile = Profile("impatient", module={"tokens": {"account_check_timeout": 50}})

    async def test_late_status(self) -> None:
        """A provider's answer that comes after the refresh was answered is still acted on."""
        # All providers are asked by name about an account that an earlier version marked.
        name = self.new_user()
        pair = await self.client.pair(name)
        self.server.query("DELETE FROM synapse_login_links WHERE user_id = ?", user_id(name))
        self.server.query(
            "INSERT INTO user_external_ids (auth_provider, external_id, user_id)"
            " VALUES ('synapse_login_module', ?, ?)",
            name,
            user_id(name),
        )
        self.server.set_fault("slow")
        for _ in range(3):
            pair = await self.client.rotate(pair)
        self.assertIn("goes on unchecked: no account status within 0.05 seconds", self.logged())
        self.server.set_fault("")
        await self.calm_down()
