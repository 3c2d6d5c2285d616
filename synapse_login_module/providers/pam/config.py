"""The configuration of the PAM provider, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import Strict, validate
from synapse_login_module.errors import Mistakes
from synapse_login_module.providers.pam.libpam import LibPAM
from synapse_login_module.providers.pam.users import UnixUsers

_Group = Annotated[str, Field(pattern=r"^[^\s:,]+$")]


class _Keys(Strict):
    service: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")] = "synapse-login"
    nss: bool = True
    min_uid: Annotated[int, Field(ge=1)] = 1000
    groups: Annotated[tuple[_Group, ...], Field(strict=False)] = ()
    subject: Literal["both", "uid", "name"] = "both"
    unknown: Literal["reject", "next"] = "reject"
    account_checks: bool | None = None
    threads: Annotated[int, Field(ge=1, le=256)] = 4
    queue: Annotated[int, Field(ge=0, le=10_000)] = 64
    timeout: PositiveDuration = 10_000
    failure_time: PositiveDuration = 1_000


_OF_NSS = ("min_uid", "groups", "subject")
"""The keys that have no meaning without the name service."""


@dataclass(frozen=True)
class PAMConfig:
    """The checked configuration of :class:`PAMProvider`.

    :param keys: the keys of the configuration.
    :param pam: the calls of the library.
    :param users: the users that may be accounts; ``None`` where the name service is not asked.
    :param account_checks: whether accounts are looked at with ``pam_acct_mgmt``.
    """

    keys: _Keys
    pam: LibPAM
    users: UnixUsers | None
    account_checks: bool

    @property
    def not_tried(self) -> Sequence[str]:
        """The service, which was not asked; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return [f"the PAM service {self.keys.service}"]


def parse(config: Mapping[str, Any]) -> PAMConfig:
    """Check a configuration, and load libpam.

    :raise ConfigError: for all mistakes together.
    """
    keys = validate(_Keys, config)
    mistakes = Mistakes()
    for key in _OF_NSS:
        if not keys.nss and key in keys.model_fields_set:
            mistakes.add(key, "it needs the name service, which nss: false leaves out")
    if keys.nss and "unknown" in keys.model_fields_set:
        mistakes.add("unknown", "it goes with nss: false: the name service tells who is unknown")
    if keys.failure_time >= keys.timeout:
        mistakes.add("failure_time", "it must be shorter than timeout")
    mistakes.raise_any()
    checks = keys.nss if keys.account_checks is None else keys.account_checks
    users = UnixUsers(keys.min_uid, keys.groups) if keys.nss else None
    return PAMConfig(keys, LibPAM(keys.service), users, checks)
