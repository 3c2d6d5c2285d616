"""Checks the URLs of other servers in a configuration."""

from __future__ import annotations

from urllib.parse import urlsplit

from synapse_login_module.errors import ConfigError
from synapse_login_module.outbound.server_certificate import Host


def checked_url(path: str, url: str, secret_key: str) -> str:
    """Return a URL of http or https if it is one.

    :param path: the path of the key in the configuration.
    :param secret_key: the key that takes the secret which some would write into the URL.
    :raise ConfigError: when it is none, or has a user, a password or a fragment.
    """
    try:
        parts = urlsplit(url)
        Host.parse(parts.hostname or "")
        good = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(path, "not an http:// or https:// URL")
    if parts.username is not None or parts.fragment:
        raise ConfigError(path, f"a URL without user and password (see {secret_key}) or #")
    return url


def is_in_the_clear(url: str) -> bool:
    """Return whether requests to a URL leave this machine unencrypted."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")
