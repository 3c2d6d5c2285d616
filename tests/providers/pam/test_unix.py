"""Tests with Unix users: a server, the system's own PAM and ``/etc/shadow``, and saslauthd.

The users are made in an ``/etc`` that only the test's processes see.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.providers.test_docs import blocks
from tests.support import REPOSITORY
from tests.support.configuration import good_config
from tests.support.http import ask, healthy
from tests.support.pam import UnixSystem
from tests.support.ports import free_port
from tests.support.server import twistd

_USERS = """\
cp {service} /etc/pam.d/synapse-login
groupadd --force matrix
useradd --no-create-home service
useradd --no-create-home --groups matrix --comment 'Alice Liddell,,,' alice
useradd --no-create-home bob
printf '%s\\n' alice:wonderland bob:wonderland root:wonderland | chpasswd
"""
_SASLAUTHD = """\
mkdir --mode 710 {folder}/saslauthd
chgrp sasl {folder}/saslauthd
saslauthd -d -a pam -m {folder}/saslauthd -n 2 >{folder}/saslauthd.log 2>&1 &
"""
REFUSED = (403, "M_FORBIDDEN")


class UnixCase(SynchronousTestCase):
    """A server that runs as a user of its own, with the blocks of a page of docs/providers."""

    def serve(self, page: str, group: str, script: str = "", **keys: Any) -> None:
        """Start it.

        :param page: the page.
        :param group: the group that the server's user is in besides.
        :param script: run as root before the server.
        :param keys: keys of the provider to replace.
        """
        folder = Path(tempfile.mkdtemp(prefix="unix-"))
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o777)
        for name in ("etc", "server"):
            (folder / name).mkdir()
            (folder / name).chmod(0o777)
        given = [each for each in blocks() if each.page == page]
        (service,) = (each.text for each in given if each.kind == "pam-service")
        (block, *_) = (each.text for each in given if each.language == "yaml")
        (folder / "service").write_text(service)
        providers = yaml.safe_load(block)["password_providers"]
        providers[0]["config"].update(keys)
        self.port = free_port()
        config = folder / "server" / "login.yaml"
        store = {"module": "synapse_login_module.stores.MemoryTokenStore"}
        tokens = {"refresh_token": "always"}
        config.write_text(
            yaml.safe_dump(
                {**good_config(self.port), "token_store": store, "tokens": tokens}
                | {"password_providers": providers}
            )
        )
        self.system = UnixSystem(
            folder / "etc",
            _USERS.format(service=folder / "service") + script.format(folder=folder),
            [
                *("env", f"PYTHONPATH={REPOSITORY}", "setpriv", "--no-new-privs"),
                *("--reuid", "service", "--regid", "service", "--groups", group),
                *twistd(config),
            ],
            folder / "server" / "log",
        )
        self.addCleanup(self.system.kill)
        self.system.start_and_wait(lambda: healthy(self.port))

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Send a request to the client API."""
        status, content = ask(self.port, "POST", f"/_matrix/client/v3/{path}", body)
        return status, json.loads(content)

    def log_in(self, name: str = "alice", password: str = "wonderland") -> tuple[int, Any]:
        """Log in: the status, and the user ID or the error's code."""
        self.began = time.monotonic()
        code, answer = self.post(
            "login", {"type": "m.login.password", "user": name, "password": password}
        )
        self.took = time.monotonic() - self.began
        self.session = answer if code == 200 else self.session
        return code, answer.get("errcode", answer.get("user_id"))

    session: Any = None

    def refresh(self) -> tuple[int, str | None]:
        """Refresh the session of the last login that was good."""
        code, answer = self.post("refresh", {"refresh_token": self.session["refresh_token"]})
        if code == 200:
            self.session = {**self.session, **answer}
        return code, answer.get("errcode")


class ShadowTests(UnixCase):
    """``PAMProvider`` on ``pam_unix``, in the group shadow."""

    def test_accounts(self) -> None:
        """Who may log in, and each state of an account, at the login and at the refresh."""
        self.serve("pam.rst", "shadow", failure_time=400)
        for name, password, expected in (
            ("alice", "wonderland", (200, "@alice:example.com")),
            ("ALICE", "wonderland", (200, "@alice:example.com")),
            ("alice", "x", REFUSED),
            ("alice", "", REFUSED),
            ("nobody-at-all", "wonderland", REFUSED),
            ("bob", "wonderland", REFUSED),  # in no group
            ("root", "wonderland", REFUSED),
        ):
            self.assertEqual(self.log_in(name, password), expected, name)
            if expected == REFUSED and password:  # an empty one is wrong for everybody, at once
                self.assertGreater(self.took, 0.4, name)
        change = self.system.run
        self.assertEqual(self.refresh(), (200, None))

        change("chage", "--lastday", "0", "alice")
        self.assertEqual(self.log_in(), (401, "M_USER_LOCKED"))
        self.assertEqual(self.refresh(), (401, "M_USER_LOCKED"))
        change("chage", "--lastday", "-1", "alice")
        self.assertEqual(self.refresh(), (200, None))

        change("usermod", "--lock", "alice")
        self.assertEqual(self.log_in(), REFUSED)
        self.assertEqual(self.refresh(), (401, "M_USER_LOCKED"))
        change("usermod", "--unlock", "alice")
        self.assertEqual(self.refresh(), (200, None))

        change("usermod", "--expiredate", "1", "alice")
        self.assertEqual(self.log_in(), (403, "M_USER_DEACTIVATED"))
        self.assertEqual(self.refresh(), (401, "M_UNKNOWN_TOKEN"))
        change("usermod", "--expiredate", "", "alice")
        self.assertEqual(self.log_in()[0], 200)

        change("gpasswd", "--delete", "alice", "matrix")
        self.assertEqual(self.log_in(), REFUSED)
        self.assertEqual(self.refresh(), (401, "M_UNKNOWN_TOKEN"))

    def test_given_again(self) -> None:
        """A removed user's name or number, given to another person, makes another account."""
        self.serve("pam.rst", "shadow", groups=[], failure_time=300)
        change = self.system.run
        change("usermod", "--uid", uid := "3999", "alice")
        self.assertEqual(self.log_in()[0], 200)
        change("userdel", "alice")
        self.assertEqual(self.log_in(), REFUSED)
        self.assertEqual(self.refresh(), (401, "M_UNKNOWN_TOKEN"))
        # The number goes to another person, and the name too, but not both to one.
        change("useradd", "--no-create-home", "--uid", uid, "carol")
        change("useradd", "--no-create-home", "--uid", "4000", "alice")
        change("sh", "-c", "printf '%s\\n' alice:wonderland carol:wonderland | chpasswd")
        self.assertEqual(self.log_in("carol"), (200, "@carol:example.com"))
        self.assertEqual(self.log_in(), REFUSED)
        self.assertIn("it is linked to another account, of pam", self.system.log())

    def test_name_service(self) -> None:
        """While the name service is down no session ends, and a login is an outage."""
        self.serve("pam.rst", "shadow", groups=[], failure_time=300)
        self.assertEqual(self.log_in()[0], 200)
        change = self.system.run
        change("cp", "/etc/nsswitch.conf", "/etc/nsswitch.kept")
        # Hesiod is in the C library, and is not configured, so it is down.
        change("sed", "--in-place", "s/^passwd:.*/passwd: hesiod/", "/etc/nsswitch.conf")
        self.assertEqual(self.log_in()[0], 503)
        self.assertEqual(self.refresh(), (200, None))
        self.assertIn("pam is unavailable: the name service is down", self.system.log())
        change("cp", "/etc/nsswitch.kept", "/etc/nsswitch.conf")
        self.assertEqual(self.refresh(), (200, None))
        self.assertEqual(self.log_in()[0], 200)

    def test_groups_of_name_service(self) -> None:
        """While the groups are not known, nobody has left them."""
        self.serve("pam.rst", "shadow", failure_time=300)
        self.assertEqual(self.log_in()[0], 200)
        change = self.system.run
        # A part of the name service that is down may have had her in the group.
        change("sed", "--in-place", "s/^group:.*/group: files hesiod/", "/etc/nsswitch.conf")
        change("gpasswd", "--delete", "alice", "matrix")
        self.assertEqual(self.log_in()[0], 503)
        self.assertEqual(self.refresh(), (200, None))
        change("sed", "--in-place", "s/^group:.*/group: files/", "/etc/nsswitch.conf")
        self.assertEqual(self.refresh(), (401, "M_UNKNOWN_TOKEN"))

    def test_no_privilege(self) -> None:
        """Without the group shadow each login is an outage."""
        self.serve("pam.rst", "nogroup", groups=[])
        self.assertEqual(self.log_in()[0], 503)
        self.assertIn("PAM_AUTHINFO_UNAVAIL", self.system.log())
        self.assertEqual(self.log_in("nobody-at-all"), REFUSED)


class SaslauthdTests(UnixCase):
    """``SaslauthdProvider``, with no privilege but the group sasl."""

    def test_accounts(self) -> None:
        """saslauthd checks the passwords for the server."""
        if shutil.which("saslauthd", path="/usr/sbin") is None:
            raise SkipTest("sasl2-bin is not installed")
        folder = Path(tempfile.mkdtemp(prefix="mux-"))
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        socket = folder / "saslauthd" / "mux"
        script = _SASLAUTHD.replace("{folder}", str(folder))
        self.serve("saslauthd.rst", "sasl", script, socket=str(socket), failure_time=300)
        for name, password, expected in (
            ("alice", "wonderland", (200, "@alice:example.com")),
            ("alice", "x", REFUSED),
            ("nobody-at-all", "wonderland", REFUSED),
        ):
            self.assertEqual(self.log_in(name, password), expected, name)
        self.system.run("usermod", "--expiredate", "1", "alice")
        self.assertEqual(self.log_in(), (401, "M_USER_LOCKED"))
        self.assertEqual(self.log_in(password="x"), REFUSED)
        self.assertEqual(self.refresh(), (200, None))
