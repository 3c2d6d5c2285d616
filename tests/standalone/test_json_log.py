"""Tests for the log as JSON of real servers: alone, with workers, in a file, in the background."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.standalone.noisy import HOSTILE, LONG
from tests.standalone.workers.case import WORKERS, WorkersTestCase
from tests.support.configuration import CHEAP_HASH, good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.process import run, subprocess_environment
from tests.support.server import twistd
from tests.support.waiting import TIMEOUT, block_until, until
from tests.support.wire import connect, request

NOISY = {"module": "tests.standalone.noisy.NoisyProvider", "config": {}}
AS_JSON = {"log": {"format": "json"}}
_APART = """
import os
os.dup2(os.open({0!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
from twisted.scripts.twistd import run
run()
"""
"""Runs twistd with its standard error in a file of its own."""

FACTS = ["version", "listen", "store", "providers", "homeserver"]


def parsed(log: bytes) -> list[dict[str, Any]]:
    """Parse a log, of which every line has to be an object with a time and a message."""
    lines = []
    for line in log.decode("ascii").split("\n")[:-1]:
        found = json.loads(line)
        for name in ("time", "level", "logger", "message"):
            assert isinstance(found[name], str), line
        assert isinstance(found["pid"], int), line
        lines.append(found)
    return lines


class JSONCase(WorkersTestCase):
    """A test case with a server that logs JSON, and whose standard error is apart."""

    async def serve_json(self, *options: str, **launch: Any) -> None:
        """Start a server with a noisy provider."""
        change = {**AS_JSON, "password_providers": [NOISY]}
        await self.serve(options, change, **launch)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return parsed(self.log().encode("utf-8").rpartition(b"\n")[0] + b"\n")

    async def log_in(self, password: str = "x") -> None:
        """Try to log in, which makes the provider report."""
        wire = await connect(self.server.port)
        credentials = {"type": "m.login.password", "user": HOSTILE, "password": password}
        wire.send(request("POST", "/_matrix/client/v3/login", credentials))
        if password == "die":
            await wire.lost()
        else:
            await wire.answer()
            await wire.abort()

    def facts(self, at: str) -> list[str]:
        """Return the names of the facts that were told."""
        return [each["fact"] for each in self.lines() if each.get("at") == at and "fact" in each]

    def one(self, **fields: object) -> dict[str, Any]:
        """Return the one line with these fields."""
        found = [each for each in self.lines() if fields.items() <= each.items()]
        self.assertEqual(len(found), 1, (fields, found))
        return found[0]

    def check_reports(self) -> None:
        """Check each report of the provider that goes through Python."""
        text = self.one(logger="noisy", message=f"of twisted: {HOSTILE}")
        self.assertEqual(text["text"], HOSTILE)
        self.one(message="of old twisted")
        self.one(logger="noisy.library", level="warn", message=f"of logging: {HOSTILE}")
        told = self.one(logger="noisy.library", level="error", message="with a traceback")
        self.assertIn("in _raise", told["traceback"])
        self.assertIn(HOSTILE, told["traceback"])
        self.one(message="of print", level="error", logger="stderr")
        thread = self.one(message="unhandled in thread noisy-thread", level="critical")
        self.assertIn("in _raise", thread["traceback"])
        self.one(logger="noisy", message="long: " + "y" * LONG)
        messages = [each["message"] for each in self.lines()]
        for part in ("Unable to format event", "UserWarning: of warnings"):
            self.assertEqual(sum(part in each for each in messages), 1, part)
        refused = self.one(event="login")
        self.assertEqual(
            [refused[name] for name in ("outcome", "reason", "address", "provider", "device")],
            ["refused", "unknown_user", "127.0.0.1", "-", ""],
        )
        self.assertIn(HOSTILE, refused["user"])


class WorkersTests(JSONCase):
    """A server with workers."""

    async def test_reports(self) -> None:
        """All that a worker reports, however it does, is one line of JSON that names it."""
        await self.serve_json("--workers", str(WORKERS))
        await self.log_in()
        await self.logged("of its errors")
        await until(lambda: "unknown_user" in self.log())
        self.check_reports()
        worker = self.one(event="login")
        self.assertIn(worker["worker"], range(1, WORKERS + 1))
        self.assertIn(worker["pid"], self.server.workers)
        for message in (
            "of descriptor 2 \\xff\\xfe",
            "x" * LONG,
            '{"time":"of descriptor 1"}',
            "of a child",
            "of its errors",
        ):
            line = self.one(logger="stderr", message=message)
            self.assertEqual(
                (line["worker"], line["pid"], line["level"]),
                (worker["worker"], worker["pid"], "error"),
            )
        self.assertEqual(await self.server.terminate(), 0)
        unhandled = self.one(message="of a Deferred", level="critical")
        self.assertIn("ValueError: of a Deferred", unhandled["traceback"])

    async def test_dies(self) -> None:
        """The last words of a worker that dies are lines of JSON too, whole or not."""
        await self.serve_json("--workers", str(WORKERS))
        await self.log_in("die")
        await self.logged("last words")
        await until(lambda: "ended: signal" in self.log())
        words = [each for each in self.lines() if each["message"].startswith("last words")]
        # Both descriptors end at the same pipe.
        self.assertEqual(words[0]["message"], 'last words{"time":"half')
        ended = [each for each in self.lines() if "how" in each]
        self.assertEqual([each["process"] for each in ended], [words[0]["pid"]])
        self.assertEqual(ended[0]["number"], words[0]["worker"])

    async def test_killed(self) -> None:
        """Nothing that is no JSON is left of killed workers."""
        await self.serve_json("--workers", str(WORKERS))
        for _ in range(2):
            victim = self.server.workers[0]
            await self.log_in()
            os.kill(victim, signal.SIGKILL)
            await until(lambda victim=victim: f"process {victim}, ended" in self.log())  # type: ignore[misc]
        self.assertGreater(len(self.lines()), 20)

    async def test_facts(self) -> None:
        """The parent alone says what the server is: at the start, at each reload, at the end."""
        await self.serve_json("--workers", str(WORKERS))
        await until(lambda: self.facts("start") == FACTS)
        self.configure({"log": {"format": "text"}})
        await self.reload()
        await until(lambda: self.facts("reload") == FACTS)
        self.assertEqual(await self.server.terminate(), 0)
        self.assertEqual((self.facts("start"), self.facts("reload")), (FACTS, FACTS))
        for each in self.lines():
            if "at" in each:
                self.assertNotIn("worker", each)
                self.assertEqual(each["pid"], self.server.pid)
        self.one(at="stop")
        self.one(form="json", level="warn")
        self.assertEqual(
            self.one(at="start", fact="listen")["urls"], [f"http://127.0.0.1:{self.server.port}"]
        )

    async def test_file(self) -> None:
        """The same holds for a log file, which SIGUSR1 rotates."""
        path = Path(self.mktemp()).absolute()
        old = path.with_name(f"{path.name}.1")
        self.log = lambda: "".join(  # type: ignore[method-assign]
            each.read_text() for each in (old, path) if each.exists()
        )
        await self.serve_json("--workers", str(WORKERS), twistd_options=[f"--logfile={path}"])
        await self.log_in()
        await until(lambda: "unknown_user" in self.log())
        self.server.send_signal(signal.SIGUSR1)
        await until(old.exists)
        self.assertEqual(await self.server.terminate(), 0)
        self.check_reports()
        self.assertEqual(self.server.log(), "")


class AloneTests(JSONCase):
    """A server of one process."""

    async def test_reports(self) -> None:
        """Standard output is JSON; what bypasses Python comes on standard error as it is."""
        errors = Path(self.mktemp()).absolute()
        await self.serve_json(program=["-c", _APART.format(str(errors))])
        await self.log_in()
        await until(lambda: "unknown_user" in self.log())
        self.assertEqual(await self.server.terminate(), 0)
        self.check_reports()
        self.assertEqual(
            errors.read_bytes().split(b"\n"),
            [
                b"of descriptor 2 \xff\xfe",
                b"x" * LONG,
                b'{"time":"of descriptor 1"}',
                b"of a child",
                b"of its errors",
                b"",
            ],
        )

    async def test_facts(self) -> None:
        """It says what it is at the start, at SIGHUP with current numbers, and at the end."""
        users = Path(self.mktemp()).absolute()
        write = {name: {"password_hash": CHEAP_HASH} for name in ("a", "b")}
        users.write_text(yaml.safe_dump({"users": write}))
        provider = {
            "module": "synapse_login_module.providers.BcryptProvider",
            "config": {"path": str(users)},
        }
        await self.serve((), {**AS_JSON, "password_providers": [provider]})
        await until(lambda: self.facts("start") == FACTS)
        users.write_text(yaml.safe_dump({"users": {**write, "c": write["a"]}}))
        self.server.hang_up()
        await until(lambda: self.facts("reload") == FACTS)
        self.assertEqual(await self.server.terminate(), 0)
        for at, count in (("start", 2), ("reload", 3)):
            self.assertEqual(
                self.one(at=at, fact="providers")["providers"],
                [{"name": "bcrypt", "kind": "BcryptProvider", "accounts": count}],
            )
        self.one(at="stop")

    async def test_text(self) -> None:
        """In text, the same facts are lines as well."""
        await self.serve(())
        for start in ("synapse_login_module ", "listens at ", "sessions ", "passwords ", "there "):
            await until(lambda start=start: f"] start: {start}" in self.log())  # type: ignore[misc]
        self.assertEqual(await self.server.terminate(), 0)
        self.assertEqual(self.log().count("] stop: "), 1)


class StartTests(SynchronousTestCase):
    """Starts that fail, and starts in the background."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def config(self, port: int, **changes: Any) -> Path:
        """Write a configuration."""
        return write_config(self.folder, good_config(port, **AS_JSON, **changes))

    def test_mistake(self) -> None:
        """A mistake in the configuration is plain text on standard error."""
        end = run(twistd(self.config(0, server_name="not a name")))
        self.assertEqual((end.returncode, end.stdout), (1, ""))
        self.assertIn("config.yaml: server_name: not a server name", end.stderr)

    def test_cannot_listen(self) -> None:
        """What stops the start is a line of the log, and text on standard error."""
        end = run(twistd(self.config(0, listen=["unix:/nowhere/at/all"])))
        self.assertEqual(end.returncode, 1)
        self.assertEqual(len(end.stderr.splitlines()), 1, end.stderr)
        told = [each for each in parsed(end.stdout.encode()) if each["level"] == "critical"]
        self.assertEqual(len(told), 1)
        self.assertIn("listen.0", told[0]["message"])
        self.assertNotIn("stop", [each.get("at") for each in parsed(end.stdout.encode())])

    def test_other_logs(self) -> None:
        """Where twistd would write another form, the start fails."""
        for option in ("--syslog", "--logger=twisted.logger.textFileLogObserver"):
            end = run(twistd(self.config(0), twistd_options=[option]))
            self.assertEqual(end.returncode, 1)
            self.assertIn("log.format: json is for standard output and --logfile", end.stderr)

    def test_background(self) -> None:
        """In the background, the log is JSON in twistd's file."""
        port = free_port()
        command = twistd(self.config(port))
        command.remove("-n")
        command[command.index("--pidfile=")] = "--pidfile=pid"
        pid = self.folder / "pid"
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=subprocess_environment(),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        os.kill(int(pid.read_text()), signal.SIGTERM)
        block_until(lambda: not pid.exists(), "the end")
        lines = parsed((self.folder / "twistd.log").read_bytes())
        facts = [each["fact"] for each in lines if "fact" in each]
        self.assertEqual((facts, lines[-1]["message"]), (FACTS, "Server Shut Down."))
