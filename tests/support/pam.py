"""PAM services of the tests' own: files, a module that knows passwords, and real Unix users."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

SERVICE = "synapse-login"


def matrix_module() -> Path:
    """The module that reads passwords from a file; skip the test where it is not installed."""
    found = next(Path("/usr/lib").glob("*/pam_wrapper/pam_matrix.so"), None)
    if found is None:
        raise SkipTest("libpam-wrapper is not installed")
    return found


class PAMService:
    """A folder with the file of a service.

    :param folder: an existing folder.
    :ivar services: the folder in the place of ``/etc/pam.d``.
    """

    def __init__(self, folder: Path) -> None:
        self.services = folder / "pam.d"
        self.services.mkdir()
        self._passwords = folder / "passdb"
        self.know({"alice": "wonderland"})
        self.write("auth required MATRIX", "account required MATRIX")

    def write(self, *lines: str) -> None:
        """Write the file. ``MATRIX`` is the module that knows the users of :meth:`know`."""
        module = f"{matrix_module()} passdb={self._passwords}"
        text = "\n".join(lines).replace("MATRIX", module)
        (self.services / SERVICE).write_text(f"{text}\n")

    def know(self, users: Mapping[str, str], service: str = SERVICE) -> None:
        """Write the users and their passwords.

        :param service: the service that the users may use.
        """
        lines = (f"{user}:{password}:{service}\n" for user, password in users.items())
        self._passwords.write_text("".join(lines))

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of a program that is to use this folder."""
        matrix_module()
        return {
            "LD_PRELOAD": "libpam_wrapper.so",
            "PAM_WRAPPER": "1",
            "PAM_WRAPPER_SERVICE_DIR": str(self.services),
        }


_PRIVATE_ETC = """\
set -e
mount --make-rprivate /
mount -t tmpfs none {folder}
mkdir {folder}/upper {folder}/work
mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/upper,workdir={folder}/work /etc
exec "$@"
"""
"""Makes a namespace in which changes of /etc are seen by its own processes alone, and are lost."""


def with_private_etc(folder: Path, command: Sequence[str]) -> list[str]:
    """Return a command that runs another with an ``/etc`` of its own, where it may make users.

    :param folder: an existing folder that is used up.
    """
    script = _PRIVATE_ETC.format(folder=folder)
    return ["unshare", "--mount", "bash", "-c", script, "private-etc", *command]


def require_private_etc(folder: Path) -> None:
    """Skip the test where such a namespace cannot be made."""
    if shutil.which("unshare") is None or shutil.which("useradd") is None:
        raise SkipTest("unshare or useradd is not installed")
    tried = subprocess.run(
        with_private_etc(folder, ["true"]), capture_output=True, text=True, check=False
    )
    if tried.returncode:
        raise SkipTest(f"no private /etc can be made here: {tried.stderr.strip()}")


def python(*arguments: str) -> list[str]:
    """Return a command that runs Python."""
    return [sys.executable, *arguments]
