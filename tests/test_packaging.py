"""Tests for what is in the packages that are built of this repository."""

from __future__ import annotations

import email
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import synapse_login_module
from tests.support import REPOSITORY
from tests.support.folders import temporary_folder

BUILD_TIME = 300.0

PLUGIN = "twisted/plugins/synapse_login.py"
NEVER = ("twisted/__init__.py", "twisted/plugins/__init__.py")


def modules() -> set[str]:
    """Every module of the package, the files of its pages, and its marker for type checkers."""
    package = REPOSITORY / "synapse_login_module"
    files = [*package.rglob("*.py"), *(package / "web" / "static").iterdir()]
    found = {path.relative_to(REPOSITORY).as_posix() for path in files}
    return {*found, "synapse_login_module/py.typed"}


class TreeTests(SynchronousTestCase):
    """The repository."""

    def test_plugin_folder(self) -> None:
        """Twisted's plugin folder holds the plugin, and nothing that would make it a package."""
        self.assertTrue((REPOSITORY / PLUGIN).exists())
        for name in NEVER:
            self.assertFalse((REPOSITORY / name).exists(), name)

    def test_py_typed(self) -> None:
        """The package says that it has types."""
        self.assertTrue((REPOSITORY / "synapse_login_module" / "py.typed").exists())


class BuildTests(SynchronousTestCase):
    """Packages built from a copy of the repository."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.copy = self.folder / "copy"
        shutil.copytree(
            REPOSITORY,
            self.copy,
            ignore=lambda folder, names: [
                name
                for name in names
                if name.startswith((".git", "_trial", ".mypy", ".ruff", ".hypothesis"))
                or name in ("build", "dist", ".venv", ".tox", "__pycache__", "dropin.cache")
                or name.endswith(".egg-info")
            ],
        )

    def build(self, *command: str) -> None:
        """Run a command of a build in the copy."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.copy,
            env={**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            timeout=BUILD_TIME,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def need(self, *names: str) -> None:
        """Skip the test where a module is missing."""
        for name in names:
            if importlib.util.find_spec(name) is None:
                raise SkipTest(f"{name} is not installed")

    def need_wheel(self) -> None:
        """Skip the test where no wheel can be built as a release is."""
        self.need("setuptools", "pip")
        if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
            raise SkipTest("setuptools is older than pyproject.toml wants it")

    def test_wheel(self) -> None:
        """A wheel holds every module, the plugin, the marker, the licence, and no more."""
        self.need_wheel()
        self.build("-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", "dist", ".")
        (wheel,) = (self.copy / "dist").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            about = {name for name in names if ".dist-info/" in name}
            (metadata,) = (name for name in about if name.endswith("/METADATA"))
            fields = email.message_from_bytes(archive.read(metadata))
            (entries,) = (name for name in about if name.endswith("/entry_points.txt"))
            commands = archive.read(entries).decode("utf-8")
        self.assertEqual(names - about, {*modules(), PLUGIN})
        self.assertEqual(fields["Version"], synapse_login_module.__version__)
        self.assertEqual(fields["License-Expression"], "Apache-2.0")
        self.assertEqual(fields["License-File"], "LICENSE")
        self.assertTrue(any(name.endswith("/licenses/LICENSE") for name in about), about)
        self.assertIn("synapse-login-module = synapse_login_module.cli:main", commands)

    def test_wheel_works(self) -> None:
        """What is unpacked from the wheel is found by Twisted, away from the repository."""
        self.need_wheel()
        self.build("-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", "dist", ".")
        (wheel,) = (self.copy / "dist").glob("*.whl")
        site = self.folder / "site"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from twisted.plugin import getPlugins, IPlugin\n"
                "from twisted.application.service import IServiceMaker\n"
                "print([p.makeService.__module__ for p in getPlugins(IServiceMaker)"
                " if p.tapname == 'synapse-login'])\n"
                "import synapse_login_module\n"
                "print(synapse_login_module.__file__)\n",
            ],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=BUILD_TIME,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        plugins, file = done.stdout.splitlines()
        self.assertEqual(plugins, "['synapse_login_module.tap']")
        self.assertEqual(Path(file).parents[1].resolve(), site.resolve())

    def test_sdist(self) -> None:
        """A source distribution holds all that a wheel is built from."""
        self.need("setuptools")
        self.build("setup.py", "-q", "sdist", "-d", "dist", "--formats=gztar")
        (sdist,) = (self.copy / "dist").glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        needed = {*modules(), PLUGIN, "setup.py", "pyproject.toml", "README.rst", "LICENSE"}
        self.assertLessEqual(needed, names)
        for name in NEVER:
            self.assertNotIn(name, names)
