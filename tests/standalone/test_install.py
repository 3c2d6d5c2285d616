"""Tests for the scripts that install the service and the module under systemd."""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import SkipTest

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.support import REPOSITORY
from tests.support.configuration import CHEAP_HASH
from tests.support.folders import temporary_folder
from tests.support.installed import make_checkout, make_environment, offline, require_root, run
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


def plant(folder: Path) -> Path:
    """Fill a folder with modules that are named as libraries; return the file that they write."""
    found = folder / "imported"
    for name in ("click", "json", "pip", "setuptools", "synapse", "treq", "twisted", "venv"):
        (folder / f"{name}.py").write_text(f"open({str(found)!r}, 'a').write(__name__ + ' ')\n")
    return found


@dataclass
class Installation:
    """What a script installed, run once for all tests of a class.

    :ivar root: the folder in place of the root folder.
    :ivar before: what was in that folder.
    :ivar said: what the script wrote.
    :ivar imported: what Python imported from the folder that the script was started in.
    :ivar checkout: what the script installed from.
    :ivar left: what the build added to the checkout, or changed there.
    """

    root: Path
    before: dict[str, tuple[int, int, bytes]]
    said: str
    imported: str
    checkout: Path
    left: set[str]
    _saved: Path

    def restore(self) -> None:
        """Undo what a test did."""
        shutil.rmtree(self.root)
        run(["cp", "--archive", self._saved, self.root])


@functools.cache
def install(script: Path, environment: str, *options: str) -> Installation:
    """Run a script for the first time, as an operator may who takes no care.

    Its umask is root's of a hardened machine. It starts in a folder that anybody may write to, and
    the paths that it gets are relative to that folder.

    :param environment: the virtual environment that is there already.
    """
    folder = Path(tempfile.mkdtemp(prefix="install-"))
    atexit.register(shutil.rmtree, folder)
    folder.chmod(0o755)
    root, checkout, start = (folder / name for name in ("root", "checkout", "start"))
    make_environment(root / environment)
    make_checkout(checkout)
    start.mkdir()
    imported = plant(start)
    before, source = files(root), files(checkout)
    said = run(
        [script, "--root", "../root", "--source", "../checkout", *options],
        folder=start,
        umask=0o077,
    )
    names = imported.read_text() if imported.exists() else ""
    left = {name for name, found in files(checkout).items() if source.get(name) != found}
    run(["cp", "--archive", root, folder / "saved"])
    return Installation(root, before, said, names, checkout, left, folder / "saved")


class InstallTestCase(SynchronousTestCase):
    """A test case with a script, and what it installed below a folder in place of the root."""

    script: Path
    environment: str
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        require_root()
        self.installed = install(self.script, self.environment, *self.options)
        self.root = self.installed.root
        self.addCleanup(self.installed.restore)

    def install(self) -> str:
        """Run the script again."""
        return run([self.script, "--root", self.root, "--source", self.installed.checkout])

    def refuse(self, *options: str) -> str:
        """Run the script, which has to fail; return what it says."""
        command = [str(self.script), "--root", str(self.root), *options]
        done = subprocess.run(command, env=offline(), capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        return done.stderr

    def private(self, folder: Path) -> set[str]:
        """Return what another user cannot read of what was installed below a folder."""
        return {
            str(path.relative_to(folder))
            for path in (folder, *folder.rglob("*"))
            if not path.is_symlink() and not path.stat().st_mode & stat.S_IROTH
        }


class ServiceTests(InstallTestCase):
    """install.sh."""

    script = SERVICE
    environment = "opt/synapse-login"
    options = ("--port", "8009")

    def setUp(self) -> None:
        if shutil.which("systemd-sysusers") is None:
            raise SkipTest("systemd is not installed")
        super().setUp()
        self.program = self.root / self.environment
        self.python = self.program / "bin" / "python"
        self.configuration = self.root / "etc" / "synapse-login" / "login.yaml"
        self.state = self.root / "var" / "lib" / "synapse-login"

    def test_folder(self) -> None:
        """It imports nothing from the folder that it is started in."""
        self.assertEqual(self.installed.imported, "")

    def test_umask(self) -> None:
        """The service's user can read the program and its units, though root's umask is 077."""
        self.assertEqual(self.private(self.program), set())
        self.assertEqual(self.private(self.root / "etc" / "systemd"), set())

    def test_checkout(self) -> None:
        """It builds outside the checkout, and packs nothing of an earlier build."""
        self.assertEqual(self.installed.left, set())
        self.assertEqual([*self.program.rglob("gone.py")], [])

    def test_install(self) -> None:
        """It installs the program, the user, the folders, the units and a configuration."""
        self.assertIn("systemctl enable --now", self.installed.said)
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
        self.assertIn(str(self.root), run([self.python, "-I", "-c", where]))

    def test_verify(self) -> None:
        """systemd finds everything that the installed units name."""
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
        self.configuration.write_text("server_name: example.org\n")
        (self.state / "sessions.db").write_text("sessions")
        before = {**files(self.root / "etc"), **files(self.state)}
        self.assertEqual(self.install(), "")
        self.assertEqual({**files(self.root / "etc"), **files(self.state)}, before)

    def test_new_python(self) -> None:
        """After an upgrade of Python it makes the virtual environment anew."""
        (lib,) = (self.root / "opt/synapse-login/lib").glob("python*")
        lib.rename(lib.with_name("python3.5"))
        stub = self.root / "python"
        stub.write_text(f'#!/bin/sh\necho "$@" >>{self.root}/asked\nexit 1\n')
        stub.chmod(0o755)
        self.refuse("--python", str(stub))
        self.assertEqual(
            (self.root / "asked").read_text().split(),
            ["-I", "-m", "venv", str(self.root / "opt/synapse-login")],
        )

    def test_configuration(self) -> None:
        """The configuration is one that the program accepts once it has a user."""
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

    environment = "opt/venvs/matrix-synapse"

    def setUp(self) -> None:
        require("synapse")
        super().setUp()
        self.place = self.root / "opt" / "synapse-login-module"
        self.drop_in = (
            self.root / "etc/systemd/system/matrix-synapse.service.d/synapse-login-module.conf"
        )
        self.synapse = self.root / self.environment
        self.python = self.synapse / "bin" / "python"
        self.command = self.place / "bin" / "synapse-login-module"

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
        self.assertIn(str(self.place), self.loaded())
        shutil.rmtree(self.synapse)
        make_environment(self.synapse)
        self.assertIn(str(self.place), self.loaded())

    def test_nothing_of_synapse(self) -> None:
        """It brings no library that Synapse has, and changes nothing in Synapse's folder."""
        names = {path.name for path in self.place.iterdir()} - {"bin", "twisted"}
        self.assertEqual({name.partition("-")[0] for name in names}, {"synapse_login_module"})
        self.assertFalse((self.place / "twisted" / "__init__.py").exists())
        self.assertEqual(
            {
                name: found
                for name, found in files(self.root).items()
                if name.startswith(self.environment) and ".pyc" not in name
            },
            self.installed.before,
        )

    def test_folder(self) -> None:
        """It imports nothing from the folder that it is started in."""
        self.assertEqual(self.installed.imported, "")

    def test_umask(self) -> None:
        """Synapse's user can read the module and the drop-in, though root's umask is 077."""
        self.assertEqual(self.private(self.place), set())
        self.assertEqual(self.private(self.root / "etc" / "systemd"), set())

    def test_checkout(self) -> None:
        """It builds outside the checkout, and packs nothing of an earlier build."""
        self.assertEqual(self.installed.left, set())
        self.assertEqual([*self.place.rglob("gone.py")], [])

    def test_commands(self) -> None:
        """The commands run with Synapse's Python, and take paths of the folder they start in."""
        folder = temporary_folder(self)
        module = "synapse_login_module.providers.BcryptProvider"
        config = {
            "server_name": "example.com",
            "listen": ["tcp:8008"],
            "password_providers": [{"module": module, "config": {"users": {}}}],
        }
        (folder / "login.yaml").write_text(yaml.safe_dump(config))
        said = run([self.command, "check-config", "login.yaml"], folder=folder)
        self.assertIn("login.yaml", said)

    def test_folder_of_commands(self) -> None:
        """The commands import nothing from the folder that they are started in."""
        folder = temporary_folder(self)
        imported = plant(folder)
        said = run([self.command, "check-config", "--help"], folder=folder)
        self.assertIn("Usage: synapse-login-module check-config", said)
        self.assertFalse(imported.exists())

    def test_again(self) -> None:
        """Run again, it replaces the module, and leaves nothing of the one before."""
        (self.place / "synapse_login_module" / "gone.py").touch()
        self.install()
        self.assertFalse((self.place / "synapse_login_module" / "gone.py").exists())
        self.assertEqual(
            [path.name for path in self.place.parent.glob("synapse*")], [self.place.name]
        )
        self.assertIn(str(self.place), self.loaded())

    def test_does_not_go_with_it(self) -> None:
        """With a library of Synapse's that is too old it changes nothing, and says which."""
        before = files(self.place)
        (site,) = (self.synapse / "lib").glob("python*/site-packages")
        old = site / "treq-1.0.dist-info"
        old.mkdir()
        (old / "METADATA").write_text("Metadata-Version: 2.1\nName: treq\nVersion: 1.0\n")
        said = self.refuse("--source", str(self.installed.checkout))
        self.assertIn("treq", said)
        self.assertIn("does not go with the module", said)
        self.assertEqual(files(self.place), before)

    def test_no_synapse(self) -> None:
        """Where there is no Synapse, it says where it looked."""
        shutil.rmtree(self.synapse)
        said = self.refuse("--source", str(self.installed.checkout))
        self.assertIn(f"{self.root}/usr/bin/python3: there is no Synapse", said)

    def test_remove(self) -> None:
        """Removing it leaves nothing."""
        run([self.script, "--root", self.root, "--remove"])
        new = {name for name in files(self.root) if ".pyc" not in name} - {*self.installed.before}
        self.assertEqual(new, set())
        self.assertFalse(self.drop_in.parent.exists())
