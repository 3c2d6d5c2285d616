"""The unchanged conformance suite against a Synapse that delegates to the server, behind nginx.

The differences from this project's description are listed in ``docs/conformance.rst``. Where a test
here names tests of the suite that fail because of a difference, each of them must fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.clients.delegated_case import DelegatedClientCase
from tests.clients.suite import ACCOUNTS, DEACTIVATED, PHONE, SuiteCase
from tests.conformance.target import Feature
from tests.support.configuration import password_hash
from tests.support.ports import free_port
from tests.support.synapse.delegating import delegating
from tests.support.synapse.profile import USERS

ENDPOINT_PORT = free_port()
MODULE = {"module": "synapse_login_module.SynapseLoginModule", "config": {"delegated": True}}
PROFILE = delegating("delegated-conformance", ENDPOINT_PORT, synapse={"modules": [MODULE]})

FEATURES = frozenset(
    {
        Feature.TOKENREFRESH,
        Feature.REFRESH,
        Feature.REFRESH_LENIENT,
        Feature.RELOGIN_ENDS_OLD,
        Feature.REUSE_REVOKES,
        Feature.REFRESH_ON_REQUEST,
        Feature.HOME_SERVER,
        Feature.GET_TOKEN,
        Feature.WHOAMI,
        Feature.LOGOUT,
        Feature.EXPIRED_LOGOUT,
        Feature.VERSIONS,
    }
)
"""The features of the set-up."""

SOFT_LOGOUT = (
    r"test_refresh\.LostAnswerTests\.test_strictly_(again|from_unconfirmed)$",
    r"test_(token)?refresh\.(TokenR|R)efreshTests\.test_chain$",
    r"test_reuse\.RaceTests\.test_(mixed|two_lenient|two_strict)$",
    r"test_reuse\.ReuseWithinIntervalTests\.test_(older|very_old|dead_access_token)",
    r"test_sessions\.AccessTokenTests\.test_superseded_GET_account_whoami$",
    r"test_tokenrefresh\.TokenRefreshTests\.test_old_access_token$",
)
"""Tests of ``soft_logout: true``, which Synapse never says of a token that is not its own."""

SYNAPSES_CACHE = (r"test_refresh\.RefreshTests\.test_old_access_token$",)
"""The old access token works for up to two minutes after the first use of the new one."""

SYNAPSES_PATHS = (
    r"test_http\.MethodTests\.test_not_allowed_matrix_client_(\w+_whoami|versions)$",
    r"test_sessions\.AccessTokenTests\.test_(query_not_utf8|unknown(_in_query)?_GET_\w+)$",
    r"test_sessions\.WhoAmITests\.test_served_(api_v1|v1|v2_alpha)$",
    r"test_login\.DeviceTests\.test_longest$",
)
"""Tests of paths that are Synapse's: no ``Allow``, fewer prefixes, 500 for a token that is no text.
Its device IDs have at most 255 characters."""

NGINX = (
    r"test_http\.ConnectionTests\.test_(http_1_0|pipelined_many)$",
    r"test_http\.ContentTypeTests\.test_answers$",
    r"test_http\.CorsTests\.test_(errors|success|preflight_health|unknown_path_)$",
    r"test_http\.MethodTests\.test_(not_allowed_health|odd_method_(CONNECT|TRACE|get))$",
    r"test_http\.StandalonePathTests\.test_(head|health)$",
    r"test_http\.UnknownPathTests\.test_unknown_",
)
"""Tests of requests that nginx rejects or answers itself: odd methods, and paths outside
``/_matrix``, which include ``/health``."""


class DelegatedTests(DelegatedClientCase, SuiteCase):
    """A Synapse that delegates and has the module, behind nginx."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT
    homeserver: ClassVar[Mapping[str, Any]] = {"forget_tokens": True}
    # The accounts of the suite are there from the test before.
    settings: ClassVar[Mapping[str, Any]] = {"existing_accounts": "all"}
    timeout = SuiteCase.timeout

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        second = {"password_hash": password_hash(ACCOUNTS["CONFORMANCE_PASSWORD_2"])}
        self.server.write_users({**USERS, ACCOUNTS["CONFORMANCE_USER_2"]: second})

    async def test_suite(self) -> None:
        """The suite passes, apart from the wording of errors."""
        accounts = {**ACCOUNTS, **DEACTIVATED, **PHONE}
        counts, failed, output = await self.run_suite(self.url, FEATURES, accounts)
        self.assertEqual(failed, set(), output)
        self.assertGreaterEqual(counts["successes"], 100, output)

    async def test_to_the_letter(self) -> None:
        """Everything else differs exactly as documented."""
        accounts = {**ACCOUNTS, **DEACTIVATED, **PHONE}
        counts, failed, output = await self.run_suite(self.url, frozenset(Feature), accounts)
        known = (*SOFT_LOGOUT, *SYNAPSES_CACHE, *SYNAPSES_PATHS, *NGINX)
        for pattern in known:
            self.assertTrue(any(re.match(pattern, name) for name in failed), (pattern, output))
        unknown = {name for name in failed if not any(re.match(each, name) for each in known)}
        self.assertEqual(unknown, set(), output)
        self.assertGreaterEqual(counts["successes"], 500, output)
