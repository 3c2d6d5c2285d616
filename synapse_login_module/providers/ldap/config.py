"""The configuration of the LDAP provider, checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from twisted.internet.ssl import Certificate

from synapse_login_module.config.files import ReadFile, read_password
from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict, config_path, validate
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.model import AccountStatus, fold
from synapse_login_module.outbound.tls import read_authorities
from synapse_login_module.providers.ldap.administrators import AdminGroup
from synapse_login_module.providers.ldap.connection import LDAPServer
from synapse_login_module.providers.ldap.directory import Settings
from synapse_login_module.providers.ldap.filters import PLACEHOLDER, equals, filled, parsed
from synapse_login_module.providers.ldap.localparts import ATTRIBUTE, Localpart, localpart_of
from synapse_login_module.providers.ldap.names import Template
from synapse_login_module.providers.ldap.tls import tls_for

_PORTS = {"ldap": 389, "ldaps": 636}
_DISTINGUISHED_NAME = re.compile(r"[A-Za-z0-9.-]+ *=")

_DISABLED = {"active_directory": "(userAccountControl:1.2.840.113556.1.4.803:=2)"}
_LOCKED = {
    "ppolicy": "(pwdAccountLockedTime=*)",
    # By an administrator; after too many wrong passwords, for good; and the same, for some time.
    "389ds": "(|(nsAccountLock=TRUE)(accountUnlockTime=19700101000000Z)(accountUnlockTime>={now}))",
}

_Attribute = Annotated[str, Field(pattern=ATTRIBUTE)]
_Domain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Text = Annotated[str, Field(min_length=1)]


class _Attributes(Strict):
    """The names of the attributes that are read."""

    uid: _Attribute = "uid"
    mail: _Attribute | None = "mail"
    name: _Attribute | None = "cn"
    phone: _Attribute | None = "mobile"
    subject: _Attribute | None = None


class _Keys(Strict):
    servers: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    start_tls: bool = True
    ca_file: FilePath | None = None
    verify_certificate: bool = True
    allow_plaintext: bool = False
    bind_dn_template: _Text | None = None
    bind_dn: _Text | None = None
    bind_password: _Text | None = Field(default=None, repr=False)
    bind_password_file: FilePath | None = None
    base: _Text | None = None
    domain: _Domain | None = None
    filter: str | None = None
    localpart: Any = None
    group_filter: str | None = None
    admin_group: _Text | None = None
    attributes: _Attributes = _Attributes()
    disabled_filter: str | None = None
    locked_filter: str | None = None
    connect_timeout: PositiveDuration = 3_000
    read_timeout: PositiveDuration = 5_000
    timeout: PositiveDuration = 10_000
    retry_after: PositiveDuration = 30_000
    connections: Annotated[int, Field(ge=1, le=1000)] = 8
    queue: Annotated[int, Field(ge=0, le=10_000)] = 64


@dataclass(frozen=True)
class LDAPConfig:
    """The checked configuration of :class:`LDAPProvider`.

    :param keys: the keys of the configuration.
    :param settings: the servers and how to connect to them.
    :param template: makes the distinguished name of a local part's entry; ``None`` if
        ``bind_dn_template`` is not configured or makes no distinguished name.
    :param localpart: makes the local part of a user ID from an entry.
    :param user_filter: finds the entry of the name that a user types, below ``base``; ``None`` if
        that name is the local part, or ``template`` makes the entry's name from it.
    :param group_filter: the filter that every account must match; ``None`` for no condition.
    :param statuses: the filters of accounts that are not active. The first that matches counts.
    :param admin_group: the group of server administrators; ``None`` for none.
    """

    keys: _Keys
    settings: Settings
    template: Template | None
    localpart: Localpart
    user_filter: Any
    group_filter: Any
    statuses: Sequence[tuple[AccountStatus, Any]]
    admin_group: AdminGroup | None

    @property
    def only_inside_synapse(self) -> Mapping[str, str]:
        """The keys that mean nothing elsewhere; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        if self.admin_group is None:
            return {}
        return {"admin_group": "it makes administrators of Synapse; see homeserver.config.admins"}

    @property
    def not_tried(self) -> Sequence[str]:
        """The directories, which were not connected to; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return [f"the directory at {each}" for each in self.keys.servers]


def parse(config: Mapping[str, Any], folder: Path) -> LDAPConfig:
    """Check a configuration.

    :param folder: the folder that relative paths start from.
    :raise ConfigError: for all mistakes together.
    """
    keys = validate(_Keys, config)
    mistakes = Mistakes()
    template, group_filter, user_filter, admin_group = None, None, None, None
    localpart: Any = None
    servers: Sequence[LDAPServer] = ()
    bind_password = ""
    with mistakes.gathered():
        localpart = _localpart(keys)
    with mistakes.gathered():
        template = _template(keys)
        _check_names(keys, template is not None)
        user_filter = _user_filter(keys)
    statuses = []
    for status, key, presets in (
        (AccountStatus.DEACTIVATED, "disabled_filter", _DISABLED),
        (AccountStatus.LOCKED, "locked_filter", _LOCKED),
    ):
        text = getattr(keys, key)
        if text is not None:
            with mistakes.gathered():
                statuses.append((status, _preset_or_filter(key, text, presets)))
    if keys.group_filter is not None:
        with mistakes.gathered():
            group_filter = _filter("group_filter", keys.group_filter)
    with mistakes.gathered():
        admin_group = _admin_group(keys)
    with mistakes.gathered():
        servers = _servers(keys, folder)
    with mistakes.gathered():
        bind_password = _bind_password(keys, folder)
    mistakes.raise_any()
    return LDAPConfig(
        keys,
        Settings(
            servers=servers,
            bind_dn=keys.bind_dn or "",
            bind_password=bind_password,
            connect_timeout=keys.connect_timeout / 1000,
            read_timeout=keys.read_timeout / 1000,
            retry_after=keys.retry_after / 1000,
            connections=keys.connections,
            queue=keys.queue,
        ),
        template,
        localpart,
        user_filter,
        group_filter,
        statuses,
        admin_group,
    )


def _template(keys: _Keys) -> Template | None:
    """Parse ``bind_dn_template``; return ``None`` if it makes no distinguished name, but another
    name that users bind by.
    """
    text = keys.bind_dn_template
    if text is None or _DISTINGUISHED_NAME.match(text) is None:
        return None
    try:
        return Template(text)
    except ValueError:
        raise ConfigError("bind_dn_template", "no distinguished name (RFC 4514)") from None


def _check_names(keys: _Keys, named: bool) -> None:
    """Check that entries can be found, and in one way only.

    :param named: whether ``bind_dn_template`` makes distinguished names.
    """
    if keys.base is None and keys.bind_dn_template is None:
        raise ConfigError("", "takes base, or bind_dn_template")
    if keys.bind_dn_template is not None and PLACEHOLDER not in keys.bind_dn_template:
        raise ConfigError("bind_dn_template", f"{PLACEHOLDER} is not in it")
    if keys.base is None and not named:
        raise ConfigError("base", "entries are searched below it, since the template is no DN")
    if keys.filter is not None and named:
        raise ConfigError("filter", "the template says which entry is meant; see group_filter")
    if keys.base is None and keys.attributes.subject is not None:
        raise ConfigError("base", "entries are searched below it by attributes.subject")
    if keys.timeout <= max(keys.connect_timeout, keys.read_timeout):
        raise ConfigError("timeout", "it must be longer than connect_timeout and read_timeout")


def _localpart(keys: _Keys) -> Localpart:
    """Check that accounts can be known by something else than the names that are made."""
    localpart = localpart_of(keys.localpart, keys.attributes.uid)
    if keys.localpart is None:
        return localpart
    if "uid" in keys.attributes.model_fields_set:
        raise ConfigError("localpart", "it takes the place of attributes.uid")
    if keys.base is None or keys.bind_dn_template is not None:
        raise ConfigError("localpart", "entries are searched for it below base, by no template")
    if fold(keys.attributes.subject or "") in map(fold, localpart.attributes):
        raise ConfigError(
            "attributes.subject", "localpart is made of it, and a name is given to others later"
        )
    return localpart


def _user_filter(keys: _Keys) -> Any:
    if keys.filter is None:
        return None
    user_filter = _filter("filter", keys.filter)
    if filled(user_filter, "a").toWire() == user_filter.toWire():
        raise ConfigError(
            "filter",
            f"{PLACEHOLDER} is no value in it; what every account matches goes in group_filter",
        )
    return user_filter


def _admin_group(keys: _Keys) -> AdminGroup | None:
    text = keys.admin_group
    if text is None:
        return None
    if keys.base is None:
        raise ConfigError("admin_group", "it needs base, below which members are found by their id")
    if keys.attributes.subject is not None and fold(keys.attributes.subject) in (
        fold(each or "") for each in (keys.attributes.uid, keys.attributes.mail)
    ):
        problem = "with admin_group, no name or address that is given to others later"
        raise ConfigError("attributes.subject", problem)
    if text.startswith("("):
        return AdminGroup(text, _filter("admin_group", text), None)
    try:
        Template(text)
    except ValueError:
        raise ConfigError(
            "admin_group", "neither a distinguished name nor a filter in brackets"
        ) from None
    return AdminGroup(text, equals("memberOf", text), text)


def _preset_or_filter(key: str, text: str, presets: Mapping[str, str]) -> Any:
    if not text.startswith("(") and text not in presets:
        known = ", ".join(presets)
        raise ConfigError(key, f"neither a filter in brackets nor one of: {known}")
    return _filter(key, presets.get(text, text))


def _filter(key: str, text: str) -> Any:
    try:
        return parsed(text)
    except ValueError:
        raise ConfigError(key, "not an LDAP filter (RFC 4515)") from None


def _bind_password(keys: _Keys, folder: Path) -> str:
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


def _servers(keys: _Keys, folder: Path) -> Sequence[LDAPServer]:
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


def _server(url: str, keys: _Keys, authorities: Sequence[Certificate] | None) -> LDAPServer:
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
    if not keys.allow_plaintext and not _is_loopback(host):
        raise ConfigError(
            "", "passwords would go there in the clear: set start_tls, or allow_plaintext"
        )
    return LDAPServer(url, host, port, None, start_tls=False)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
