"""Tests for the scripts that install the service and the module under systemd."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from unittest import SkipTest

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.support import REPOSITORY
from tests.support.configuration import CHEAP_HASH
from tests.support.folders import temporary_folder
from tests.support.installed import build_wheel, make_environment, offline, require_root, run
from tests.support.process import require

SYSTEMD = REPOSITORY / "contrib" / "systemd"
SERVICE = SYSTEMD / "install.sh"
MODULE = SYSTEMD / "install-module.sh"


def files(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return the mode, the group and the content of each file below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.stat().st_gid, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


class InstallTestCase(SynchronousTestCase):
    """A test case with an empty folder in place of the root folder, and a wheel."""

    script: Path

    def setUp(self) -> None:
        require_root()
        self.root = temporary_folder(self)
        self.wheel = build_wheel()

    def install(self, *options: str) -> str:
        """Run the script."""
        return run([self.script, "--root", self.root, "--source", self.wheel, *options])

    def refuse(self, *options: str) -> str:
        """Run the script, which has to fail; return what it says."""
        command = [str(self.script), "--root", str(self.root), *options]
        done = subprocess.run(command, env=offline(), capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        return done.stderr


class ServiceTests(InstallTestCase):
    """install.sh."""

    script = SERVICE

    def setUp(self) -> None:
        super().setUp()
        if shutil.which("systemd-sysusers") is None:
            raise SkipTest("systemd is not installed")
        self.python = make_environment(self.root / "opt" / "synapse-login")
        self.configuration = self.root / "etc" / "synapse-login" / "login.yaml"
        self.state = self.root / "var" / "lib" / "synapse-login"

    def test_install(self) -> None:
        """It installs the program, the user, the folders, the units and a configuration."""
        said = self.install("--port", "8009")
        self.assertIn("systemctl enable --now", said)
        passwd = (self.root / "etc" / "passwd").read_text()
        found = re.search(r"^synapse-login:[^:]*:(\d+):(\d+):", passwd, re.MULTILINE)
        assert found is not None, passwd
        user, group = map(int, found.groups())
        self.assertEqual((self.state.stat().st_uid, self.state.stat().st_gid), (user, group))
        self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(self.configuration.stat().st_mode), 0o640)
        self.assertEqual(self.configuration.stat().st_gid, group)
        port = self.root / "etc/systemd/system/synapse-login.socket.d/port.conf"
        self.assertIn("ListenStream=127.0.0.1:8009\n", port.read_text())
        where = "import synapse_login_module as m; print(m.__file__)"
        self.assertIn(str(self.root), run([self.python, "-c", where]))

    def test_verify(self) -> None:
        """systemd finds everything that the installed units name."""
        self.install()
        names = ["synapse-login.service", "synapse-login.socket"]
        for unit in ("basic", "multi-user", "network-online", "shutdown", "sockets", "sysinit"):
            (self.root / f"etc/systemd/system/{unit}.target").write_text("[Unit]\nDescription=-\n")
        program = self.root / "bin" / "kill"
        program.parent.mkdir()
        program.touch(0o755)
        said = run(["systemd-analyze", f"--root={self.root}", "verify", "--man=no", *names])
        self.assertNotIn("synapse-login", said)

    def test_again(self) -> None:
        """Run again, it leaves everything as it is, the operator's files too."""
        self.install("--port", "8009")
        self.configuration.write_text("server_name: example.org\n")
        (self.state / "sessions.db").write_text("sessions")
        before = {**files(self.root / "etc"), **files(self.state)}
        self.assertEqual(self.install(), "")
        self.assertEqual({**files(self.root / "etc"), **files(self.state)}, before)

    def test_new_python(self) -> None:
        """After an upgrade of Python it makes the virtual environment anew."""
        self.install()
        (lib,) = (self.root / "opt/synapse-login/lib").glob("python*")
        lib.rename(lib.with_name("python3.5"))
        stub = self.root / "python"
        stub.write_text(f'#!/bin/sh\necho "$@" >>{self.root}/asked\nexit 1\n')
        stub.chmod(0o755)
        self.refuse("--python", str(stub))
        self.assertEqual(
            (self.root / "asked").read_text().split(),
            ["-m", "venv", str(self.root / "opt/synapse-login")],
        )

    def test_configuration(self) -> None:
        """The configuration is one that the program accepts once it has a user."""
        self.install()
        text = self.configuration.read_text().replace("/var/lib/synapse-login", str(self.state))
        config = yaml.safe_load(text)
        config["password_providers"][0]["config"] = {
            "users": {"alice": {"password_hash": CHEAP_HASH}}
        }
        self.configuration.write_text(yaml.safe_dump(config))
        command = [str(self.python), "-m", "synapse_login_module.cli", "check-config"]
        run([*command, str(self.configuration)])

    def test_remove(self) -> None:
        """Removing it keeps what is the operator's, and purging it nothing."""
        self.install("--port", "8009")
        run([self.script, "--root", self.root, "--remove"])
        left = {name for name in files(self.root) if "login" in name}
        self.assertEqual(left, {"etc/synapse-login/login.yaml"})
        self.assertTrue(self.state.is_dir())
        run([self.script, "--root", self.root, "--purge"])
        self.assertFalse(self.configuration.parent.exists())
        self.assertFalse(self.state.exists())

    def test_mistakes(self) -> None:
        """It refuses a mistyped option, one without its value, and a port that is no number."""
        self.assertIn("usage:", self.refuse("--prot", "8009"))
        self.assertIn("--port needs a value", self.refuse("--port"))
        self.assertIn("--port: not a number: http", self.refuse("--port", "http"))


class ModuleTests(InstallTestCase):
    """install-module.sh, with a virtual environment that stands for Synapse's."""

    script = MODULE

    def setUp(self) -> None:
        require("synapse")
        super().setUp()
        self.place = self.root / "opt" / "synapse-login-module"
        self.drop_in = (
            self.root / "etc/systemd/system/matrix-synapse.service.d/synapse-login-module.conf"
        )
        self.synapse = self.root / "opt" / "venvs" / "matrix-synapse"
        self.python = make_environment(self.synapse)

    def loaded(self) -> str:
        """Load the module as Synapse does under systemd; return the file that it came from."""
        found = re.search(r"^Environment=PYTHONPATH=(.+)$", self.drop_in.read_text(), re.MULTILINE)
        assert found is not None
        load = (
            "import sys\n"
            "from synapse.util.module_loader import load_module\n"
            "config = {'password_providers': [{'module':"
            " 'synapse_login_module.providers.BcryptProvider', 'config': {'users': {}}}]}\n"
            "load_module({'module': 'synapse_login_module.SynapseLoginModule', 'config': config},"
            " ['modules'])\n"
            "print(sys.modules['synapse_login_module'].__file__)\n"
        )
        return run([self.python, "-c", load], PYTHONPATH=f"{self.root}{found[1]}")

    def test_upgrade_of_synapse(self) -> None:
        """The module loads, and goes on loading when Synapse's own folder is made anew."""
        self.install()
        self.assertIn(str(self.place), self.loaded())
        shutil.rmtree(self.synapse)
        make_environment(self.synapse)
        self.assertIn(str(self.place), self.loaded())

    def test_nothing_of_synapse(self) -> None:
        """It brings no library that Synapse has, and changes nothing in Synapse's folder."""
        before = files(self.synapse)
        self.install()
        names = {path.name for path in self.place.iterdir()} - {"bin", "twisted"}
        self.assertEqual({name.partition("-")[0] for name in names}, {"synapse_login_module"})
        self.assertFalse((self.place / "twisted" / "__init__.py").exists())
        self.assertEqual(
            {k: v for k, v in files(self.synapse).items() if ".pyc" not in k},
            {k: v for k, v in before.items() if ".pyc" not in k},
        )

    def test_commands(self) -> None:
        """The commands run with Synapse's Python."""
        self.install()
        script = self.place / "bin" / "synapse-login-module"
        self.assertIn("check-config", run([script, "--help"]))

    def test_again(self) -> None:
        """Run again, it replaces the module, and leaves nothing of the one before."""
        self.install()
        (self.place / "synapse_login_module" / "gone.py").touch()
        self.install()
        self.assertFalse((self.place / "synapse_login_module" / "gone.py").exists())
        self.assertEqual(
            [path.name for path in self.place.parent.glob("synapse*")], [self.place.name]
        )
        self.assertIn(str(self.place), self.loaded())

    def test_does_not_go_with_it(self) -> None:
        """With a library of Synapse's that is too old it changes nothing, and says which."""
        self.install()
        before = files(self.place)
        (site,) = (self.synapse / "lib").glob("python*/site-packages")
        old = site / "treq-1.0.dist-info"
        old.mkdir()
        (old / "METADATA").write_text("Metadata-Version: 2.1\nName: treq\nVersion: 1.0\n")
        said = self.refuse("--source", str(self.wheel))
        self.assertIn("treq", said)
        self.assertIn("does not go with the module", said)
        self.assertEqual(files(self.place), before)

    def test_no_synapse(self) -> None:
        """Where there is no Synapse, it says where it looked."""
        shutil.rmtree(self.synapse)
        said = self.refuse("--source", str(self.wheel))
        self.assertIn(f"{self.root}/usr/bin/python3: there is no Synapse", said)

    def test_remove(self) -> None:
        """Removing it leaves nothing."""
        before = files(self.root)
        self.install()
        run([self.script, "--root", self.root, "--remove"])
        new = {name for name in files(self.root) if ".pyc" not in name} - {*before}
        self.assertEqual(new, set())
        self.assertFalse(self.drop_in.parent.exists())
