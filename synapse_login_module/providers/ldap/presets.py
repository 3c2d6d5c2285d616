"""The conditions and keys that the configuration has names for, by kind of directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_DAY = 86_400
_LOCKED_OUT = 0x10


class Preset(NamedTuple):
    """A condition, with its filter as text; see
    :class:`~synapse_login_module.providers.ldap.statuses.Condition`.
    """

    filter: str
    attribute: str = ""
    test: Callable[[int, float], bool] = lambda value, now: True


def _is_locked_out(value: int, now: float) -> bool:
    return bool(value & _LOCKED_OUT)


def _has_expired(value: int, now: float) -> bool:
    return 0 <= value <= now // _DAY


_BY_AN_ADMINISTRATOR = "(nsAccountLock=TRUE)"
_LOCKED_BY_389DS = Preset(
    # By an administrator; after too many wrong passwords, for good; and the same, for some time.
    f"(|{_BY_AN_ADMINISTRATOR}(accountUnlockTime=19700101000000Z)(accountUnlockTime>={{now}}))"
)

DISABLED: Mapping[str, Preset] = {
    # The bit of disabled accounts, or an end in the past. Accounts without an end have 0 or the
    # largest number there.
    "active_directory": Preset(
        "(|(userAccountControl:1.2.840.113556.1.4.803:=2)"
        "(&(accountExpires>=1)(accountExpires<={now_filetime})))"
    ),
    "ppolicy": Preset("(pwdEndTime<={now})"),
    "389ds": Preset(_BY_AN_ADMINISTRATOR),
    "freeipa": Preset(f"(|{_BY_AN_ADMINISTRATOR}(krbPrincipalExpiration<={{now}}))"),
    # Directories have no order for this attribute, so they cannot be asked for smaller values.
    "shadow": Preset("(shadowExpire=*)", "shadowExpire", _has_expired),
}
"""The names that ``disabled_filter`` takes."""

LOCKED: Mapping[str, Preset] = {
    # lockoutTime stays when the lockout is over. How long that lasts depends on the policy of the
    # account, so the server computes whether it is over, but it cannot search by that.
    "active_directory": Preset(
        "(lockoutTime>=1)", "msDS-User-Account-Control-Computed", _is_locked_out
    ),
    "ppolicy": Preset("(pwdAccountLockedTime=*)"),
    "389ds": _LOCKED_BY_389DS,
    "freeipa": _LOCKED_BY_389DS,
}
"""The names that ``locked_filter`` takes."""

DIRECTORIES: Mapping[str, Mapping[str, Any]] = {
    "active_directory": {
        "attributes": {"uid": "sAMAccountName", "name": "displayName"},
        "disabled_filter": "active_directory",
        "locked_filter": "active_directory",
        "group_type": "active_directory",
    },
    "openldap": {
        "disabled_filter": "ppolicy",
        "locked_filter": "ppolicy",
        "group_type": "names",
    },
    "389ds": {
        "attributes": {"subject": "nsUniqueId"},
        "disabled_filter": "389ds",
        "locked_filter": "389ds",
        "group_type": "names",
    },
    "freeipa": {
        "attributes": {"subject": "ipaUniqueID"},
        "disabled_filter": "freeipa",
        "locked_filter": "freeipa",
        "group_type": "names",
    },
    "shadow": {"disabled_filter": "shadow", "group_type": "posix"},
}
"""The keys that each value of ``directory`` sets, unless the configuration sets them itself."""


def with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the keys that ``directory`` sets to a configuration that is not checked yet."""
    directory = config.get("directory")
    defaults = DIRECTORIES.get(directory, {}) if isinstance(directory, str) else {}
    own = config.get("attributes", {})
    made = ("uid",) if config.get("localpart") is not None else ()
    if "attributes" in defaults and isinstance(own, Mapping):
        set_here = {key: value for key, value in defaults["attributes"].items() if key not in made}
        own = {**set_here, **own}
    added = {key: value for key, value in defaults.items() if key != "attributes"}
    if "groups" not in config:
        added.pop("group_type", None)
    return {**added, **config, **({"attributes": own} if own else {})}
