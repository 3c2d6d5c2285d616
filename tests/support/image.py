"""Carries out a container file on this machine, without a container engine or a base image.

Each stage begins with a copy-on-write view of this machine (overlayfs), in a mount, network and
process namespace of its own. This machine's Python stands for the base image's, and what is
installed for the tests for the libraries that pip would download. Everything else runs as it is
written, by its real paths.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from unittest import SkipTest

from dockerfile_parse import DockerfileParser

from tests.support.installed import INSTALL_TIME, PIP_OFFLINE, require_root

_UNSHARE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
_PATH = f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SCRATCH = "/mnt"
_LIBRARIES = sysconfig.get_path("purelib")
# Python 3.11 makes virtual environments with a setuptools that is too old to build with.
_OFFLINE = [f"{name}={value}" for name, value in PIP_OFFLINE.items()]
_OFFLINE += [f"PYTHONPATH={_LIBRARIES}"]

_PREPARE = f"""
set -eu
mount -t tmpfs tmpfs {_SCRATCH}
ip link set lo up
begin() {{
    mkdir -p {_SCRATCH}/$1/upper {_SCRATCH}/$1/work {_SCRATCH}/$1/root
    mount -t overlay overlay {_SCRATCH}/$1/root \\
        -o lowerdir=/,upperdir={_SCRATCH}/$1/upper,workdir={_SCRATCH}/$1/work
    mount --rbind /dev {_SCRATCH}/$1/root/dev
    mount -t proc proc {_SCRATCH}/$1/root/proc
    chmod 755 {_SCRATCH}/$1/root/root
}}
share() {{
    for site in "$1"/lib/python*/site-packages; do
        echo {_LIBRARIES} >"$site/shared.pth"
    done
    printf '#!%s\\nfrom twisted.scripts.twistd import run\\n\\nrun()\\n' "$2/bin/python" \\
        >"$1/bin/twistd"
    chmod 755 "$1/bin/twistd"
}}
"""


@dataclass
class Stage:
    """What the instructions of a stage have set so far.

    :ivar health: the arguments of the health check.
    """

    name: str
    folder: str = "/"
    user: str = "0:0"
    variables: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        """Its root folder."""
        return f"{_SCRATCH}/{self.name}/root"

    def run(self, arguments: Sequence[str]) -> str:
        """Return the shell command that runs a program in the stage."""
        variables = {"PATH": _PATH, "HOME": "/", "LC_ALL": "C.UTF-8", **self.variables}
        return shlex.join(
            [
                *("chroot", f"--userspec={self.user}", self.root, "env", "-i"),
                *("--chdir", self.folder),
                *(f"{name}={value}" for name, value in variables.items()),
                *arguments,
            ]
        )


class ContainerFile:
    """A container file. Instructions that it does not use are refused.

    :param context: the folder that ``COPY`` copies from.
    :ivar copied: what it copies from there.
    :ivar stage: its last stage.
    """

    def __init__(self, path: Path, context: Path) -> None:
        parser = DockerfileParser(fileobj=BytesIO(path.read_bytes()))
        self._given = [
            (each["instruction"], each["value"])
            for each in parser.structure
            if each["instruction"] != "COMMENT"
        ]
        self._context = context
        self._defaults: dict[str, str] = {}
        self.copied: list[str] = []
        self.stage = Stage("none")
        self.script = "\n".join(self._read())

    def _read(self) -> Iterator[str]:
        for instruction, value in self._given:
            step = getattr(self, f"_{instruction.lower()}", None)
            assert step is not None, f"{instruction} is not known here"
            yield from step(value) or ()

    def _arg(self, value: str) -> None:
        name, _, default = value.partition("=")
        where = self._defaults if self.stage.name == "none" else self.stage.variables
        where[name] = default

    def _from(self, value: str) -> Iterator[str]:
        image, *named = value.split()
        found = re.sub(r"\$\{(\w+)\}", lambda match: self._defaults[match[1]], image)
        assert re.fullmatch(r"[\w./-]+:[\w.-]+", found), f"{found}: an image with its tag"
        self.stage = Stage(named[-1] if named else "final")
        yield f"begin {self.stage.name}"

    def _copy(self, value: str) -> Iterator[str]:
        *sources, target = value.split()
        origin = str(self._context)
        if sources[0].startswith("--from="):
            origin = Stage(sources.pop(0).partition("=")[2]).root
        else:
            self.copied += sources
        to = self.stage.root + str(Path(self.stage.folder) / target)
        for source in sources:
            path = f"{origin}/{source.lstrip('/')}"
            yield f"mkdir -p {to}"
            yield f"if [ -d {path} ]; then cp -a {path}/. {to}; else cp {path} {to}; fi"

    def _run(self, value: str) -> Iterator[str]:
        yield self.stage.run(["env", *_OFFLINE, "sh", "-c", value])
        environment = re.search(r"-m venv (\S+)", value)
        if environment:
            yield f"share {self.stage.root}{environment[1]} {environment[1]}"

    def _workdir(self, value: str) -> Iterator[str]:
        self.stage.folder = value
        yield f"mkdir -p {self.stage.root}{value}"

    def _user(self, value: str) -> None:
        self.stage.user = value

    def _env(self, value: str) -> None:
        for each in shlex.split(value):
            name, _, given = each.partition("=")
            self.stage.variables[name] = given

    def _volume(self, value: str) -> None:
        self.stage.volumes += value.split()

    def _expose(self, value: str) -> None:
        self.stage.ports += value.split()

    def _entrypoint(self, value: str) -> None:
        self.stage.entrypoint = json.loads(value)

    def _cmd(self, value: str) -> None:
        self.stage.command = json.loads(value)

    def _healthcheck(self, value: str) -> None:
        self.stage.health = json.loads(value.partition("CMD ")[2])


def build_and_run(file: ContainerFile, mounts: Mapping[Path, str], then: str) -> str:
    """Build the image, start it with a read-only root, and stop it once it was healthy.

    :param mounts: the folders of this machine that it gets, read-only, and where.
    :param then: shell commands for when it is healthy. They run inside it, as its user.
    :return: what the build and the commands wrote.
    """
    require_namespaces()
    last = file.stage
    lines = [_PREPARE, file.script]
    for volume in last.volumes:
        # A new volume has the owner and the mode of the image's folder.
        lines += [
            f"mkdir {_SCRATCH}/volume; cp -a {last.root}{volume}/. {_SCRATCH}/volume",
            f"chown --reference={last.root}{volume} {_SCRATCH}/volume",
            f"chmod --reference={last.root}{volume} {_SCRATCH}/volume",
            f"mount --bind {_SCRATCH}/volume {last.root}{volume}",
        ]
    for folder, place in mounts.items():
        lines += [
            f"mkdir -p {last.root}{place}",
            f"mount --bind {folder} {last.root}{place}",
        ]
    lines += [
        f"mount -t tmpfs tmpfs {last.root}/tmp",
        f"mount -o remount,ro {last.root}",
        f"{last.run([*last.entrypoint, *last.command])} & service=$!",
        f"until {last.run(last.health)}; do kill -0 $service; sleep 1; done 2>{_SCRATCH}/health",
        last.run(["sh", "-c", then]),
        "kill -TERM $service; ended=0; wait $service || ended=$?; echo ended with $ended",
    ]
    done = _unshare(lines, INSTALL_TIME)
    assert done.returncode == 0, done.stdout
    return done.stdout


def require_namespaces() -> None:
    """Skip the test where no namespace can be made, or nothing mounted there, and say why."""
    require_root()
    try:
        done = _unshare([_PREPARE, "begin probe"], 30)
    except FileNotFoundError:
        raise SkipTest("unshare is not installed") from None
    if done.returncode:
        raise SkipTest(f"namespaces with an overlay cannot be made: {done.stdout.strip()}")


def _unshare(lines: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run shell commands in namespaces of their own, all of which end with the shell."""
    return subprocess.run(
        [*_UNSHARE, "sh", "-c", "\n".join(lines)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env={"PATH": _PATH},
    )
