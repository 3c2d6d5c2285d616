"""The unchanged conformance suite against Synapse: with the module behind nginx, and without it.

The differences from this project's description are listed in ``docs/conformance.rst``. Where a test
here names tests of the suite that fail because of a difference, each of them must fail.
"""

from __future__ import annotations

import re

from synapse_login_module.passwords import hash_password
from tests.clients.case import ClientCase
from tests.clients.suite import ACCOUNTS, DEACTIVATED, PHONE, SuiteCase
from tests.conformance.target import Feature
from tests.support.synapse.profile import PASSWORD, USERS, Profile

PLAIN = Profile("plain", module=None)

MODULE = frozenset(
    {
        Feature.TOKENREFRESH,
        Feature.REFRESH,
        Feature.REFRESH_LENIENT,
        Feature.RELOGIN_ENDS_OLD,
        Feature.REUSE_REVOKES,
        Feature.REFRESH_ON_REQUEST,
        Feature.HOME_SERVER,
        Feature.WHOAMI,
        Feature.LOGOUT,
        Feature.EXPIRED_LOGOUT,
        Feature.VERSIONS,
    }
)
"""The features of Synapse with the module."""

SYNAPSE = frozenset(
    {
        Feature.REFRESH,
        Feature.REFRESH_ON_REQUEST,
        Feature.HOME_SERVER,
        Feature.WHOAMI,
        Feature.LOGOUT,
        Feature.VERSIONS,
    }
)
"""The features of plain Synapse."""

SOFT_LOGOUT = (
    r"test_reuse\.ReuseWithinIntervalTests\.test_(older|very_old)",
    r"test_reuse\.ReuseWithinIntervalTests\.test_dead_access_token$",
    r"test_tokenrefresh\.TokenRefreshTests\.test_chain$",
    r"test_refresh\.LostAnswerTests\.test_strictly_from_unconfirmed$",
)
"""Tests of ``soft_logout``, which differs from the description at Synapse's own paths."""

OTHERS_PATHS = (
    r"test_http\.MethodTests\.test_not_allowed_health$",
    r"test_http\.MethodTests\.test_not_allowed_matrix_client_\w+_(whoami|logout|all|get_token)$",
    r"test_http\.MethodTests\.test_not_allowed_matrix_client_versions$",
    r"test_http\.UnknownPathTests\.test_unknown_(root|nowhere|no_prefix|within_health|deep|long)$",
    r"test_http\.CorsTests\.test_(errors|success|preflight_health|unknown_path_)$",
)
"""Tests of paths that Synapse or nginx answers itself: no ``Allow``, no JSON, no prefix."""

NGINX = (
    r"test_http\.MethodTests\.test_odd_method_(CONNECT|TRACE|get)$",
    r"test_http\.UnknownPathTests\.test_unknown_NUL$",
)
"""Tests of requests that nginx rejects itself."""


class ConformanceCase(ClientCase, SuiteCase):
    """A test case with a Synapse, which runs the suite."""

    timeout = SuiteCase.timeout


class ModuleTests(ConformanceCase):
    """Synapse with the module, behind nginx."""

    async def base_url(self) -> str:
        """Prepare the suite's accounts; return the URL to test."""
        second = {"password_hash": hash_password(ACCOUNTS["CONFORMANCE_PASSWORD_2"], "", 4)}
        self.users = {**USERS, ACCOUNTS["CONFORMANCE_USER_2"]: second}
        self.write_users()
        return (await self.nginx()).url

    async def test_suite(self) -> None:
        """The suite passes, apart from the wording of errors."""
        accounts = {**ACCOUNTS, **DEACTIVATED, **PHONE}
        counts, failed, output = await self.run_suite(await self.base_url(), MODULE, accounts)
        self.assertEqual(failed, set(), output)
        self.assertGreaterEqual(counts["successes"], 90, output)

    async def test_to_the_letter(self) -> None:
        """The wording of errors differs exactly as documented."""
        accounts = {**ACCOUNTS, **DEACTIVATED, **PHONE}
        features = {*MODULE, Feature.STRICT_ERRORS}
        counts, failed, output = await self.run_suite(await self.base_url(), features, accounts)
        known = (*SOFT_LOGOUT, *OTHERS_PATHS, *NGINX)
        for pattern in known:
            self.assertTrue(any(re.match(pattern, name) for name in failed), (pattern, output))
        unknown = {name for name in failed if not any(re.match(each, name) for each in known)}
        self.assertEqual(unknown, set(), output)
        self.assertGreaterEqual(counts["successes"], 300, output)


class PlainTests(ConformanceCase):
    """Synapse without the module."""

    profile = PLAIN

    async def test_suite(self) -> None:
        """The suite passes for Synapse's features, so it does not only fit this project."""
        administrator = await self.administrator()
        for name, password in (
            ("alice", PASSWORD),
            (ACCOUNTS["CONFORMANCE_USER_2"], ACCOUNTS["CONFORMANCE_PASSWORD_2"]),
            ("lock", PASSWORD),
        ):
            self.client.secrets.add(await self.server.register(name, password))
        email = {"medium": "email", "address": ACCOUNTS["CONFORMANCE_EMAIL"]}
        for name, changes in (("alice", {"threepids": [email]}), ("lock", {"locked": True})):
            answer = await self.client.change_user(administrator, name, **changes)
            self.assertEqual(answer.status, 200, str(answer))
        counts, failed, output = await self.run_suite(self.server.client_url, SYNAPSE, ACCOUNTS)
        self.assertEqual(failed, set(), output)
        self.assertGreaterEqual(counts["successes"], 40, output)
