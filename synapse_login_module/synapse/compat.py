"""Checks at the start that Synapse has what this package uses beyond the public ModuleApi.

If a release of Synapse changes one of these names, Synapse does not start and says why. Otherwise
requests would fail with a traceback. Tested with Synapse 1.154 and 1.163.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from synapse.http.site import SynapseRequest
from synapse.logging.context import ContextRequest
from synapse.module_api import ModuleApi
from synapse.rest.client.login import LoginRestServlet
from synapse.rest.well_known import WellKnownBuilder
from synapse.util import SYNAPSE_VERSION

OLDEST = 1, 154
"""The oldest release that is supported. Older ones deleted a session's refresh tokens before its
access tokens, and went on accepting the access tokens while these were cached
(element-hq/synapse#19483)."""

Needed = tuple[str, object, str, tuple[str, ...]]
"""What this package uses: the owner's name, the owner, the attribute, and the parameters that the
attribute must accept."""

_LOGGED_OUT = ("user_id", "device_id", "access_token")


def is_too_old(release: str = SYNAPSE_VERSION) -> bool:
    """Say whether a release of Synapse is older than :data:`OLDEST`.

    ModuleApi: does not show the release.

    :param release: such as ``1.154.0``.
    """
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST


def find_incompatibility(api: ModuleApi) -> str | None:
    """Return the name of something that this package uses and Synapse lacks, or ``None``."""
    return _first_missing(_needed, api)


def find_incompatible_delegation(api: ModuleApi) -> str | None:
    """Return the name of something that the module uses where Synapse delegates authentication, and
    that Synapse lacks; or ``None``. What is there only while it delegates is looked at only then.
    """
    return _first_missing(_needed_to_forget, api)


def _first_missing(list_needed: Callable[[ModuleApi], list[Needed]], api: ModuleApi) -> str | None:
    try:
        needed = list_needed(api)
    except (AttributeError, ImportError) as error:
        return str(error)
    for name, owner, attribute, parameters in needed:
        if not hasattr(owner, attribute):
            return f"{name}.{attribute}"
        found = getattr(owner, attribute)
        known = inspect.signature(getattr(found, "orig", found)).parameters if parameters else {}
        for parameter in parameters:
            if parameter not in known:
                return f"the parameter {parameter} of {name}.{attribute}"
    return None


def _needed(api: ModuleApi) -> list[Needed]:
    """List what this package uses where Synapse itself logs users in."""
    homeserver = api._hs
    config = homeserver.config
    store = homeserver.get_datastores().main
    auth = homeserver.get_auth_handler()
    registration = homeserver.get_registration_handler()
    blocking = homeserver.get_auth_blocking()
    providers = homeserver.get_password_auth_provider()
    checker = homeserver.get_module_api_callbacks().spam_checker
    rules = homeserver.get_module_api_callbacks().third_party_event_rules
    validity = homeserver.get_account_validity_handler()
    limits = config.ratelimiting
    needed: list[Needed] = [
        (
            "RegistrationHandler",
            registration,
            "register_device",
            ("should_issue_refresh_token", "auth_provider_id", "auth_provider_session_id"),
        ),
        ("AuthHandler", auth, "consume_login_token", ("login_token",)),
        (
            "RegistrationHandler",
            registration,
            "check_user_id_not_appservice_exclusive",
            ("user_id",),
        ),
        ("AuthHandler", auth, "is_user_approved", ("user_id",)),
        ("AuthHandler", auth, "validate_login", ("login_submission", "ratelimit")),
        ("AuthHandler", auth, "_sso_login_callback", ()),
        ("AccountValidityHandler", validity, "on_user_login", ("user_id", "auth_provider_id")),
        ("AuthBlocking", blocking, "check_auth_blocking", ("user_id",)),
        ("PasswordAuthProvider", providers, "auth_checker_callbacks", ()),
        ("PasswordAuthProvider", providers, "check_3pid_auth_callbacks", ()),
        ("PasswordAuthProvider", providers, "get_supported_login_types", ()),
        ("PasswordAuthProvider", providers, "check_auth", ("username", "login_dict")),
        ("PasswordAuthProvider", providers, "check_3pid_auth", ("medium", "address")),
        (
            "spam_checker",
            checker,
            "check_login_for_spam",
            ("request_info", "auth_provider_id"),
        ),
        ("spam_checker", checker, "NOT_SPAM", ()),
        ("config.experimental", config.experimental, "msc3866", ()),
        ("DataStore", store, "get_user_by_access_token", ("token",)),
        ("DataStore", store, "_invalidate_cache_and_stream_bulk", ("txn", "cache_func")),
        ("DataStore", store, "get_user_id_by_threepid", ("medium", "address")),
        ("DataStore", store, "_invalidate_cache_and_stream", ("txn", "cache_func", "keys")),
        ("DataStore", store, "get_user_by_external_id", ("auth_provider", "external_id")),
        ("third_party_event_rules", rules, "on_add_user_third_party_identifier", ()),
        ("third_party_event_rules", rules, "on_threepid_bind", ()),
        ("DataStore.database_engine", store.database_engine, "module", ()),
        ("config.registration", config.registration, "refreshable_access_token_lifetime", ()),
        ("config.registration", config.registration, "nonrefreshable_access_token_lifetime", ()),
        ("config.registration", config.registration, "refresh_token_lifetime", ()),
        ("config.registration", config.registration, "session_lifetime", ()),
        ("config.registration", config.registration, "enable_registration", ()),
        ("config.user_types", config.user_types, "default_user_type", ()),
        ("config.auth", config.auth, "password_enabled_for_login", ()),
        ("config.auth", config.auth, "password_enabled_for_reauth", ()),
        ("config.auth", config.auth, "password_localdb_enabled", ()),
        ("config.auth", config.auth, "password_pepper", ()),
        ("config.key", config.key, "macaroon_secret_key", ()),
        ("config.redis", config.redis, "redis_enabled", ()),
        ("config.server", config.server, "hs_disabled", ()),
        ("config.server", config.server, "limit_usage_by_mau", ()),
        ("config.server", config.server, "listeners", ()),
        ("config.ratelimiting", limits, "rc_login_address", ()),
        ("config.ratelimiting", limits, "rc_login_account", ()),
        ("config.ratelimiting", limits, "rc_login_failed_attempts", ()),
        ("LoginRestServlet", LoginRestServlet, "on_GET", ("request",)),
        ("LoginRestServlet", LoginRestServlet, "on_POST", ("request",)),
        ("LoginRestServlet", LoginRestServlet, "APPSERVICE_TYPE", ()),
        ("LoginRestServlet", LoginRestServlet, "JWT_TYPE", ()),
        ("WellKnownBuilder", WellKnownBuilder, "get_well_known", ()),
        ("SynapseRequest", SynapseRequest, "processing", ()),
        ("SynapseRequest", SynapseRequest, "getClientAddress", ()),
        ("ContextRequest", ContextRequest, "ip_address", ()),
        ("ContextRequest", ContextRequest, "user_agent", ()),
        ("ContextRequest", ContextRequest, "url", ()),
    ]
    if api.worker_app is None:
        pushers = homeserver.get_pusherpool()
        needed += [
            ("DataStore", store, "_access_tokens_id_gen", ()),
            ("DataStore", store, "_refresh_tokens_id_gen", ()),
            ("DataStore", store, "get_pushers_by_user_id", ("user_id",)),
            ("DataStore", store, "delete_all_pushers_for_user", ("user_id",)),
            ("DataStore", store, "set_user_locked_status", ("user_id", "locked")),
            ("PasswordAuthProvider", providers, "on_logged_out", _LOGGED_OUT),
            ("PasswordAuthProvider", providers, "on_logged_out_callbacks", ()),
            ("PusherPool", pushers, "remove_pushers_by_devices", ("user_id", "devices")),
            ("PusherPool", pushers, "remove_pushers_by_access_tokens", ("user_id",)),
            ("PusherPool", pushers, "remove_pusher", ("app_id", "pushkey", "user_id")),
        ]
    return needed


def _needed_to_forget(api: ModuleApi) -> list[Needed]:
    """List what this package uses where Synapse delegates authentication."""
    homeserver = api._hs
    config = homeserver.config
    needed: list[Needed] = [
        ("config.mas", config.mas, "enabled", ()),
        ("config.mas", config.mas, "secret", ()),
        ("config.server", config.server, "listeners", ()),
        ("config.worker", config.worker, "worker_listeners", ()),
    ]
    if getattr(config.mas, "enabled", False):
        # Imported here, so that a release without them is named and not a traceback.
        from synapse.api.auth import mas
        from synapse.util import async_helpers
        from synapse.util.caches import response_cache

        auth: Any = homeserver.get_auth()
        cache = auth._introspection_cache
        observable = async_helpers.ObservableDeferred
        needed += [
            ("ResponseCache", cache, "_result_cache", ()),
            ("ResponseCache", cache, "unset", ("key",)),
            ("response_cache", response_cache, "ResponseCacheEntry", ("result",)),
            ("ObservableDeferred", observable, "has_called", ()),
            ("ObservableDeferred", observable, "get_result", ()),
            ("api.auth.mas", mas, "IntrospectionResponse", ("username", "device_id")),
        ]
    return needed


def find_incompatible_servlet(servlet: LoginRestServlet, api: ModuleApi) -> str | None:
    """Return the name of something that this package replaces in the servlet, or in the handler
    behind it, and that is not there; or ``None``.
    """
    handler = api._hs.get_auth_handler()
    for owner, attribute in (
        (servlet, "auth_handler"),
        (servlet, "jwt_enabled"),
        (servlet, "_address_ratelimiter"),
        (servlet, "_account_ratelimiter"),
        (handler, "_failed_login_attempts_ratelimiter"),
    ):
        if not hasattr(owner, attribute):
            return f"{type(owner).__name__}.{attribute}"
    return None
