"""Tests for the check that Synapse has all its private names that are used."""

from __future__ import annotations

import inspect
import sqlite3
from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from tests.support.process import require
from tests.support.synapse.profile import Profile
from tests.synapse.case import HomeserverCase

_ATTRIBUTES = (
    ("registration", "RegistrationHandler", "register_device"),
    ("auth", "AuthHandler", "consume_login_token"),
    ("registration", "RegistrationHandler", "check_user_id_not_appservice_exclusive"),
    ("auth", "AuthHandler", "is_user_approved"),
    ("auth", "AuthHandler", "validate_login"),
    ("auth", "AuthHandler", "_sso_login_callback"),
    ("blocking", "AuthBlocking", "check_auth_blocking"),
    ("validity", "AccountValidityHandler", "on_user_login"),
    ("providers", "PasswordAuthProvider", "auth_checker_callbacks"),
    ("providers", "PasswordAuthProvider", "get_supported_login_types"),
    ("providers", "PasswordAuthProvider", "check_auth"),
    ("providers", "PasswordAuthProvider", "check_3pid_auth"),
    ("providers", "PasswordAuthProvider", "check_3pid_auth_callbacks"),
    ("providers", "PasswordAuthProvider", "on_logged_out"),
    ("providers", "PasswordAuthProvider", "on_logged_out_callbacks"),
    ("pushers", "PusherPool", "remove_pushers_by_devices"),
    ("pushers", "PusherPool", "remove_pushers_by_access_tokens"),
    ("pushers", "PusherPool", "remove_pusher"),
    ("store", "DataStore", "get_pushers_by_user_id"),
    ("store", "DataStore", "delete_all_pushers_for_user"),
    ("store", "DataStore", "set_user_locked_status"),
    ("spam_checker", "spam_checker", "check_login_for_spam"),
    ("spam_checker", "spam_checker", "NOT_SPAM"),
    ("config_experimental", "config.experimental", "msc3866"),
    ("store", "DataStore", "get_user_by_access_token"),
    ("store", "DataStore", "_invalidate_cache_and_stream_bulk"),
    ("store", "DataStore", "get_user_id_by_threepid"),
    ("store", "DataStore", "_invalidate_cache_and_stream"),
    ("store", "DataStore", "get_user_by_external_id"),
    ("rules", "third_party_event_rules", "on_add_user_third_party_identifier"),
    ("rules", "third_party_event_rules", "on_threepid_bind"),
    ("store", "DataStore", "_access_tokens_id_gen"),
    ("store", "DataStore", "_refresh_tokens_id_gen"),
    ("config_registration", "config.registration", "refreshable_access_token_lifetime"),
    ("config_registration", "config.registration", "nonrefreshable_access_token_lifetime"),
    ("config_registration", "config.registration", "refresh_token_lifetime"),
    ("config_registration", "config.registration", "session_lifetime"),
    ("config_registration", "config.registration", "enable_registration"),
    ("config_user_types", "config.user_types", "default_user_type"),
    ("config_auth", "config.auth", "password_enabled_for_login"),
    ("config_auth", "config.auth", "password_enabled_for_reauth"),
    ("config_auth", "config.auth", "password_localdb_enabled"),
    ("config_auth", "config.auth", "password_pepper"),
    ("config_key", "config.key", "macaroon_secret_key"),
    ("config_redis", "config.redis", "redis_enabled"),
    ("config_server", "config.server", "hs_disabled"),
    ("config_server", "config.server", "limit_usage_by_mau"),
    ("config_server", "config.server", "listeners"),
    ("config_ratelimiting", "config.ratelimiting", "rc_login_address"),
    ("config_ratelimiting", "config.ratelimiting", "rc_login_account"),
    ("config_ratelimiting", "config.ratelimiting", "rc_login_failed_attempts"),
)

_TABLES = """
    CREATE TABLE login_tokens (token, user_id, expiry_ts, used_ts);
    CREATE TABLE access_tokens (id, user_id, device_id, token, valid_until_ms, puppets_user_id,
        last_validated, refresh_token_id, used);
    CREATE TABLE refresh_tokens (id, user_id, device_id, token, next_token_id, expiry_ts,
        ultimate_session_expiry_ts);
"""


class Without:
    """Stands for something that has lost an attribute, or whose method has lost its parameters."""

    def __init__(self, behind: object, gone: str = "", bare: str = "") -> None:
        self._behind = behind
        self._gone = gone
        self._bare = bare

    def __getattr__(self, name: str) -> Any:
        if name == self._gone:
            raise AttributeError(f"{name} is gone")
        if name == self._bare:
            return lambda: None
        return getattr(self._behind, name)


class Uncalled:
    """The methods of a class, to be looked at: Synapse's cached ones want an instance otherwise."""

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> Any:
        found = inspect.getattr_static(self._cls, name)
        return getattr(found, "orig", found)


class Release:
    """As much of a release of Synapse as is looked at: the classes of the installed one.

    :param changed: what stands in the place of one of its parts.
    """

    def __init__(self, worker: str | None = None, **changed: object) -> None:
        from synapse.api.auth_blocking import AuthBlocking
        from synapse.handlers.account_validity import AccountValidityHandler
        from synapse.handlers.auth import AuthHandler, PasswordAuthProvider
        from synapse.handlers.register import RegistrationHandler
        from synapse.module_api.callbacks.spamchecker_callbacks import (
            SpamCheckerModuleApiCallbacks,
        )
        from synapse.module_api.callbacks.third_party_event_rules_callbacks import (
            ThirdPartyEventRulesModuleApiCallbacks,
        )
        from synapse.push.pusherpool import PusherPool
        from synapse.storage.databases.main import DataStore

        numbers = SimpleNamespace(get_next=None)
        store = Uncalled(DataStore)
        given = {
            "database_engine": SimpleNamespace(module=sqlite3),
            "_access_tokens_id_gen": numbers,
            "_refresh_tokens_id_gen": numbers,
        }
        store.__dict__.update(given)
        self.parts: dict[str, Any] = {
            "auth": AuthHandler,
            "blocking": AuthBlocking,
            "validity": AccountValidityHandler,
            "providers": PasswordAuthProvider(),
            "pushers": PusherPool,
            "registration": RegistrationHandler,
            "spam_checker": SpamCheckerModuleApiCallbacks,
            "store": store,
            "rules": ThirdPartyEventRulesModuleApiCallbacks,
            "config_experimental": SimpleNamespace(msc3866=None),
            "config_registration": SimpleNamespace(
                refreshable_access_token_lifetime=None,
                nonrefreshable_access_token_lifetime=None,
                refresh_token_lifetime=None,
                session_lifetime=None,
                enable_registration=False,
            ),
            "config_user_types": SimpleNamespace(default_user_type=None),
            "config_auth": SimpleNamespace(
                password_enabled_for_login=True,
                password_enabled_for_reauth=True,
                password_localdb_enabled=True,
                password_pepper="",
            ),
            "config_key": SimpleNamespace(macaroon_secret_key=b""),
            "config_redis": SimpleNamespace(redis_enabled=False),
            "config_server": SimpleNamespace(
                hs_disabled=False, limit_usage_by_mau=False, listeners=[]
            ),
            "config_ratelimiting": SimpleNamespace(
                rc_login_address=None, rc_login_account=None, rc_login_failed_attempts=None
            ),
        }
        self.parts.update(changed)
        self._worker = worker

    def missing(self) -> str | None:
        """What the module misses in it."""
        from synapse_login_module.synapse import compat

        parts = self.parts
        hs = SimpleNamespace(
            get_datastores=lambda: SimpleNamespace(main=parts["store"]),
            get_auth_handler=lambda: parts["auth"],
            get_registration_handler=lambda: parts["registration"],
            get_auth_blocking=lambda: parts["blocking"],
            get_account_validity_handler=lambda: parts["validity"],
            get_password_auth_provider=lambda: parts["providers"],
            get_pusherpool=lambda: parts["pushers"],
            get_module_api_callbacks=lambda: SimpleNamespace(
                spam_checker=parts["spam_checker"], third_party_event_rules=parts["rules"]
            ),
            config=SimpleNamespace(
                experimental=parts["config_experimental"],
                registration=parts["config_registration"],
                user_types=parts["config_user_types"],
                auth=parts["config_auth"],
                key=parts["config_key"],
                redis=parts["config_redis"],
                server=parts["config_server"],
                ratelimiting=parts["config_ratelimiting"],
            ),
        )
        return compat.find_incompatibility(
            cast(Any, SimpleNamespace(_hs=hs, worker_app=self._worker))
        )

    def without(self, part: str, gone: str = "", bare: str = "") -> str | None:
        """What the module misses, when one part has lost this."""
        before = self.parts[part]
        self.parts[part] = Without(before, gone, bare)
        try:
            return self.missing()
        finally:
            self.parts[part] = before


class MissingTests(SynchronousTestCase):
    """:func:`synapse_login_module.synapse.compat.find_incompatibility`."""

    def setUp(self) -> None:
        require("synapse")
        self.release = Release()

    def test_installed_release(self) -> None:
        """The installed release has everything; if not, this names what is missing."""
        self.assertIsNone(self.release.missing())

    def test_attributes(self) -> None:
        """Whatever attribute is gone is named, with whose it was."""
        for part, owner, attribute in _ATTRIBUTES:
            self.assertEqual(self.release.without(part, gone=attribute), f"{owner}.{attribute}")

    def test_parameters(self) -> None:
        """So is a parameter."""
        for part, owner, method, parameter in (
            (
                "registration",
                "RegistrationHandler",
                "register_device",
                "should_issue_refresh_token",
            ),
            (
                "registration",
                "RegistrationHandler",
                "check_user_id_not_appservice_exclusive",
                "user_id",
            ),
            ("auth", "AuthHandler", "consume_login_token", "login_token"),
            ("auth", "AuthHandler", "validate_login", "login_submission"),
            ("validity", "AccountValidityHandler", "on_user_login", "user_id"),
            ("providers", "PasswordAuthProvider", "check_auth", "username"),
            ("providers", "PasswordAuthProvider", "check_3pid_auth", "medium"),
            ("blocking", "AuthBlocking", "check_auth_blocking", "user_id"),
            ("spam_checker", "spam_checker", "check_login_for_spam", "request_info"),
            ("store", "DataStore", "get_user_by_access_token", "token"),
            ("store", "DataStore", "get_user_id_by_threepid", "medium"),
        ):
            self.assertEqual(
                self.release.without(part, bare=method),
                f"the parameter {parameter} of {owner}.{method}",
            )

    def test_servlet(self) -> None:
        """What is replaced in Synapse's own login is checked, too."""
        from synapse_login_module.synapse import compat

        handler = SimpleNamespace(_failed_login_attempts_ratelimiter=None)
        servlet: Any = SimpleNamespace(
            auth_handler=None,
            jwt_enabled=False,
            _address_ratelimiter=None,
            _account_ratelimiter=None,
        )
        api: Any = SimpleNamespace(_hs=SimpleNamespace(get_auth_handler=lambda: handler))
        self.assertIsNone(compat.find_incompatible_servlet(servlet, api))
        for owner, attribute in (
            *((servlet, each) for each in vars(servlet)),
            (handler, "_failed_login_attempts_ratelimiter"),
        ):
            before = dict(vars(owner))
            delattr(owner, attribute)
            missing = compat.find_incompatible_servlet(servlet, api)
            self.assertEqual(missing, f"SimpleNamespace.{attribute}")
            vars(owner).update(before)

    def test_way_in(self) -> None:
        """So is what leads to the rest."""
        from synapse_login_module.synapse import compat

        api: Any = SimpleNamespace(worker_app=None)
        self.assertIn("_hs", compat.find_incompatibility(api) or "")
        api._hs = SimpleNamespace()
        self.assertIn("config", compat.find_incompatibility(api) or "")

    def test_worker(self) -> None:
        """A worker does without the counters of ids, which are the main process's."""
        release = Release(worker="synapse.app.generic_worker")
        self.assertIsNone(release.without("store", gone="_access_tokens_id_gen"))


class ReleaseTests(SynchronousTestCase):
    """:func:`synapse_login_module.synapse.compat.is_too_old`."""

    def setUp(self) -> None:
        require("synapse")

    def test_releases(self) -> None:
        """Releases are compared by number, and one that has no number is left to ``missing``."""
        from synapse_login_module.synapse.compat import is_too_old

        for release in ("0.99.5", "1.99.0", "1.153.0", "1.153.0rc2 (b=develop,abcdef)"):
            self.assertTrue(is_too_old(release), release)
        for release in ("1.154.0", "1.154.0rc1", "1.163.2", "2.0.0", "develop"):
            self.assertFalse(is_too_old(release), release)

    def test_installed_release(self) -> None:
        """The installed release is supported."""
        from synapse_login_module.synapse.compat import is_too_old

        self.assertFalse(is_too_old())


class ColumnTests(SynchronousTestCase):
    """The columns of Synapse's tables."""

    def setUp(self) -> None:
        require("synapse")

    def missing(self, tables: str) -> str | None:
        """What the module misses in these tables."""
        from synapse_login_module.synapse.tables import TokenRows

        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        connection.executescript(tables)
        return TokenRows(connection.cursor(), None, alone=True).missing_column()

    def test_all_there(self) -> None:
        """With the tables as they are, nothing is missing."""
        self.assertIsNone(self.missing(_TABLES))

    def test_gone(self) -> None:
        """A column that is gone, or has another name, is named with its table."""
        for table, column in (
            ("access_tokens", "used"),
            ("access_tokens", "last_validated"),
            ("refresh_tokens", "ultimate_session_expiry_ts"),
            ("refresh_tokens", "next_token_id"),
        ):
            head, _, tail = _TABLES.partition(f"CREATE TABLE {table}")
            changed = f"{head}CREATE TABLE {table}{tail.replace(column, 'renamed', 1)}"
            self.assertEqual(self.missing(changed), f"the column {column} of {table}")


class InstalledColumnTests(HomeserverCase):
    """The same in the database of the installed release."""

    profile = Profile("contexts")

    async def test_columns(self) -> None:
        """The installed release has every column; if not, this names the missing one."""
        from synapse_login_module.synapse.tables import TokenRows
        from synapse_login_module.synapse.user_tables import USER_TABLES

        connection = sqlite3.connect(self.server.folder / "homeserver.db")
        self.addCleanup(connection.close)
        rows = TokenRows(connection.cursor(), None, alone=True)
        self.assertIsNone(rows.missing_column(USER_TABLES))

    async def test_said_at_the_start(self) -> None:
        """A Synapse that has all columns logs no missing one."""
        self.assertNotIn("this release of Synapse lacks", self.server.log())
