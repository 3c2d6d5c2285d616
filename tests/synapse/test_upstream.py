"""Synapse's own unit tests of login, with the module in front.

They are in Synapse's source, and not in what pip installs. Unpack that of the release that is
installed (``.ci/run`` does), and run::

    SYNAPSE_SOURCE=FOLDER python -m twisted.trial tests.synapse.test_upstream

Without :envvar:`SYNAPSE_SOURCE` the test is skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from tests.support import REPOSITORY

_TESTS = (
    *("tests.rest.client.test_login", "tests.rest.client.test_login_token_request"),
    *("tests.rest.client.test_auth", "tests.handlers.test_password_providers"),
    *("tests.handlers.test_auth", "tests.handlers.test_cas"),
    *("tests.handlers.test_oidc", "tests.handlers.test_saml"),
)

_FEWEST = 150
"""How many pass at least: that they ran at all."""

_OTHERWISE = {
    # The module takes its providers' passwords though Synapse's own /login takes none.
    "test_custom_auth_no_local_user_fallback",
    "test_custom_auth_no_local_user_fallback_legacy",
    "test_custom_auth_password_disabled",
    "test_custom_auth_password_disabled_legacy",
    "test_custom_auth_password_disabled_localdb_enabled",
    "test_custom_auth_password_disabled_localdb_enabled_legacy",
    "test_password_auth_disabled_legacy",
    "test_password_custom_auth_password_disabled_login",
    "test_password_custom_auth_password_disabled_login_legacy",
    # It asks for local passwords before later modules are asked.
    "test_local_user_fallback_ui_auth_legacy",
    # M_BAD_JSON for M_INVALID_PARAM.
    "test_login_with_overly_long_device_id_fails",
    # Its own /refresh: soft_logout for expired tokens, and the same pair again for a lost answer.
    "test_refresh_token_expiry",
    "test_refresh_token_invalidation",
    "test_ultimate_session_expiry",
    # Synapse offers the password to all users once any module checks passwords.
    "test_does_not_offer_password_for_sso_user",
    # It changes an attribute that was read at the start.
    "test_ui_auth_with_passwords_for_reauth_only",
    # It fails without the module too.
    "test_map_userinfo_to_user",
}


class UpstreamTests(TestCase):
    """What Synapse's tests demand of its ``/login``, of the module's."""

    timeout = 900

    async def test_in_front(self) -> None:
        """They pass, except those that contradict what the module promises."""
        source = os.environ.get("SYNAPSE_SOURCE")
        if source is None:
            raise SkipTest("SYNAPSE_SOURCE is not set")
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "tests").symlink_to(Path(source).resolve() / "tests")
        shutil.copy(Path(__file__).with_name("upstream_front.py"), folder / "front.py")
        paths = [str(folder.resolve()), os.environ.get("PYTHONPATH", ""), str(REPOSITORY)]
        done = await deferToThread(
            subprocess.run,
            [sys.executable, "front.py", *_TESTS],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
        )
        failed = set(re.findall(r"^ +(test_\w+) \.\.\. +\[(?:FAIL|ERROR)\]", done.stdout, re.M))
        passed = re.search(r"successes=(\d+)", done.stdout)
        assert passed is not None, done.stdout + done.stderr
        self.assertEqual(failed - _OTHERWISE, set(), done.stdout)
        self.assertGreaterEqual(int(passed[1]), _FEWEST)
