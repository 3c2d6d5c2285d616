"""The configurations of the servers that the suite starts; each has a name and is started once.

A profile is the difference from the normal configuration, which has very high rate limits, cheap
hashes, and the defaults for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.conformance import accounts

_UNLIMITED = {"per_second": 1000, "burst_count": 10000}
_SLOW = {"per_second": 0.01, "burst_count": 5}

Config = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """The configuration of a server.

    :param changes: keys to add to the normal configuration, mapping by mapping.
    :param files: the contents of further files beside the configuration, by name.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def config(self, port: int) -> Config:
        """Build the whole configuration for a loopback port."""
        config: Config = {
            "server_name": accounts.SERVER_NAME,
            "listen": [f"tcp:{port}:interface=127.0.0.1"],
            "password_providers": [
                {
                    "module": "synapse_login_module.providers.BcryptProvider",
                    "config": {"users": accounts.users()},
                }
            ],
            "token_store": {
                "module": "synapse_login_module.stores.SQLiteTokenStore",
                "config": {"path": "sessions.db"},
            },
            "tokens": {"key_file": "token.key"},
            "rate_limits": {
                "address": dict(_UNLIMITED),
                "account": dict(_UNLIMITED),
                "failed_attempts": dict(_UNLIMITED),
            },
            "hashing": {"rounds": 4},
        }
        return _laid_over(config, self.changes)


def _laid_over(config: Config, changes: Mapping[str, Any]) -> Config:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _laid_over(config[key], value)
        else:
            config[key] = value
    return config


NORMAL = Profile("normal")

SHORT_ACCESS = Profile("short-access", {"tokens": {"refreshable_access_token_lifetime": "1s"}})
"""Access tokens of clients that refresh live for a second."""

SHORT_IDLE = Profile("short-idle", {"tokens": {"refresh_token_lifetime": "2s"}})
"""A session that is not refreshed for two seconds is over."""

SHORT_SESSION = Profile("short-session", {"tokens": {"session_lifetime": "2s"}})
"""A session is over after two seconds, refreshed or not."""

SHORT_REUSE = Profile("short-reuse", {"tokens": {"reuse_interval": "1s"}})
"""A refresh token counts as stolen a second after it was replaced."""

NO_REUSE = Profile("no-reuse", {"tokens": {"reuse_interval": 0}})
"""A refresh token counts as stolen as soon as its replacement was confirmed."""

SHORT_LOGIN_TOKEN = Profile("short-login-token", {"tokens": {"login_token_lifetime": "1s"}})
"""Login tokens live for a second."""

ALWAYS = Profile("always", {"tokens": {"refresh_token": "always"}})
"""Clients that do not ask get a refresh token too."""

NONREFRESHABLE = Profile(
    "nonrefreshable", {"tokens": {"nonrefreshable_access_token_lifetime": "1h"}}
)
"""The access tokens of clients that do not refresh expire too, after an hour."""

NO_ACCESS_TOKEN = Profile("no-access-token", {"tokenrefresh": {"require_access_token": False}})
"""``/tokenrefresh`` takes requests without an access token."""

PEPPER = Profile(
    "pepper",
    {
        "password_providers": [
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"users": accounts.users("salt and"), "pepper": "salt and"},
            }
        ]
    },
)
"""The hashes were made with a pepper."""

ADDRESS_LIMIT = Profile("address-limit", {"rate_limits": {"address": _SLOW}})
"""Five logins an address."""

UNTRUSTED_PROXY = Profile(
    "untrusted-proxy", {"rate_limits": {"address": _SLOW}, "trusted_proxies": []}
)
"""Five logins an address, and X-Forwarded-For is ignored."""

REFRESH_LIMIT = Profile(
    "refresh-limit", {"rate_limits": {"address": _SLOW, "failed_attempts": _SLOW}}
)
"""Five logins and five failures of any kind an address."""

ACCOUNT_LIMIT = Profile("account-limit", {"rate_limits": {"account": _SLOW}})
"""Five logins an account."""

FAILURE_LIMIT = Profile("failure-limit", {"rate_limits": {"failed_attempts": _SLOW}})
"""Five failed logins."""

SHORT_QUEUE = Profile(
    "short-queue",
    {
        "hashing": {"threads": 1, "queue": 1, "rounds": 10},
        "password_providers": [
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"users": accounts.users(rounds=10)},
            }
        ],
    },
)
"""One password is hashed at a time, slowly, and one may wait."""

USERS_FILE = Profile(
    "users-file",
    {
        "password_providers": [
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"path": "users.yaml"},
            }
        ]
    },
    {"users.yaml": "users: {}\n"},
)
"""The accounts are in a file that the tests change."""

WATCHED = Profile(
    "watched",
    {
        **USERS_FILE.changes,
        "tokens": {"account_check_interval": "2s"},
        "brake": None,
    },
    USERS_FILE.files,
)
"""The accounts are in a file, and are looked at every two seconds."""

BRAKED = Profile(
    "braked", {**WATCHED.changes, "brake": {"accounts": 2, "percent": 0}}, USERS_FILE.files
)
"""The same, with a brake that holds when more than two accounts vanish at once."""

SHORT_KEPT = Profile(
    "short-kept", {"tokens": {"session_lifetime": "1s", "keep_ended": "1s", "reuse_interval": 0}}
)
"""A session ends after a second, and its row is removed a second later."""

THIRD_PARTY = Profile(
    "third-party",
    {
        "rate_limits": {"failed_attempts": {"per_second": 0.01, "burst_count": 3}},
        "password_providers": [
            {
                "module": "tests.conformance.thirdparty.MoodyProvider",
                "config": {"mood_file": "mood"},
            },
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"users": accounts.users()},
            },
        ],
    },
    {"mood": "absent"},
)
"""A third party's provider is asked first; the file ``mood`` says how it answers."""
