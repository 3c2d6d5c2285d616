"""The keys of the LDAP provider's configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict
from synapse_login_module.providers.ldap.localparts import ATTRIBUTE

_Attribute = Annotated[str, Field(pattern=ATTRIBUTE)]
_Domain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Text = Annotated[str, Field(min_length=1)]


class Attributes(Strict):
    """The names of the attributes that are read."""

    uid: _Attribute = "uid"
    mail: _Attribute | None = "mail"
    name: _Attribute | None = "cn"
    phone: _Attribute | None = "mobile"
    subject: _Attribute | None = None


class Keys(Strict):
    """The keys of the configuration, as they are given."""

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
    directory: Literal["active_directory", "openldap", "389ds", "freeipa", "shadow"] | None = None
    filter: str | None = None
    localpart: Any = None
    group_filter: str | None = None
    groups: Annotated[tuple[_Text, ...], Field(strict=False, min_length=1)] | None = None
    group_type: Literal["posix", "names", "active_directory"] | None = None
    admin_group: _Text | None = None
    attributes: Attributes = Attributes()
    disabled_filter: str | None = None
    locked_filter: str | None = None
    connect_timeout: PositiveDuration = 3_000
    read_timeout: PositiveDuration = 5_000
    timeout: PositiveDuration = 10_000
    retry_after: PositiveDuration = 30_000
    connections: Annotated[int, Field(ge=1, le=1000)] = 8
    queue: Annotated[int, Field(ge=0, le=10_000)] = 64
