"""How a directory is reached, by its configuration: the servers, and who searches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from twisted.internet.ssl import Certificate

from synapse_login_module.common.loopback import is_loopback
from synapse_login_module.config.files import ReadFile, read_password
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.outbound.tls import read_authorities
from synapse_login_module.providers.ldap.connection import LDAPServer
from synapse_login_module.providers.ldap.directory import Settings
from synapse_login_module.providers.ldap.keys import Keys
from synapse_login_module.providers.ldap.tls import tls_for

_PORTS = {"ldap": 389, "ldaps": 636}


def settings_of(keys: Keys, folder: Path) -> Settings:
    """Check the servers and the service account.

    :param folder: the folder that relative paths start from.
    :raise ConfigError: for all mistakes together.
    """
    mistakes = Mistakes()
    servers: Sequence[LDAPServer] = ()
    bind_password = ""
    with mistakes.gathered():
        servers = _servers(keys, folder)
    with mistakes.gathered():
        bind_password = _bind_password(keys, folder)
    mistakes.raise_any()
    return Settings(
        servers=servers,
        bind_dn=keys.bind_dn or "",
        bind_password=bind_password,
        connect_timeout=keys.connect_timeout / 1000,
        read_timeout=keys.read_timeout / 1000,
        retry_after=keys.retry_after / 1000,
        connections=keys.connections,
        queue=keys.queue,
    )


def _bind_password(keys: Keys, folder: Path) -> str:
    given = [
        key for key in ("bind_password", "bind_password_file") if getattr(keys, key) is not None
    ]
    if keys.bind_dn is None:
        for key in given:
            raise ConfigError(key, "it goes with bind_dn")
        return ""
    if len(given) != 1:
        raise ConfigError("bind_dn", "it takes either bind_password or bind_password_file")
    if keys.bind_password is not None:
        return keys.bind_password
    path = folder / (keys.bind_password_file or "")
    return ReadFile.load("bind_password_file", path, read_password).value


def _servers(keys: Keys, folder: Path) -> Sequence[LDAPServer]:
    authorities = None
    if keys.ca_file is not None:
        authorities = ReadFile.load("ca_file", folder / keys.ca_file, read_authorities).value
    mistakes = Mistakes()
    servers = []
    for index, url in enumerate(keys.servers):
        with mistakes.gathered():
            servers.append(config_path(f"servers.{index}", _server, url, keys, authorities))
    mistakes.raise_any()
    return servers


def _server(url: str, keys: Keys, authorities: Sequence[Certificate] | None) -> LDAPServer:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        tls = tls_for(host or "", authorities, keys.verify_certificate) if host else None
    except (KeyError, ValueError):
        host = None
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username) if host else ()
    if host is None or any(rest):
        raise ConfigError("", "not ldap://HOST, ldap://HOST:PORT, or the same with ldaps")
    if parts.scheme == "ldaps":
        return LDAPServer(url, host, port, tls, start_tls=False)
    if keys.start_tls:
        return LDAPServer(url, host, port, tls, start_tls=True)
    if not keys.allow_plaintext and not is_loopback(host):
        raise ConfigError(
            "", "passwords would go there in the clear: set start_tls, or allow_plaintext"
        )
    return LDAPServer(url, host, port, None, start_tls=False)
