"""PAM services of the tests' own: files, a module that knows passwords, and real Unix users."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support import REPOSITORY
from tests.support.process import Process, children, succeed

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
number=0
over() {{
    number=$((number + 1))
    mkdir -p {folder}/$number/upper {folder}/$number/work
    options=lowerdir=$1,upperdir={folder}/$number/upper,workdir={folder}/$number/work
    mount -t overlay overlay -o "$options" "$1"
}}
over /etc
for closed in {closed}; do
    over "$closed"
    chmod a+x "$closed"
done
{script}
exec "$@"
"""
"""Makes a namespace in which changes of /etc are seen by its own processes alone, and are lost.

There, all users may enter the folders that Python and the package are in.
"""


def _closed_folders() -> set[str]:
    """Find the folders on the way to Python and to the package that only their owner may enter."""
    ways = (Path(sys.base_prefix, "bin"), REPOSITORY / "tests")
    return {
        str(folder) for way in ways for folder in way.parents if not folder.stat().st_mode & 0o001
    }


class UnixSystem(Process):
    """A program that runs with an ``/etc`` of its own, in which there may be users of its own.

    :param folder: an existing folder, which is used up.
    :param script: run as root before the program.
    :param command: the program.
    :param output: the file that its output is appended to.
    """

    def __init__(self, folder: Path, script: str, command: Sequence[str], output: Path) -> None:
        for program in ("unshare", "nsenter", "setpriv", "useradd"):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed")
        apart = ["unshare", "--mount", "--pid", "--fork"]
        if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
            raise SkipTest("no namespace can be made here")
        closed = " ".join(sorted(_closed_folders()))
        setup = _PRIVATE_ETC.format(folder=folder, closed=closed, script=script)
        super().__init__(
            [*apart, "bash", "-c", setup, "setup", *command], output, folder=output.parent
        )

    def kill(self) -> None:
        """Kill the first process of the namespace, with which all others end."""
        if self.running:
            for inside in children(self.pid):
                os.kill(inside, signal.SIGKILL)
        super().kill()

    def run(self, *command: str) -> None:
        """Run a command there, as root."""
        (inside,) = children(self.pid)
        succeed(["nsenter", "--mount", "--target", str(inside), *command], timeout=60.0)
