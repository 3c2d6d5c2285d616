"""Checks PostgreSQL connection strings in a configuration, and opens connections."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from synapse_login_module.common.loopback import is_loopback
from synapse_login_module.config.messages import close_to
from synapse_login_module.errors import ConfigError

_NO_PARAMETER = re.compile(r'(?:option|parameter):? ?"(\w+)"')
_PARAMETERS = (
    *("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "connect_timeout"),
    *("client_encoding", "options", "application_name", "keepalives", "tcp_user_timeout"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "target_session_attrs", "service"),
)


def load_psycopg(key: str) -> Any:
    """Import psycopg, which is an optional dependency.

    :param key: the configuration key that needs it.
    :raise ConfigError: when it is not installed.
    """
    try:
        return import_module("psycopg")
    except ImportError:
        raise ConfigError(
            key, "psycopg is not installed: pip install 'synapse-login-module[postgres]'"
        ) from None


def read(key: str, conninfo: str) -> dict[str, Any]:
    """Parse a connection string (PostgreSQL's documentation, "Connection Strings").

    :param key: the configuration key that holds it.
    :return: its parameters by name.
    :raise ConfigError: when it cannot be parsed, or psycopg is not installed.
    """
    psycopg = load_psycopg(key)
    try:
        parameters: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        # libpq's message may quote the string, which may hold a password.
        raise ConfigError(key, f"not a PostgreSQL connection string{_meant(str(error))}") from None
    # A name in Linux's abstract socket namespace begins with an @; no other host has one.
    if any("@" in host[1:] for host in str(parameters.get("host", "")).split(",")):
        raise ConfigError(key, "an @ in the user or the password must be written as %40")
    return parameters


def unverified_host(parameters: Mapping[str, Any]) -> str | None:
    """Find a host on the network whose certificate libpq does not verify against its name.

    Between here and such a host, an attacker can pose as the server. The environment counts too
    (``PGHOST``, ``PGSSLMODE``). A connection string that uses a service file is not checked,
    because that file is not read.

    :param parameters: the result of :func:`read`.
    :return: the host, or ``None``.
    """
    given = load_psycopg("").pq.Conninfo.get_defaults()
    defaults = {each.keyword.decode(): each.val.decode() for each in given if each.val is not None}
    effective = {**defaults, **parameters}
    # sslrootcert=system implies sslmode=verify-full. Kerberos authenticates the server by itself.
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
        if not is_local(address or name):
            return name or address
    return None


def is_local(host: str) -> bool:
    """Return whether a host is this machine: a Unix socket's path or name, or loopback."""
    return not host or host[0] in "/@" or is_loopback(host)


def place(key: str, conninfo: str) -> str:
    """Describe the server of a connection string, without secrets."""
    found = read(key, conninfo)
    host = (
        found.get("host") or found.get("hostaddr") or found.get("service") or "its default socket"
    )
    port = f", port {found['port']}" if "port" in found else ""
    return f"the PostgreSQL at {host}{port}"


def database(key: str, conninfo: str) -> str:
    """Describe the database of a connection string, without secrets."""
    name = read(key, conninfo).get("dbname")
    return (f"database {name} of " if name else "") + place(key, conninfo)


def _meant(message: str) -> str:
    """Suggest the parameter that libpq's message calls unknown, if it is a misspelling.

    The rest of the message may hold secrets, and so may a name that is close to none.
    """
    found = _NO_PARAMETER.search(message)
    likely = found and close_to(found[1], _PARAMETERS)
    return f": there is no parameter {found[1]}: did you mean {likely}?" if found and likely else ""


def connect(key: str, conninfo: str = "", **parameters: Any) -> Any:
    """Open a connection; blocks.

    A connection attempt that fails, for instance by a timeout, is closed at once. psycopg leaves
    that to the garbage collector, because the frames of its exception refer to the connection.
    Until then the server waits for the client.

    :param key: the configuration key that needs psycopg.
    :raise psycopg.Error: when it cannot be opened.
    """
    try:
        return load_psycopg(key).connect(conninfo, **parameters)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        raise
