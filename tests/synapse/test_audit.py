"""The lines and the figures that logins at Synapse's own listener leave behind."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from tests.support import REPOSITORY
from tests.support.response import Response
from tests.support.synapse.profile import LATER_PASSWORD, PASSWORD, Profile
from tests.support.waiting import TIMEOUT
from tests.synapse.case import fresh, user_id
from tests.synapse.logins import LoginCase, by_email

ATTACKER = "198.51.100.66"
FILTER = REPOSITORY / "contrib" / "fail2ban" / "filter.d" / "synapse-login-module.conf"

_LINE = re.compile(r" - ((?:login|reauth) outcome=.*)$", re.MULTILINE)


class AuditCase(LoginCase):
    """Helpers for tests of the lines."""

    async def log_in(self, user: str = "alice", password: str = PASSWORD, **more: Any) -> Response:
        """Log in at Synapse's own ``/login``."""
        return await self.client.login(self.client.own, user, password, **more)

    async def forwarded(self, address: str, password: str = PASSWORD) -> Response:
        """The same, through a proxy that gives this as the client's address."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": password,
        }
        url = f"{self.client.own}/_matrix/client/v3/login"
        headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
        return await self.client.send("POST", url, body, headers=headers)

    def lines(self) -> list[str]:
        """The lines since the test began."""
        return _LINE.findall(self.logged())

    def assert_line(self, said: str, user: str, device: str = "", provider: str = "-") -> None:
        """One line was written since the test began."""
        head, _, tail = said.partition(" reason=")
        line = (
            f"{head} reason={tail} address=127.0.0.1 provider={provider}"
            f' user="{user}" device="{device}"'
        )
        self.assertEqual(self.lines(), [line])


class OwnLoginTests(AuditCase):
    """Logins at Synapse's own ``/login``."""

    profile = Profile("audit", client_listener={"x_forwarded": True})

    async def test_ok(self) -> None:
        """A login has one line, with the device and with the provider that vouched."""
        device = fresh("DEVICE")
        self.assertEqual((await self.log_in(device_id=device)).status, 200)
        self.assert_line(
            "login outcome=ok reason=password", user_id("alice"), device, provider="bcrypt"
        )

    async def test_empty(self) -> None:
        """An empty password is wrong, and no provider is asked."""
        self.assertEqual((await self.log_in(password="\0")).status, 403)
        self.assert_line("login outcome=refused reason=wrong_password", user_id("alice"))

    async def test_ok_by_email(self) -> None:
        """So has one by e-mail address."""
        device = fresh("DEVICE")
        address = by_email("alice@example.com")
        self.assertEqual((await self.log_in(identifier=address, device_id=device)).status, 200)
        self.assert_line(
            "login outcome=ok reason=password", user_id("alice"), device, provider="bcrypt"
        )

    async def test_ok_with_a_local_password(self) -> None:
        """And so has one with a password of Synapse's own, by name and by e-mail address."""
        name, password = await self.local_user()
        address = await self.bind_email(name)
        for more in ({"user": name}, {"identifier": by_email(address)}):
            answer = await self.log_in(password=password, **more)
            self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual(len(self.lines()), 2, self.lines())
        for line in self.lines():
            self.assertIn(f'provider=synapse user="{user_id(name)}"', line)

    async def test_wrong_password(self) -> None:
        """A wrong password has one line, whether Synapse has a password of its own or none."""
        name, _ = await self.local_user()
        for user in ("alice", name):
            self.assertEqual((await self.log_in(user, "wrong")).status, 403)
            line = self.lines().pop()
            self.assertIn("login outcome=refused reason=wrong_password", line)
            self.assertIn(f'user="{user_id(user)}"', line)
        self.assertEqual(len(self.lines()), 2)

    async def test_unknown_user(self) -> None:
        """An unknown user has one."""
        name = fresh("nobody")
        self.assertEqual((await self.log_in(name)).status, 403)
        self.assert_line("login outcome=refused reason=unknown_user", user_id(name))

    async def test_wrong_by_email(self) -> None:
        """An e-mail address has one line, whether a provider, Synapse or neither knows it."""
        name, _ = await self.local_user()
        bound, unknown = await self.bind_email(name), f"{fresh('nobody')}@example.com"
        for count, (address, user) in enumerate(
            (
                ("alice@example.com", user_id("alice")),
                (bound, user_id(name)),
                (unknown, unknown),
            ),
            1,
        ):
            answer = await self.log_in(password="wrong", identifier=by_email(address))
            self.assertEqual(answer.status, 403, str(answer))
            self.assertEqual(len(self.lines()), count, self.lines())
            self.assertIn("login outcome=refused", self.lines()[-1])
            self.assertIn(f'user="{user}"', self.lines()[-1])

    async def test_status(self) -> None:
        """Locked and deactivated accounts have theirs."""
        await self.log_in("lock")
        await self.log_in("gone")
        self.assertEqual(
            [line.split()[2] for line in self.lines()], ["reason=locked", "reason=deactivated"]
        )

    async def test_outage(self) -> None:
        """So has an outage."""
        self.server.set_fault("unavailable")
        self.assertEqual((await self.log_in()).status, 503)
        self.assert_line(
            "login outcome=unavailable reason=provider", user_id("alice"), provider="faulty"
        )

    async def test_bug(self) -> None:
        """A provider with a bug is a 500, and no password of Synapse's is tried after it."""
        self.complaints = "Traceback"
        name, password = await self.local_user()
        self.server.set_fault("crash")
        answer = await self.log_in(name, password)
        self.assert_error(answer, 500, "M_UNKNOWN")
        self.assert_line("login outcome=failed reason=error", user_id(name))

    async def test_reauth(self) -> None:
        """The re-authentication of a user who is logged in has a line of its own."""
        pair = await self.client.pair()
        for password, status in (("wrong", 401), (PASSWORD, 200)):
            answer = await self.client.delete_device(pair.device_id, pair.access, "alice", password)
            self.assertEqual(answer.status, status, str(answer))
        _, refused, passed = self.lines()
        user = f'user="{user_id("alice")}" device=""'
        rest = f"address=127.0.0.1 provider=bcrypt {user}"
        self.assertEqual(refused, f"reauth outcome=refused reason=wrong_password {rest}")
        self.assertEqual(passed, f"reauth outcome=ok reason=password {rest}")

    async def test_metrics(self) -> None:
        """All of them are among Synapse's metrics."""
        before = await self.outcomes()
        await self.log_in()
        await self.log_in(password="wrong")
        await self.log_in(password="wrong", identifier=by_email("nobody@example.com"))
        after = await self.outcomes()
        for outcome, reason in (
            ("ok", "password"),
            ("refused", "wrong_password"),
            ("refused", "unknown_user"),
        ):
            labels = f'event="login",outcome="{outcome}",reason="{reason}"'
            self.assertEqual(after[labels], before.get(labels, 0.0) + 1, labels)

    async def test_address(self) -> None:
        """The address is the client's as Synapse sees it; a text that is none is not logged."""
        for address in (ATTACKER, "2001:db8::1", "x address=192.0.2.1 provider=-", "x" * 5000):
            self.assertEqual((await self.forwarded(address)).status, 200)
        found = re.findall(r"address=(\S+)", "\n".join(self.lines()))
        self.assertEqual(found, [ATTACKER, "2001:db8::1", "-", "-"])

    async def test_fail2ban(self) -> None:
        """fail2ban finds the guesses in Synapse's log, and nothing else."""
        program = shutil.which("fail2ban-regex")
        if program is None:
            raise SkipTest("fail2ban-regex is not installed")
        for address, password in (
            (ATTACKER, "wrong"),
            ("203.0.113.1", PASSWORD),
            (f"{ATTACKER}, 203.0.113.2", "wrong"),
        ):
            await self.forwarded(address, password)
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as log:
            log.write(self.logged())
        done = await deferToThread(
            subprocess.run,
            [program, "--out", "<ip>", path, str(FILTER)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        self.assertEqual((done.stderr, done.stdout.split()), ("", [ATTACKER] * 2))


class LaterModuleTests(AuditCase):
    """Another module that checks passwords stands after this one."""

    profile = Profile(
        "later-module", more_modules=[{"module": "tests.synapse.modules.LaterModule"}]
    )

    async def test_asked(self) -> None:
        """It is asked when no provider accepts. What it accepts has no line, since it decides;
        what no module accepts has one.
        """
        name, password = await self.local_user()
        answer = await self.log_in(name, LATER_PASSWORD)
        self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual(self.lines(), [])
        self.assertEqual((await self.log_in(password="wrong")).status, 403)
        (line,) = self.lines()
        self.assertIn("login outcome=refused reason=wrong_password", line)
        self.assertEqual((await self.log_in(name, password)).status, 200)
        self.assertEqual(len(self.lines()), 2)


class WorkerAuditTests(AuditCase):
    """Logins at a worker's ``/login``."""

    profile = Profile("worker", worker=True)

    async def test_lines(self) -> None:
        """They have their lines in the worker's log."""
        url = self.server.worker_client_url
        await self.client.login(url)
        await self.client.login(url, password="wrong")
        passed, refused = self.lines()
        self.assertIn("login outcome=ok reason=password address=127.0.0.1", passed)
        self.assertIn("login outcome=refused reason=wrong_password address=127.0.0.1", refused)
