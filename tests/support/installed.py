"""Virtual environments that have the libraries of the tests, so that pip needs no network."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import SkipTest

from tests.support import REPOSITORY
from tests.support.process import require

INSTALL_TIME = 300.0
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


@functools.cache
def build_wheel() -> Path:
    """Build a wheel of this repository, once for all tests."""
    require("setuptools", "pip")
    folder = Path(tempfile.mkdtemp(prefix="wheel-"))
    atexit.register(shutil.rmtree, folder)
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, REPOSITORY])
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(command: Sequence[str | Path], **more: str) -> str:
    """Run a program that has to succeed; return its output.

    :param more: further environment variables.
    """
    done = subprocess.run(
        [str(each) for each in command],
        env={**offline(), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIME,
    )
    if done.returncode:
        raise AssertionError(f"{command[0]}: {done.returncode}: {done.stdout}")
    return done.stdout
