"""What the suite is run against: a description, frozen, of one homeserver and its test accounts.

Without any of the variables below the suite starts the standalone server of this repository. With
``CONFORMANCE_BASE_URL`` it is run against the homeserver that is there:

``CONFORMANCE_BASE_URL``
    as ``http://127.0.0.1:8008``, without a path.
``CONFORMANCE_SERVER_NAME``, ``CONFORMANCE_USER``, ``CONFORMANCE_PASSWORD``
    the homeserver's name and a first account; needed.
``CONFORMANCE_EMAIL``, ``CONFORMANCE_PHONE``
    of that account, for those tests that log in with them.
``CONFORMANCE_USER_2``, ``CONFORMANCE_PASSWORD_2``
    a second account.
``CONFORMANCE_LOCKED_USER``, ``CONFORMANCE_LOCKED_PASSWORD``,
``CONFORMANCE_DEACTIVATED_USER``, ``CONFORMANCE_DEACTIVATED_PASSWORD``
    a locked and a deactivated account.
``CONFORMANCE_FEATURES``
    a list, with commas, of the features below that the homeserver has, or ``all``. By default those
    that every homeserver has by the Matrix specification.

Tests that need a feature or an account that the target lacks are skipped, with the reason, and so
are those that need a server of their own configuration.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Feature(enum.Enum):
    """Something that not every homeserver has."""

    TOKENREFRESH = "tokenrefresh"
    """``POST /tokenrefresh``, the strict refresh."""
    REFRESH = "refresh"
    """``POST /refresh`` of today's Matrix specification."""
    REFRESH_LENIENT = "refresh_lenient"
    """Asking ``/refresh`` again gives the very same pair."""
    REFRESH_ENDS_OLD = "refresh_ends_old"
    """The first use of a new access token ends the old one."""
    RELOGIN_ENDS_OLD = "relogin_ends_old"
    """Logging in again with the same device_id ends a session that can be refreshed."""
    REUSE_REVOKES = "reuse_revokes"
    """A refresh token that was used long ago revokes its session."""
    REFRESH_ON_REQUEST = "refresh_on_request"
    """Every login gets a refresh token, asked for or not."""
    HOME_SERVER = "home_server"
    """The answer to a login has ``home_server``."""
    GET_TOKEN = "get_token"
    """``POST /login/get_token``, with ``m.login.token`` at ``/login``."""
    WHOAMI = "whoami"
    """``GET /account/whoami``."""
    LOGOUT = "logout"
    """``POST /logout`` and ``POST /logout/all``."""
    EXPIRED_LOGOUT = "expired_logout"
    """An expired access token is good enough to log out with."""
    VERSIONS = "versions"
    """``GET /_matrix/client/versions``."""
    HEALTH = "health"
    """``GET /health``, which is no part of the Matrix specification."""
    PREFIXES = "prefixes"
    """Every path is served under every prefix."""
    STRICT_ERRORS = "strict_errors"
    """Errors are to the letter those of ``docs/openapi.yaml``."""
    STRICT_HTTP = "strict_http"
    """HTTP at its edges: 405, 413 before the body is read, Cache-Control, any Content-Type."""


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
    """One homeserver, as the suite knows it.

    :param base_url: without a trailing slash.
    :param second: an account with no more to it than a name and a password.
    """

    base_url: str
    server_name: str
    account: TestAccount
    second: TestAccount | None
    locked: TestAccount | None
    deactivated: TestAccount | None
    features: frozenset[Feature]

    def user_id(self, account: TestAccount) -> str:
        """The full user ID of an account."""
        return f"@{account.user}:{self.server_name}"


class TargetError(Exception):
    """The variables do not describe a target."""


def from_environment(environment: Mapping[str, str]) -> Target | None:
    """Read the description of the target.

    :param environment: as ``os.environ``.
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
