"""The configuration of the LDAP provider, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synapse_login_module.config.validation import validate
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.model import AccountStatus, fold
from synapse_login_module.providers.ldap.administrators import AdminGroup
from synapse_login_module.providers.ldap.directory import Settings
from synapse_login_module.providers.ldap.filters import PLACEHOLDER, equals, filled, parsed
from synapse_login_module.providers.ldap.groups import KINDS, Groups
from synapse_login_module.providers.ldap.keys import Keys
from synapse_login_module.providers.ldap.localparts import Localpart, localpart_of
from synapse_login_module.providers.ldap.names import Template, is_distinguished_name
from synapse_login_module.providers.ldap.presets import DISABLED, LOCKED, Preset, with_defaults
from synapse_login_module.providers.ldap.reaching import settings_of
from synapse_login_module.providers.ldap.statuses import Condition

_ID = re.compile(r"<(GUID|SID)=[0-9A-Fa-fS-]+>")
_DISTINGUISHED_NAME = re.compile(r"[A-Za-z0-9.-]+ *=")


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
    :param groups: the groups of which every account must be in one; ``None`` for no condition.
    :param statuses: the conditions of accounts that are not active. The first one counts.
    :param admin_group: the group of server administrators; ``None`` for none.
    """

    keys: Keys
    settings: Settings
    template: Template | None
    localpart: Localpart
    user_filter: Any
    group_filter: Any
    groups: Groups | None
    statuses: Sequence[tuple[AccountStatus, Condition]]
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
    keys = validate(Keys, with_defaults(config))
    mistakes = Mistakes()
    template, user_filter, group_filter, groups, admin_group = (None,) * 5
    localpart: Any = None
    settings: Any = None
    with mistakes.gathered():
        localpart = _localpart(keys)
    with mistakes.gathered():
        template = _template(keys)
        _check_names(keys, template is not None)
        user_filter = _user_filter(keys)
    statuses = []
    for status, key, presets in (
        (AccountStatus.DEACTIVATED, "disabled_filter", DISABLED),
        (AccountStatus.LOCKED, "locked_filter", LOCKED),
    ):
        text = getattr(keys, key)
        if text is not None:
            with mistakes.gathered():
                statuses.append((status, _condition(key, text, presets)))
    if keys.group_filter is not None:
        with mistakes.gathered():
            group_filter = _filter("group_filter", keys.group_filter)
    with mistakes.gathered():
        groups = _groups(keys)
    with mistakes.gathered():
        admin_group = _admin_group(keys)
    with mistakes.gathered():
        settings = settings_of(keys, folder)
    mistakes.raise_any()
    return LDAPConfig(
        keys,
        settings,
        template,
        localpart,
        user_filter,
        group_filter,
        groups,
        statuses,
        admin_group,
    )


def _template(keys: Keys) -> Template | None:
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


def _check_names(keys: Keys, named: bool) -> None:
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


def _localpart(keys: Keys) -> Localpart:
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


def _user_filter(keys: Keys) -> Any:
    if keys.filter is None:
        return None
    user_filter = _filter("filter", keys.filter)
    if filled(user_filter, "a").toWire() == user_filter.toWire():
        raise ConfigError(
            "filter",
            f"{PLACEHOLDER} is no value in it; what every account matches goes in group_filter",
        )
    return user_filter


def _admin_group(keys: Keys) -> AdminGroup | None:
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


def _groups(keys: Keys) -> Groups | None:
    if keys.groups is None:
        if keys.group_type is not None:
            raise ConfigError("group_type", "it goes with groups")
        return None
    if keys.group_type is None:
        raise ConfigError("group_type", f"groups needs it: one of {', '.join(KINDS)}")
    for index, name in enumerate(keys.groups):
        is_id = keys.group_type == "active_directory" and _ID.fullmatch(name)
        is_name = _DISTINGUISHED_NAME.match(name) and is_distinguished_name(name)
        if not is_id and not is_name:
            raise ConfigError(f"groups.{index}", "no distinguished name (RFC 4514)")
    return Groups(keys.groups, keys.group_type, keys.attributes.uid)


def _condition(key: str, text: str, presets: Mapping[str, Preset]) -> Condition:
    if text in presets:
        preset = presets[text]
        return Condition(_filter(key, preset.filter), preset.attribute, preset.test)
    if not text.startswith("("):
        known = ", ".join(presets)
        raise ConfigError(key, f"neither a filter in brackets nor one of: {known}")
    return Condition(_filter(key, text))


def _filter(key: str, text: str) -> Any:
    try:
        return parsed(text)
    except ValueError:
        raise ConfigError(key, "not an LDAP filter (RFC 4515)") from None
