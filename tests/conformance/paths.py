"""The paths of the service, and the prefixes they are served under."""

from __future__ import annotations

CLIENT = "/_matrix/client"
PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha")

LOGIN = "login"
TOKENREFRESH = "tokenrefresh"
REFRESH = "refresh"
LOGOUT = "logout"
LOGOUT_ALL = "logout/all"
WHOAMI = "account/whoami"
GET_TOKEN = "login/get_token"

VERSIONS = f"{CLIENT}/versions"
HEALTH = "/health"
MSC2918_REFRESH = f"{CLIENT}/unstable/org.matrix.msc2918/refresh"

METHODS = {
    LOGIN: ("GET", "POST"),
    TOKENREFRESH: ("POST",),
    REFRESH: ("POST",),
    LOGOUT: ("POST",),
    LOGOUT_ALL: ("POST",),
    WHOAMI: ("GET",),
    GET_TOKEN: ("POST",),
}
"""The methods that each path takes, other than OPTIONS and HEAD."""


_OWN_PREFIXES = {GET_TOKEN: "v1"}


def at(path: str, prefix: str | None = None) -> str:
    """Return a path under a prefix, by default that of the Matrix specification."""
    return f"{CLIENT}/{prefix or _OWN_PREFIXES.get(path, 'v3')}/{path}"


ALL_METHODS = {
    **{at(path, prefix): methods for path, methods in METHODS.items() for prefix in PREFIXES},
    MSC2918_REFRESH: ("POST",),
    VERSIONS: ("GET",),
    HEALTH: ("GET",),
}
"""Every full path that is served, with its methods."""
