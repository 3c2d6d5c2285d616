"""Tests for the container file, and for the Compose file that goes with it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from unittest import SkipTest
from urllib.parse import urlsplit

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.support import REPOSITORY, image
from tests.support.accounts import ALICE_PASSWORD
from tests.support.configuration import CHEAP_HASH
from tests.support.folders import temporary_folder
from tests.support.image import ContainerFile, build_and_run
from tests.support.process import require

CONTAINER = REPOSITORY / "contrib" / "container"
STATE = "/var/lib/synapse-login"
SETTINGS = "/etc/synapse-login"
LOGIN = """
import json, sys, urllib.request
given = {"type": "m.login.password", "user": "alice", "password": sys.argv[1]}
url = "http://127.0.0.1:8008/_matrix/client/v3/login"
with urllib.request.urlopen(url, json.dumps(given).encode()) as answer:
    print("logged in", json.load(answer)["user_id"])
"""
RIGHTS = {"cap_drop", "read_only", "security_opt", "tmpfs"}
KEYS = {"build", "image", "ports", "restart", "stop_grace_period", "volumes", *RIGHTS}


def container_file() -> ContainerFile:
    """Read the container file."""
    return ContainerFile(CONTAINER / "Containerfile", REPOSITORY)


class ContainerFileTests(SynchronousTestCase):
    """The container file, as it is written."""

    def setUp(self) -> None:
        require("dockerfile_parse")
        self.file = container_file()

    def test_copied(self) -> None:
        """It copies what a wheel is built from, and so no configuration, key or database."""
        self.assertEqual(
            {Path(each).as_posix() for each in self.file.copied},
            {
                "setup.py",
                "pyproject.toml",
                "README.rst",
                "LICENSE",
                "synapse_login_module",
                "twisted",
            },
        )

    def test_user(self) -> None:
        """It runs as a user without rights, by number, as orchestrators want to see it."""
        self.assertRegex(self.file.stage.user, r"^[1-9]\d{3,}:[1-9]\d{3,}$")

    def test_state(self) -> None:
        """All that it writes is in one volume."""
        self.assertEqual(self.file.stage.volumes, [STATE])

    def test_health(self) -> None:
        """The health check asks the port that the image exposes."""
        found = re.search(r"'(http://[^']+)'", self.file.stage.health[-1])
        assert found is not None
        url = urlsplit(found[1])
        self.assertEqual((url.path, self.file.stage.ports), ("/health", [str(url.port)]))

    def test_unknown_instruction(self) -> None:
        """An instruction that these tests cannot carry out is a failure."""
        path = temporary_folder(self) / "Containerfile"
        path.write_text("FROM scratch:1\nONBUILD RUN true\n")
        failure = self.assertRaises(AssertionError, ContainerFile, path, REPOSITORY)
        self.assertIn("ONBUILD", str(failure))


class ComposeTests(SynchronousTestCase):
    """The Compose file."""

    def setUp(self) -> None:
        require("dockerfile_parse")
        compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
        self.assertEqual(set(compose), {"services", "volumes"})
        self.service: dict[str, Any] = compose["services"]["synapse-login"]
        self.volumes = compose["volumes"]

    def test_keys(self) -> None:
        """It has no key but those that Compose knows for a service."""
        self.assertEqual(set(self.service), KEYS)

    def test_build(self) -> None:
        """It builds the container file in the top folder."""
        build = self.service["build"]
        context = (CONTAINER / build["context"]).resolve()
        self.assertEqual(context, REPOSITORY.resolve())
        self.assertTrue((context / build["dockerfile"]).is_file())

    def test_volumes(self) -> None:
        """The state is a named volume, and the configuration cannot be written."""
        places = [each.split(":") for each in self.service["volumes"]]
        self.assertIn(["./etc", SETTINGS, "ro"], places)
        self.assertIn(["state", STATE], places)
        self.assertIn("state", self.volumes)

    def test_loopback(self) -> None:
        """This machine alone reaches the port of the image."""
        (port,) = self.service["ports"]
        address, _, inside = port.split(":")
        self.assertEqual((address, [inside]), ("127.0.0.1", container_file().stage.ports))

    def test_rights(self) -> None:
        """It has no capability, cannot get one, and cannot change its own files."""
        self.assertEqual(self.service["cap_drop"], ["ALL"])
        self.assertEqual(self.service["security_opt"], ["no-new-privileges"])
        self.assertIs(self.service["read_only"], True)


class BuildTests(SynchronousTestCase):
    """The image, built and run on this machine."""

    def test_build_and_run(self) -> None:
        """Its service starts as its user, is healthy, logs a user in, and ends when told to."""
        require("dockerfile_parse", "ldaptor", "phonenumbers", "psycopg", "setuptools")
        folder = temporary_folder(self)
        for each in (folder, *folder.parents[:5]):
            each.chmod(0o755)
        (folder / "login.yaml").write_text((CONTAINER / "login.yaml").read_text())
        users = {"users": {"alice": {"password_hash": CHEAP_HASH}}}
        (folder / "users.yaml").write_text(yaml.safe_dump(users))
        file = container_file()
        python = file.stage.health[0]
        then = (
            f"{python} -c '{LOGIN}' {ALICE_PASSWORD!r}\n"
            f"stat --format='%n %u %a' {STATE} {STATE}/*\n"
            "touch /opt/synapse-login/x 2>&1; ls / | grep -x src; id -u\n"
        )
        said = build_and_run(file, {folder: SETTINGS}, then)
        self.assertIn("logged in @alice:example.com\n", said)
        self.assertIn(f"{STATE} 10001 700\n", said)
        self.assertIn(f"{STATE}/sessions.db 10001 600\n", said)
        self.assertIn("Read-only file system", said)
        self.assertNotIn("\nsrc\n", said)
        self.assertIn("ended with 0", said)
        self.assertNotIn("Unable to write to plugin cache", said)


class RefusalTests(SynchronousTestCase):
    """A machine that refuses what the tests of the image need."""

    def refuse(self, program: str, said: str) -> str:
        """Put a program on the PATH that fails; return why the test is skipped then."""
        if os.geteuid() != 0:
            raise SkipTest("root alone gets as far as that")
        require("dockerfile_parse")
        folder = temporary_folder(self)
        (folder / program).write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
        (folder / program).chmod(0o755)
        self.patch(image, "_PATH", f"{folder}:{os.environ['PATH']}")
        return str(self.assertRaises(SkipTest, build_and_run, container_file(), {}, "true"))

    def test_namespace(self) -> None:
        """Where no namespace can be made, the test is skipped, and says why."""
        said = "unshare: unshare failed: Operation not permitted"
        self.assertIn(said, self.refuse("unshare", said))

    def test_overlay(self) -> None:
        """Where an overlay cannot be mounted, the test is skipped, and says why."""
        image.require_namespaces()
        said = "mount: /mnt/probe/root: unknown filesystem type overlay."
        self.assertIn(said, self.refuse("mount", said))
