"""Tests for ``twistd synapse-login``, most of them with the real twistd."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin, getPlugins
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import tap
from synapse_login_module.standalone import privileges
from tests.support import REPOSITORY
from tests.support.accounts import ALICE, ALICE_PASSWORD
from tests.support.broken_configurations import COMMON_MISTAKES, Broken, broken_configs
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.process import run
from tests.support.server import start_server, twistd

V3 = "/_matrix/client/v3"

_LOADED_BEFOREHAND = """
import encodings.ascii
from twisted.scripts.twistd import run
run()
"""


class OptionsTests(SynchronousTestCase):
    """The options."""

    def test_config(self) -> None:
        """The configuration is named by --config or -c."""
        for arguments in (["--config", "x"], ["--config=x"], ["-c", "x"]):
            options = tap.Options()
            options.parseOptions(arguments)
            self.assertEqual(options["config"], "x")

    def test_no_config(self) -> None:
        """Without one the program ends with one line."""
        ended = self.assertRaises(SystemExit, tap.Options().parseOptions, [])
        self.assertIn("--config", str(ended.code))
        self.assertEqual(len(str(ended.code).splitlines()), 1)

    def test_bad_config(self) -> None:
        """A configuration that cannot be used ends the program with one line."""
        options = tap.Options()
        options.parseOptions(["--config", str(Path(self.mktemp()))])
        ended = self.assertRaises(SystemExit, tap.makeService, options)
        self.assertEqual(len(str(ended.code).splitlines()), 1)
        self.assertIn(options["config"], str(ended.code))

    def test_plugin(self) -> None:
        """Twisted finds the plugin, and in it this module."""
        found = [
            each
            for each in getPlugins(IServiceMaker, namedAny("twisted.plugins"))
            if each.tapname == "synapse-login"
        ]
        self.assertEqual(len(found), 1)
        self.assertTrue(IPlugin.providedBy(found[0]))
        self.assertIs(found[0].options, tap.Options)
        self.assertIs(found[0].makeService, tap.makeService)


def _is_told(broken: Broken, said: str) -> bool:
    """Whether one line names the file, and the path in it."""
    path = broken.path and f"{broken.path}: "
    start = f"synapse-login: {broken.config}: {path}"
    return said.startswith(start) and len(said.splitlines()) == 1


class TwistdTests(SynchronousTestCase):
    """The real twistd."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def test_help(self) -> None:
        """twistd lists the plugin, and the plugin explains its option."""
        command = twistd(Path("x"))
        command = command[: command.index("synapse-login")]
        listed = run([*command, "--help"])
        self.assertEqual(listed.returncode, 0, listed.stderr)
        self.assertIn("synapse-login", listed.stdout)
        said = run([*command, "synapse-login", "--help"])
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn("--config", said.stdout)

    def test_broken(self) -> None:
        """Whatever is wrong is told in one line with the path."""
        wrong = []
        for each in broken_configs(self.folder):
            options = tap.Options()
            options.parseOptions(["--config", str(each.config)])
            try:
                tap.makeService(options)
            except SystemExit as ended:
                if not _is_told(each, str(ended.code)):
                    wrong.append(f"{each.name}: {ended.code}")
            except Exception as error:
                wrong.append(f"{each.name}: {error!r}")
            else:
                wrong.append(f"{each.name}: taken for good")
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_broken_in_processes(self) -> None:
        """The same with the exit status, for the mistakes that are made most."""
        broken = [each for each in broken_configs(self.folder) if each.name in COMMON_MISTAKES]
        self.assertEqual(len(broken), len(COMMON_MISTAKES))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ends = list(pool.map(lambda each: run(twistd(each.config)), broken))
        for each, end in zip(broken, ends, strict=True):
            self.assertEqual(end.returncode, 1, each.name)
            self.assertTrue(_is_told(each, end.stderr), f"{each.name}: {end.stderr}")
            self.assertNotIn("Traceback", end.stdout)

    def test_no_config(self) -> None:
        """Without --config it is one line too."""
        command = twistd(Path("x"))
        end = run(command[: command.index("--config")])
        self.assertEqual(end.returncode, 1)
        self.assertEqual(len(end.stderr.splitlines()), 1, end.stderr)

    def test_cannot_listen(self) -> None:
        """A port in use, one that is none, or a socket that was not handed over is one line,
        and nothing stays behind.
        """
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            free, used = free_port(), taken.getsockname()[1]
            for number, listen in enumerate(
                (
                    f"tcp:{used}:interface=127.0.0.1",
                    "tcp:99999:interface=127.0.0.1",
                    "unix:/nowhere/at/all",
                    "systemd:domain=INET:index=0",
                )
            ):
                here = self.folder / str(number)
                here.mkdir()
                config = good_config(free)
                config["listen"].append(listen)
                end = run(twistd(write_config(here, config)))
                self.assertEqual(end.returncode, 1, (listen, end.stderr))
                lines = (end.stdout + end.stderr).splitlines()
                told = [line for line in lines if "listen.1: " in line]
                self.assertEqual(len(told), 1, (listen, lines))
                self.assertNotIn("Traceback", end.stdout + end.stderr)

    def test_seed_example(self) -> None:
        """The sample configuration, but for its port, answers the seed's own example request."""
        port = free_port()
        text = (REPOSITORY / "sample_config.yaml").read_text(encoding="utf-8")
        listen = 'listen: ["tcp:8008:interface=127.0.0.1"]'
        self.assertIn(listen, text)
        path = write_config(self.folder, text.replace(listen, listen.replace("8008", str(port))))
        server = start_server(path, port)
        self.addCleanup(server.stop)
        example = {"type": "m.login.password", "user": "cheeky_monkey", "password": "ilovebananas"}
        status, login = server.ask("POST", "/_matrix/client/r0/login", example)
        self.assertEqual((status, login.get("user_id")), (200, "@cheeky_monkey:localhost"))
        refresh = {"refresh_token": login["refresh_token"]}
        path_, token = "/_matrix/client/r0/tokenrefresh", login["access_token"]
        status, pair = server.ask("POST", path_, refresh, token)
        self.assertEqual(status, 200)
        status, answer = server.ask("POST", path_, refresh, pair["access_token"])
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        self.assertEqual(server.stop(), 0)
        self.assertEqual((self.folder / "token.key").stat().st_mode & 0o777, 0o600)

    def test_sessions_outlive_a_restart(self) -> None:
        """After a stop and a start the tokens are as good as before, and so is the log."""
        port = free_port()
        path = write_config(self.folder, good_config(port))
        login: dict[str, Any] = {}
        for first in (True, False):
            server = start_server(path, port)
            try:
                if first:
                    payload = {
                        "type": "m.login.password",
                        "user": "alice",
                        "password": ALICE_PASSWORD,
                    }
                    login = server.ask("POST", f"{V3}/login", payload)[1]
                status, answer = server.ask(
                    "GET", f"{V3}/account/whoami", token=login["access_token"]
                )
                self.assertEqual((status, answer.get("user_id")), (200, ALICE))
            finally:
                self.assertEqual(server.stop(), 0)
            self.assertNotIn("Traceback", server.log())
        self.assertFalse((self.folder / "sessions.db-wal").exists())

    @skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_another_user(self) -> None:
        """With --uid the files belong to that user, who can use them then and after a restart."""
        nobody, folder = self.folder_of_nobody()
        port = free_port()
        path = write_config(folder, good_config(port))
        body = {"type": "m.login.password", "user": "alice", "password": ALICE_PASSWORD}
        for _ in range(2):
            server = start_server(path, port, **self.as_user(nobody.pw_name))
            try:
                self.assertEqual(server.ask("POST", f"{V3}/login", body)[0], 200)
                for name in ("token.key", "sessions.db", "sessions.db-wal"):
                    status = (folder / name).stat()
                    self.assertEqual((status.st_uid, status.st_gid), (nobody.pw_uid, nobody.pw_gid))
            finally:
                self.assertEqual(server.stop(), 0)

    @skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_another_user_who_may_not(self) -> None:
        """What that user may not do is one line before anything begins."""
        nobody, folder = self.folder_of_nobody()
        path = write_config(folder, good_config(free_port()))
        os.chown(folder, 0, 0)
        folder.chmod(0o755)
        for user, said in (
            (nobody.pw_name, "tokens.key_file: cannot make"),
            ("4000000000", "no user with uid 4000000000"),
        ):
            end = run(twistd(path, **self.as_user(user)))
            self.assertEqual(end.returncode, 1)
            self.assertEqual(len(end.stderr.splitlines()), 1, end.stderr)
            self.assertIn(said, end.stderr)
            self.assertEqual(os.listdir(folder), ["config.yaml"])

    def as_user(self, user: str) -> dict[str, list[str]]:
        """How the server is started as another user, who need not be allowed to read this Python:
        it loads what would be loaded later on beforehand.
        """
        return {"program": ["-c", _LOADED_BEFOREHAND], "twistd_options": ["--uid", user]}

    def folder_of_nobody(self) -> tuple[pwd.struct_passwd, Path]:
        """A user without privileges, and a folder of theirs outside of anybody's home."""
        nobody = pwd.getpwnam("nobody")
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        return nobody, folder

    def test_modes(self) -> None:
        """What the server makes is its owner's alone; what was open before is warned of."""
        port = free_port()
        config = good_config(port)
        config["password_providers"][0]["config"]["pepper"] = "geheim"
        path = write_config(self.folder, config)
        path.chmod(0o644)
        before = os.umask(0o022)
        try:
            server = start_server(path, port)
        finally:
            os.umask(before)
        self.addCleanup(server.stop)
        body = {"type": "m.login.password", "user": "alice", "password": "x"}
        self.assertEqual(server.ask("POST", f"{V3}/login", body)[0], 403)
        for name in ("token.key", "sessions.db", "sessions.db-wal", "sessions.db-shm"):
            self.assertEqual((self.folder / name).stat().st_mode & 0o777, 0o600, name)
        self.assertIn("everybody can read the file", server.log())
        self.assertNotIn("everybody can read the sessions", server.log())
        server.stop()
        path.chmod(0o600)
        (self.folder / "sessions.db").chmod(0o644)
        start = len(server.log())
        server.start_and_wait()
        self.assertIn("everybody can read the sessions", server.log()[start:])
        self.assertNotIn("everybody can read the file", server.log()[start:])

    def test_several_listeners(self) -> None:
        """A server listens on all that it is told to."""
        port = free_port()
        config = good_config(port)
        config["listen"].append(f"unix:{self.folder / 'sock'}")
        server = start_server(write_config(self.folder, config), port)
        self.addCleanup(server.stop)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.path.relpath(self.folder / "sock"))
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.0 200 "))


@skipUnless(os.geteuid() == 0, "only root can become somebody else")
class PrivilegesTests(SynchronousTestCase):
    """Being another user for a while."""

    def setUp(self) -> None:
        self.nobody = pwd.getpwnam("nobody")

    def ids(self) -> tuple[int, int, list[int]]:
        """Whom files take this process for."""
        return os.geteuid(), os.getegid(), sorted(os.getgroups())

    def test_there_and_back(self) -> None:
        """It is that user with the user's groups, and afterwards, come what may, who it was."""
        before = self.ids()
        with (
            self.assertRaises(ZeroDivisionError),
            privileges.effective(self.nobody.pw_uid, None),
        ):
            uid, gid, groups = self.ids()
            raise ZeroDivisionError
        self.assertEqual((uid, gid), (self.nobody.pw_uid, self.nobody.pw_gid))
        self.assertNotIn(0, groups)
        self.assertEqual(self.ids(), before)

    def test_group(self) -> None:
        """A group may be named too, or alone."""
        with privileges.effective(self.nobody.pw_uid, 1):
            self.assertEqual(self.ids()[:2], (self.nobody.pw_uid, 1))
        with privileges.effective(None, 1):
            self.assertEqual(self.ids()[:2], (0, 1))

    def test_nobody_else(self) -> None:
        """Without either nothing changes."""
        before = self.ids()
        with privileges.effective(None, None):
            self.assertEqual(self.ids(), before)
