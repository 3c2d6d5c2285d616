"""The configuration of a MariaDB or MySQL server, checked."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from synapse_login_module.config.conninfo import is_local
from synapse_login_module.config.files import ReadFile, read_password
from synapse_login_module.config.validation import FilePath, Strict
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.outbound.tls import read_authorities

_OLDEST = (1, 2)
"""Before it, PyMySQL went on without TLS when a server, or an attacker in between, had none."""

_Text = Annotated[str, Field(min_length=1)]


class MySQLKeys(Strict):
    """The keys of ``mysql``."""

    host: _Text | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    socket: FilePath | None = None
    user: _Text
    password: _Text | None = Field(default=None, repr=False)
    password_file: FilePath | None = None
    database: _Text
    tls: bool | None = None
    ca_file: FilePath | None = None
    verify_certificate: bool = True
    allow_plaintext: bool = False


@dataclass(frozen=True)
class MySQLServer:
    """A server, and how to log in there.

    :param address: the path of a Unix socket, or a host and a port.
    :param tls: makes TLS connections; ``None`` for none.
    :param unverified_host: the host, if it is another machine and its certificate is not verified.
    """

    address: Path | tuple[str, int]
    user: str
    password: str = field(repr=False)
    database: str
    tls: ssl.SSLContext | None
    unverified_host: str | None

    @property
    def host(self) -> str:
        """The host, which a certificate has to name."""
        return "localhost" if isinstance(self.address, Path) else self.address[0]

    @property
    def place(self) -> str:
        """Where the server is, in words."""
        if isinstance(self.address, Path):
            return f"the MySQL at {self.address}"
        return f"the MySQL at {self.address[0]}, port {self.address[1]}"

    def connect(self, seconds: float) -> socket.socket:
        """Connect a socket; blocks.

        :raise OSError: when that is impossible, or takes too long.
        """
        if not isinstance(self.address, Path):
            wire = socket.create_connection(self.address, seconds)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return wire
        wire = socket.socket(socket.AF_UNIX)
        try:
            wire.settimeout(seconds)
            wire.connect(str(self.address))
        except BaseException:
            wire.close()
            raise
        return wire


def load_pymysql() -> Any:
    """Import PyMySQL, which is an optional dependency.

    :raise ConfigError: when it is not installed, or too old.
    """
    install = "pip install 'synapse-login-module[mysql]'"
    try:
        pymysql = import_module("pymysql")
    except ImportError:
        raise ConfigError("mysql", f"PyMySQL is not installed: {install}") from None
    if pymysql.VERSION[:2] < _OLDEST:
        raise ConfigError("mysql", f"PyMySQL is older than 1.2: {install}")
    return pymysql


def read_server(keys: MySQLKeys, folder: Path) -> MySQLServer:
    """Check the keys, and read the files that they name.

    :param folder: the folder that relative paths start from.
    :raise ConfigError: for all mistakes together.
    """
    mistakes = Mistakes()
    address: Path | tuple[str, int] = ("", 0)
    password, tls = "", None
    with mistakes.gathered():
        address = _address(keys, folder)
    with mistakes.gathered():
        tls = _tls(keys, folder)
    with mistakes.gathered():
        password = _password(keys, folder)
    mistakes.raise_any()
    local = keys.host is None or is_local(keys.host)
    verified = local or (tls is not None and keys.verify_certificate)
    unverified_host = None if verified else keys.host
    return MySQLServer(address, keys.user, password, keys.database, tls, unverified_host)


def _address(keys: MySQLKeys, folder: Path) -> Path | tuple[str, int]:
    if (keys.host is None) == (keys.socket is None):
        raise ConfigError("mysql", "takes either host or socket")
    if keys.socket is not None:
        for key in ("port", "ca_file"):
            if getattr(keys, key) is not None:
                raise ConfigError(f"mysql.{key}", "it goes with host")
        if keys.tls:
            raise ConfigError("mysql.tls", "it goes with host: nothing leaves this machine")
        return folder / keys.socket
    assert keys.host is not None
    if keys.host.startswith("/"):
        raise ConfigError("mysql.host", "the path of a socket goes in socket")
    return keys.host, keys.port or 3306


def _tls(keys: MySQLKeys, folder: Path) -> ssl.SSLContext | None:
    if keys.host is None:
        return None
    local = is_local(keys.host)
    wanted = not local or keys.ca_file is not None if keys.tls is None else keys.tls
    if not wanted:
        if keys.ca_file is not None:
            raise ConfigError("mysql.ca_file", "it goes with tls")
        if not local and not keys.allow_plaintext:
            raise ConfigError(
                "mysql.tls",
                "the password and hashes would go there in the clear: set it to true, or set"
                " allow_plaintext",
            )
        return None
    trusted = None
    if keys.ca_file is not None:
        read = ReadFile.load("mysql.ca_file", folder / keys.ca_file, read_authorities)
        trusted = "".join(each.dumpPEM().decode("ascii") for each in read.value)
    context = ssl.create_default_context(cadata=trusted)
    # As for other backends: certificates name hosts in their alternative names alone, and those of
    # small authorities are accepted that lack what only Python 3.13 asks for.
    context.hostname_checks_common_name = False
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not keys.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _password(keys: MySQLKeys, folder: Path) -> str:
    if keys.password_file is None:
        return keys.password or ""
    if keys.password is not None:
        raise ConfigError("mysql.password_file", "there is a password already")
    path = folder / keys.password_file
    return ReadFile.load("mysql.password_file", path, read_password).value
