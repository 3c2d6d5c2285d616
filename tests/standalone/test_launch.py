"""Starts with the real twistd that succeed and fail, as a daemon and in the foreground."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.http import healthy
from tests.support.ports import free_port
from tests.support.process import run
from tests.support.server import twistd
from tests.support.waiting import block_until

_BREAKING = "tests.standalone.breaking.BreakingProvider"
_BROKEN_FACT = """
from synapse_login_module import start_lines
def broken(*_):
    raise RuntimeError("a broken fact")
start_lines.homeserver = broken
from twisted.scripts.twistd import run
run()
"""
"""twistd with a plugin's error in what the server says of itself."""

_DISK = "1m"
_HANGS = 60.0
"""Seconds after which a start counts as hanging."""


class LaunchCase(SynchronousTestCase):
    """A test case that starts servers."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.pidfile = self.folder / "twistd.pid"
        self.log = self.folder / "twistd.log"
        self.port = free_port()
        self.addCleanup(self.end)

    def config(self, **changes: object) -> Path:
        """Write a valid configuration with changes."""
        return write_config(self.folder, {**good_config(self.port), **changes})

    def start(
        self,
        config: Path,
        *options: str,
        workers: int | None = None,
        foreground: bool = False,
        before: Sequence[str] = (),
        program: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run twistd until it releases the terminal; the test fails if it hangs.

        :param options: further options of twistd, which override earlier ones.
        :param before: a program that runs the command line.
        :param program: the arguments of Python that run another program instead of twistd.
        """
        more = [] if workers is None else ["--workers", str(workers)]
        command = twistd(config, options=more, program=program)
        at = command.index("-n")
        files = [f"--pidfile={self.pidfile}", f"--logfile={self.log}", *options]
        command[at : command.index("synapse-login")] = ["-n"] * foreground + files
        return run([*before, *command], timeout=_HANGS)

    def end(self) -> None:
        """End the daemon, if there is one."""
        if self.pidfile.exists():
            pid = int(self.pidfile.read_text())
            os.kill(pid, signal.SIGTERM)
            block_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the daemon")

    def fails(self, end: subprocess.CompletedProcess[str], *said: str) -> None:
        """Assert that the start failed: status 1, one line with the reason, nothing left behind."""
        self.assertEqual(end.returncode, 1, (end.stdout, end.stderr))
        lines = end.stderr.splitlines()
        self.assertEqual(len(lines), 1, end.stderr)
        self.assertTrue(lines[0].startswith("synapse-login: "), end.stderr)
        for each in said:
            self.assertIn(each, lines[0])
        self.assertFalse(self.pidfile.exists())


class DaemonTests(LaunchCase):
    """twistd started by hand: in the background, with a pidfile and a log file."""

    def test_serves(self) -> None:
        """The command exits with 0 once requests are answered, and SIGTERM stops the daemon."""
        for workers in (None, 2):
            end = self.start(self.config(), workers=workers)
            self.assertEqual((end.returncode, end.stdout, end.stderr), (0, "", ""))
            self.assertTrue(healthy(self.port))
            pid = int(self.pidfile.read_text())
            self.assertEqual(os.getsid(pid), os.getpgid(pid))
            self.assertNotEqual(os.getsid(pid), os.getsid(0))
            self.assertNotEqual(os.getsid(pid), pid, "it could come by a terminal")
            for stream in range(3):
                self.assertEqual(os.readlink(f"/proc/{pid}/fd/{stream}"), os.devnull)
            self.end()
            self.assertFalse(self.pidfile.exists())

    def test_broken_fact(self) -> None:
        """A server that cannot say what it is serves, is reloaded, and logs why."""
        for workers in (None, 2):
            self.log.unlink(missing_ok=True)
            end = self.start(self.config(), workers=workers, program=["-c", _BROKEN_FACT])
            self.assertEqual((end.returncode, end.stderr), (0, ""))
            self.assertTrue(healthy(self.port))
            block_until(lambda: "start: the server serves, but" in self.log.read_text(), "a line")
            os.kill(int(self.pidfile.read_text()), signal.SIGHUP)
            block_until(lambda: "reload: the server serves, but" in self.log.read_text(), "a line")
            self.end()
            log = self.log.read_text()
            self.assertEqual(log.count("RuntimeError: a broken fact"), 2)
            self.assertIn("has answered its requests and stopped", log)
            for untrue in ("the workers were not changed", "the accounts were not counted"):
                self.assertNotIn(untrue, log)

    def test_port_in_use(self) -> None:
        """A port in use is reported on the terminal and in the log, with and without workers."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", self.port))
            taken.listen()
            for workers in (None, 2):
                self.log.unlink(missing_ok=True)
                path = self.config()
                end = self.start(path, workers=workers)
                self.fails(end, f"{path}: listen.0: ", "Address already in use")
                self.assertIn("Address already in use", self.log.read_text())
                self.assertNotIn("Traceback", self.log.read_text())

    def test_twice(self) -> None:
        """A second start fails while the first runs, and does not disturb it."""
        path = self.config()
        self.assertEqual(self.start(path).returncode, 0)
        pid = self.pidfile.read_text()
        end = self.start(path)
        self.assertEqual(end.returncode, 1)
        self.assertIn(f"PID {pid}", end.stderr)
        self.assertEqual(self.pidfile.read_text(), pid)
        self.assertTrue(healthy(self.port))

    def test_broken_plugin(self) -> None:
        """A plugin that raises or exits at its start gives one line, and a traceback in the log."""
        for how in ("raise", "exit", "build"):
            for workers in (None, 2):
                providers = [{"module": _BREAKING, "config": {"how": how}}]
                end = self.start(self.config(password_providers=providers), workers=workers)
                self.fails(end, "a broken plugin")
                if how == "raise":
                    self.assertIn("breaking.py", end.stderr)
                    self.assertIn("Traceback", self.log.read_text())

    def test_killed(self) -> None:
        """If a daemon or a worker is killed at its start, the command does not hang."""
        providers = [{"module": _BREAKING, "config": {"how": "kill"}}]
        for workers in (None, 1):
            self.fails(self.start(self.config(password_providers=providers), workers=workers))

    def test_twistds_files(self) -> None:
        """A pidfile or a log file that cannot be written gives one line."""
        nowhere = self.folder / "nowhere" / "file"
        for option in ("pidfile", "logfile"):
            self.fails(self.start(self.config(), f"--{option}={nowhere}"), str(nowhere))

    def test_environment(self) -> None:
        """A missing ``--rundir`` or ``--chroot`` gives one line."""
        for option in ("rundir", "chroot"):
            self.fails(self.start(self.config(), f"--{option}=/nowhere/at/all"), "/nowhere/at/all")

    @skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_privileges(self) -> None:
        """A start that is not allowed to change the user fails with one line."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise SkipTest("setpriv is not installed")
        bound = [setpriv, "--bounding-set=-setuid,-setgid", "--inh-caps=-setuid,-setgid"]
        for uid in ("nobody", "65534"):
            end = self.start(self.config(), "--uid", uid, before=bound)
            self.fails(end, "Operation not permitted")

    @skipUnless(os.geteuid() == 0, "only root can mount")
    def test_full_disk(self) -> None:
        """A full disk for the key, the database or the log gives one line."""
        disk = self.folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            raise SkipTest("a file system cannot be mounted")
        self.addCleanup(subprocess.run, ["umount", str(disk)], check=True)
        with (disk / "filler").open("ab", buffering=0) as filler:
            for size in (1 << 12, 1):
                try:
                    while filler.write(bytes(size)):
                        pass
                except OSError:
                    continue
        store = {"module": "synapse_login_module.stores.SQLiteTokenStore"}
        for changes in (
            {"tokens": {"key_file": "disk/token.key"}},
            {"token_store": {**store, "config": {"path": "disk/sessions.db"}}},
        ):
            self.fails(self.start(self.config(**changes)))
        self.fails(self.start(self.config(), f"--pidfile={disk / 'twistd.pid'}"), "No space left")
        self.assertEqual((disk / "twistd.pid").exists(), False)


class ForegroundTests(LaunchCase):
    """``twistd -n``, as a service manager starts it."""

    def test_failures(self) -> None:
        """Failures are on the terminal, even with a log file, and the pidfile is removed."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", self.port))
            taken.listen()
            for workers in (None, 2):
                for log in (str(self.log), "-"):
                    end = self.start(
                        self.config(), f"--logfile={log}", workers=workers, foreground=True
                    )
                    self.fails(end, "listen.0: ", "Address already in use")
        for how in ("raise", "exit"):
            for workers in (None, 2):
                config = self.config(
                    password_providers=[{"module": _BREAKING, "config": {"how": how}}]
                )
                self.fails(self.start(config, workers=workers, foreground=True), "a broken plugin")
