"""Virtual environments that have the libraries of the tests, so that pip needs no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from unittest import SkipTest

from tests.support import REPOSITORY
from tests.support.process import require

INSTALL_TIME = 300.0
_COMPILED = shutil.ignore_patterns("__pycache__", "dropin.cache")
PIP_OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip's spelling of yes
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def require_root() -> None:
    """Skip the test where it does not run as root."""
    if os.geteuid() != 0:
        raise SkipTest("root alone can install a service")


def offline() -> dict[str, str]:
    """Return an environment in which pip asks no registry, and builds with what is installed."""
    return {**os.environ, **PIP_OFFLINE, "LC_ALL": "C.UTF-8"}


def make_environment(folder: Path) -> Path:
    """Make a virtual environment that sees what is installed here; return its Python.

    As if pip had installed the libraries before, it has the scripts of Twisted too.
    """
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder)],
        check=True,
        timeout=INSTALL_TIME,
    )
    python = folder / "bin" / "python"
    share_libraries(folder)
    twistd = folder / "bin" / "twistd"
    twistd.write_text(f"#!{python}\nfrom twisted.scripts.twistd import run\n\nrun()\n")
    twistd.chmod(0o755)
    return python


def share_libraries(environment: Path) -> None:
    """Let a virtual environment see what is installed here."""
    (site,) = (environment / "lib").glob("python*/site-packages")
    (site / "shared.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def make_checkout(folder: Path) -> None:
    """Make a checkout of this repository: what is packed, and what an earlier build left."""
    require("setuptools", "pip")
    folder.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.rst", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("synapse_login_module", "twisted"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=_COMPILED)
    left = folder / "build" / "lib" / "synapse_login_module"
    left.mkdir(parents=True)
    (left / "gone.py").touch()


def run(
    command: Sequence[str | Path], folder: Path | None = None, umask: int = -1, **more: str
) -> str:
    """Run a program that has to succeed; return its output.

    :param folder: the folder that it is started in.
    :param umask: its umask, or -1 for that of the tests.
    :param more: further environment variables.
    """
    done = subprocess.run(
        [str(each) for each in command],
        env={**offline(), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIME,
        cwd=folder,
        umask=umask,
    )
    if done.returncode:
        raise AssertionError(f"{command[0]}: {done.returncode}: {done.stdout}")
    return done.stdout
