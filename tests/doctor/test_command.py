"""The command ``doctor`` itself, as a process."""

from __future__ import annotations

import json
import re
import resource
from unittest import mock

from twisted.internet.threads import deferToThread

from synapse_login_module.config.settings import Hashing
from synapse_login_module.doctor import hashing, system
from synapse_login_module.doctor.running import run_checks
from synapse_login_module.model import Level
from tests.doctor.case import DoctorCase, reactor
from tests.support.process import cli


class CommandTests(DoctorCase):
    """It prints a table or JSON, and its status says whether anything failed."""

    async def test_table(self) -> None:
        """Each finding is one line, warnings leave the status 0, and the last line counts."""
        path = self.write()
        await self.use(path)
        done = await deferToThread(cli, "doctor", "--config", str(path))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        heading, *lines, last = done.stdout.splitlines()
        self.assertEqual(heading.split()[:2], ["level", "area"])
        for line in lines:
            self.assertRegex(line, "^(ok|warning) ")
        self.assertRegex(last, r"^\d+ ok, [1-9]\d* warning, 0 failed$")
        (warned,) = [line for line in lines if "the server does not run" in line]
        self.assertIn(" -> start it", warned)

    async def test_socket_of_systemd(self) -> None:
        """A socket that systemd opens is no mistake, and is said not to be asked."""
        path = self.write(listen=["systemd:domain=INET:index=0"])
        findings = await self.diagnose(path)
        self.assert_well(findings, "configuration")
        (said,) = self.assert_well(findings, "server")
        self.assertIn("cannot be asked", said.found)

    async def test_mistakes(self) -> None:
        """Every mistake in the configuration is a line, and the status is 1."""
        path = self.write(listen=["nonsense"], limits={"connections": 0}, surprise=1)
        done = await deferToThread(cli, "doctor", "--config", str(path))
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        failures = [line for line in done.stdout.splitlines() if line.startswith("failed")]
        self.assertEqual(len(failures), 3, done.stdout)
        for each in ("listen.0", "limits.connections", "surprise"):
            self.assertEqual(len(re.findall(rf"\b{re.escape(each)}\b", done.stdout)), 1)

    async def test_mistake_in_one_part(self) -> None:
        """A mistake in one part leaves the others to be examined."""
        path = self.write(listen=["nonsense"])
        findings = await self.diagnose(path)
        self.assert_line(
            findings, Level.FAILED, "configuration", "is not an endpoint", "correct it in"
        )
        areas = {each.area for each in findings}
        self.assertLessEqual({"store", "provider bcrypt", "hashing", "system"}, areas)

    async def test_unreadable(self) -> None:
        """A file that is not there is one line on standard error."""
        done = await deferToThread(cli, "doctor", "--config", "/nowhere.yaml")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    async def test_usage(self) -> None:
        """One of the two kinds of configuration has to be given."""
        done = await deferToThread(cli, "doctor")
        self.assertEqual(done.returncode, 2)

    async def test_json(self) -> None:
        """With ``--json`` each line is an object."""
        done = await deferToThread(cli, "doctor", "--json", "--config", str(self.write()))
        self.assertEqual(done.returncode, 0, done.stderr)
        for line in done.stdout.splitlines():
            self.assertEqual(
                set(json.loads(line)), {"level", "area", "looked_at", "found", "advice"}
            )


class HashingTests(DoctorCase):
    """The speed of hashing is measured at the configured cost."""

    async def test_cheap(self) -> None:
        """A cost below ten is a warning, whatever its speed."""
        findings = await run_checks(
            [hashing.check_hashing(Hashing(rounds=4, threads=1), reactor)], reactor, 30
        )
        self.assert_line(findings, Level.WARNING, "hashing", "at rounds 4", "rounds to 10 or more")

    async def test_dear(self) -> None:
        """A cost that was mistyped is estimated, and what to set is a cost that is fast enough."""
        findings = await run_checks(
            [hashing.check_hashing(Hashing(rounds=16), reactor)], reactor, 30
        )
        one = self.assert_line(findings, Level.WARNING, "hashing", "about", "set hashing.rounds to")
        advised = int(one.advice.rpartition(" ")[2])
        self.assertTrue(10 <= advised < 20, one)

    async def test_argon2id(self) -> None:
        """With Argon2id, its parameters and the memory of all threads are told."""
        for memory, level, advice in (
            (19_456, Level.OK, ""),
            (1024, Level.WARNING, "set more in hashing.argon2"),
        ):
            argon2 = {"memory": memory}
            config = Hashing.model_validate({"format": "argon2id", "threads": 2, "argon2": argon2})
            findings = await run_checks([hashing.check_hashing(config, reactor)], reactor, 30)
            said = f"as argon2id m={memory} t=2 p=1"
            found = self.assert_line(findings, level, "hashing", said, advice)
            self.assertIn(f"with up to {2 * memory // 1024} MiB of memory", found.found)


class SystemTests(DoctorCase):
    """The limit of open files, and the clock."""

    def test_open_files(self) -> None:
        """A hard limit that leaves too little room is a warning."""
        with mock.patch.object(resource, "getrlimit", return_value=(512, 512)):
            one = system.of_open_files(2000)
        self.assertIs(one.level, Level.WARNING)
        self.assertIn("room for 256 connections, and limits.connections is 2000", one.found)

    def test_synchronisation(self) -> None:
        """An unsynchronised clock is a warning, and a system that cannot tell is no line."""
        for state, levels in ((5, [Level.WARNING]), (0, [Level.OK]), (None, [])):
            with mock.patch.object(system, "_clock_state", return_value=state):
                self.assertEqual([each.level for each in system.of_synchronisation()], levels)
