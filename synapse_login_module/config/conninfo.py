"""PostgreSQL's connection strings in a configuration, and connections by them."""

from __future__ import annotations

import ipaddress
import re
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from synapse_login_module.config.messages import close_to
from synapse_login_module.errors import ConfigError

_NO_PARAMETER = re.compile(r'(?:option|parameter):? ?"(\w+)"')
_PARAMETERS = (
    *("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "connect_timeout"),
    *("client_encoding", "options", "application_name", "keepalives", "tcp_user_timeout"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "target_session_attrs", "service"),
)


def load_psycopg(key: str) -> Any:
    """Import psycopg, which is installed by whoever wants it.

    :param key: of the configuration, that asks for it.
    :raise ConfigError: when it is not there.
    """
    try:
        return import_module("psycopg")
    except ImportError:
        raise ConfigError(
            key, "psycopg is not installed: pip install 'synapse-login-module[postgres]'"
        ) from None


def read(key: str, conninfo: str) -> dict[str, Any]:
    """The parameters of a connection string (PostgreSQL's documentation, "Connection Strings").

    :param key: of the configuration, that holds it.
    :raise ConfigError: when it is none, or psycopg is not there.
    """
    psycopg = load_psycopg(key)
    try:
        parameters: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        # Its message may hold what was given, and that a password.
        raise ConfigError(key, f"not a PostgreSQL connection string{_meant(str(error))}") from None
    return parameters


def unverified_host(parameters: Mapping[str, Any]) -> str | None:
    """Find a server that anybody in between can pose as: one on another machine, whose certificate
    libpq does not compare with its name.

    What the environment says counts too (``PGHOST``, ``PGSSLMODE``). A service file is not read: a
    connection string that relies on one is left alone.

    :param parameters: as :func:`read` gives them, for which psycopg is there.
    """
    given = load_psycopg("").pq.Conninfo.get_defaults()
    defaults = {each.keyword.decode(): each.val.decode() for each in given if each.val is not None}
    effective = {**defaults, **parameters}
    # With the system's authorities libpq takes no other sslmode; Kerberos knows whom it talks to.
    verified = (
        effective.get("sslmode") == "verify-full"
        or effective.get("sslrootcert") == "system"
        or effective.get("gssencmode") == "require"
    )
    if verified or effective.get("service"):
        return None
    names = str(effective.get("host") or "").split(",")
    addresses = str(effective.get("hostaddr") or "").split(",")
    for index in range(max(len(names), len(addresses))):
        name = names[index] if index < len(names) else ""
        address = addresses[index] if index < len(addresses) else ""
        if not _is_local(address or name):
            return name or address
    return None


def _is_local(host: str) -> bool:
    """Whether a host is this machine: a folder of sockets, an abstract one, or loopback."""
    if not host or host[0] in "/@":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def place(key: str, conninfo: str) -> str:
    """Where a connection string leads, in words without secrets."""
    found = read(key, conninfo)
    host = found.get("host") or found.get("hostaddr") or found.get("service") or "its usual socket"
    port = f", port {found['port']}" if "port" in found else ""
    return f"the PostgreSQL at {host}{port}"


def _meant(message: str) -> str:
    """What libpq's message says that is no secret: a parameter that is close to one there is."""
    found = _NO_PARAMETER.search(message)
    likely = found and close_to(found[1], _PARAMETERS)
    return f": there is no parameter {found[1]}: is it {likely}?" if found and likely else ""


def connect(key: str, conninfo: str = "", **parameters: Any) -> Any:
    """Open a connection; blocks.

    One that is not open in time is closed by then. psycopg leaves that to the garbage collector:
    the frames of its error hold it, and the server waits for what will never come.

    :param key: of the configuration, that asks for it.
    :raise psycopg.Error: when it cannot be opened.
    """
    try:
        return load_psycopg(key).connect(conninfo, **parameters)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        raise
