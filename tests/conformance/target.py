"""The target of the suite: a frozen description of one homeserver and its test accounts.

Without the variables below, the suite starts the standalone server of this repository. With
``CONFORMANCE_BASE_URL`` it tests the homeserver at that URL:

``CONFORMANCE_BASE_URL``
    a URL without a path, such as ``http://127.0.0.1:8008``.
``CONFORMANCE_SERVER_NAME``, ``CONFORMANCE_USER``, ``CONFORMANCE_PASSWORD``
    the homeserver's name and a first account; required.
``CONFORMANCE_EMAIL``, ``CONFORMANCE_PHONE``
    the e-mail address and telephone number of that account, for tests that log in with them.
``CONFORMANCE_USER_2``, ``CONFORMANCE_PASSWORD_2``
    a second account.
``CONFORMANCE_LOCKED_USER``, ``CONFORMANCE_LOCKED_PASSWORD``,
``CONFORMANCE_DEACTIVATED_USER``, ``CONFORMANCE_DEACTIVATED_PASSWORD``
    a locked and a deactivated account.
``CONFORMANCE_FEATURES``
    a comma-separated list of the features below that the homeserver has, or ``all``. The default is
    those that every homeserver has by the Matrix specification.

Tests that need a feature or an account that the target lacks are skipped with the reason. So are
tests that need a server with a special configuration.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Feature(enum.Enum):
    """A feature that not every homeserver has."""

    TOKENREFRESH = "tokenrefresh"
    """``POST /tokenrefresh``, the strict refresh."""
    REFRESH = "refresh"
    """``POST /refresh`` of today's Matrix specification."""
    REFRESH_LENIENT = "refresh_lenient"
    """A repeated ``/refresh`` returns the same pair."""
    REFRESH_ENDS_OLD = "refresh_ends_old"
    """The first use of a new access token ends the old one."""
    RELOGIN_ENDS_OLD = "relogin_ends_old"
    """Logging in again with the same device_id ends a session that can be refreshed."""
    REUSE_REVOKES = "reuse_revokes"
    """A refresh token that was used long ago revokes its session."""
    REFRESH_ON_REQUEST = "refresh_on_request"
    """Only clients that ask for a refresh token get one."""
    HOME_SERVER = "home_server"
    """The response to a login has ``home_server``."""
    GET_TOKEN = "get_token"
    """``POST /login/get_token``, with ``m.login.token`` at ``/login``."""
    WHOAMI = "whoami"
    """``GET /account/whoami``."""
    LOGOUT = "logout"
    """``POST /logout`` and ``POST /logout/all``."""
    EXPIRED_LOGOUT = "expired_logout"
    """An expired access token can log out."""
    VERSIONS = "versions"
    """``GET /_matrix/client/versions``."""
    HEALTH = "health"
    """``GET /health``, which is no part of the Matrix specification."""
    PREFIXES = "prefixes"
    """Every path is served under every prefix."""
    STRICT_ERRORS = "strict_errors"
    """Errors are exactly those of ``docs/openapi.yaml``."""
    STRICT_HTTP = "strict_http"
    """Details of HTTP: 405, 413 before the body is read, Cache-Control, any Content-Type."""


EVERY_HOMESERVER = frozenset({Feature.REFRESH, Feature.WHOAMI, Feature.LOGOUT, Feature.VERSIONS})


@dataclass(frozen=True)
class TestAccount:
    """An account that the suite logs in to.

    :param user: the local part, as the homeserver stores it.
    """

    user: str
    password: str
    email: str | None = None
    phone: str | None = None


@dataclass(frozen=True)
class Target:
    """A homeserver and its test accounts.

    :param base_url: its URL without a trailing slash.
    :param second: a second account, with a name and a password only.
    """

    base_url: str
    server_name: str
    account: TestAccount
    second: TestAccount | None
    locked: TestAccount | None
    deactivated: TestAccount | None
    features: frozenset[Feature]

    def user_id(self, account: TestAccount) -> str:
        """Return the full user ID of an account."""
        return f"@{account.user}:{self.server_name}"


class TargetError(Exception):
    """The variables do not describe a target."""


def from_environment(environment: Mapping[str, str]) -> Target | None:
    """Read the description of the target.

    :param environment: the environment variables, such as ``os.environ``.
    :return: the target, or ``None`` when the suite is to start a server itself.
    :raise TargetError: when a variable is missing or wrong.
    """
    base_url = environment.get("CONFORMANCE_BASE_URL")
    if not base_url:
        return None

    def needed(name: str) -> str:
        value = environment.get(name)
        if not value:
            raise TargetError(f"{name} must be set along with CONFORMANCE_BASE_URL")
        return value

    def optional_account(user: str, password: str) -> TestAccount | None:
        if not environment.get(user):
            return None
        return TestAccount(environment[user], needed(password))

    return Target(
        base_url=base_url.rstrip("/"),
        server_name=needed("CONFORMANCE_SERVER_NAME"),
        account=TestAccount(
            needed("CONFORMANCE_USER"),
            needed("CONFORMANCE_PASSWORD"),
            environment.get("CONFORMANCE_EMAIL") or None,
            environment.get("CONFORMANCE_PHONE") or None,
        ),
        second=optional_account("CONFORMANCE_USER_2", "CONFORMANCE_PASSWORD_2"),
        locked=optional_account("CONFORMANCE_LOCKED_USER", "CONFORMANCE_LOCKED_PASSWORD"),
        deactivated=optional_account(
            "CONFORMANCE_DEACTIVATED_USER", "CONFORMANCE_DEACTIVATED_PASSWORD"
        ),
        features=_features(environment.get("CONFORMANCE_FEATURES")),
    )


def _features(text: str | None) -> frozenset[Feature]:
    if text is None:
        return EVERY_HOMESERVER
    if text.strip() == "all":
        return frozenset(Feature)
    try:
        return frozenset(Feature(name.strip()) for name in text.split(",") if name.strip())
    except ValueError as error:
        known = ", ".join(feature.value for feature in Feature)
        raise TargetError(f"CONFORMANCE_FEATURES: {error}; known are {known}") from None
