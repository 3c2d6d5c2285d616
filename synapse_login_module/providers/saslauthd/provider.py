"""Accounts whose passwords saslauthd checks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer, provider

from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.errors import ConfigError, InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IDiagnosable, IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Finding, Identifier
from synapse_login_module.model.findings import (
    NO_ACCOUNT,
    failed,
    good,
    in_milliseconds,
    on_one_line,
    warning,
)
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.even_time import EvenTime
from synapse_login_module.providers.identifiers import (
    kind_of,
    named_as_typed,
    names_of,
    unchecked_status,
)
from synapse_login_module.providers.saslauthd.client import SaslauthdClient
from synapse_login_module.providers.saslauthd.wire import MAX_STRING, Verdict, can_be_asked

_ADVICE: Mapping[str, str] = {
    "No such file": "start saslauthd, or correct socket",
    "Permission denied": "add this process to the group sasl, which may enter the socket's folder",
    "Connection refused": "start saslauthd: the socket is left from one that has ended",
}


_MAX_PATH = 107
"""The longest path of a Unix socket on Linux (``sun_path``). Twisted would wait for the timeout."""


class _Keys(Strict):
    socket: FilePath = "/run/saslauthd/mux"
    service: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")] = "synapse-login"
    realm: Annotated[str, Field(pattern=r"^\S*$", max_length=MAX_STRING)] = ""
    unknown: Literal["reject", "next"] = "reject"
    timeout: PositiveDuration = 10_000
    connections: Annotated[int, Field(ge=1, le=1000)] = 16
    failure_time: PositiveDuration = 1_000


@dataclass(frozen=True)
class SaslauthdConfig:
    """The checked configuration of :class:`SaslauthdProvider`.

    :param keys: the keys of the configuration.
    :param path: the path of the socket.
    """

    keys: _Keys
    path: Path

    @property
    def not_tried(self) -> Sequence[str]:
        """The socket, which was not connected to; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return [f"saslauthd at {self.path}"]


@implementer(IPasswordProvider, IDiagnosable)
@provider(IPluginClass)
class SaslauthdProvider:
    """Has saslauthd check passwords.

    saslauthd needs the privileges, and this process needs none. It only says whether a name and a
    password belong together. So an unknown user is not told from a wrong password, and no account
    can be looked at without a password.
    """

    name = "saslauthd"
    verifiable = False

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> SaslauthdConfig:
        """Check the ``config:`` block; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        keys = validate(_Keys, config)
        if keys.failure_time >= keys.timeout:
            raise ConfigError("failure_time", "it must be shorter than timeout")
        path = folder / keys.socket
        if len(os.fsencode(path)) > _MAX_PATH:
            raise ConfigError("socket", f"it is longer than {_MAX_PATH} bytes, which no socket is")
        return SaslauthdConfig(keys, path)

    def __init__(self, config: SaslauthdConfig, environment: Environment) -> None:
        keys = config.keys
        self._config = config
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        self._client = SaslauthdClient(
            environment.reactor, str(config.path), keys.timeout / 1000, keys.connections
        )
        self._even_time = EvenTime(environment.reactor, self.name, keys.failure_time / 1000)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Fire with ``UNVERIFIABLE``, or with ``None`` if no account of this server is meant."""
        return succeed(unchecked_status(subject, self._server_name))

    def diagnose(self) -> Deferred[list[Finding]]:
        """Ask about a user who does not exist; see
        :class:`~synapse_login_module.interfaces.IDiagnosable`.
        """
        return Deferred.fromCoroutine(self._diagnose())

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        names = names_of(identifier, self._server_name)
        if kind_of(identifier) != "user" or names is None:
            return None
        given = password.encode("utf-8", "surrogatepass")
        who = named_as_typed(names["localpart"], self._server_name)
        # In lower case, as the user ID has it. Two users whose names differ in case alone would
        # otherwise be one account.
        asked = who.name.encode("utf-8", "surrogatepass")
        began = self._even_time.now()
        verdict = Verdict.REFUSED
        if who.user_id is not None and can_be_asked(asked) and can_be_asked(given):
            verdict = await self._ask(asked, given)
        if who.user_id is not None and verdict is not Verdict.REFUSED:
            is_locked = verdict is Verdict.REFUSED_ACCOUNT
            status = AccountStatus.LOCKED if is_locked else None
            return Account(who.user_id, status=status, subject=who.name)
        await self._even_time.wait(began)
        if self._config.keys.unknown == "next":
            return None
        await self._hashing.decoy(password)
        raise InvalidCredentials

    def _ask(self, user: bytes, password: bytes) -> Deferred[Verdict]:
        keys = self._config.keys
        return self._client.ask(user, password, keys.service.encode(), keys.realm.encode())

    async def _diagnose(self) -> list[Finding]:
        what = str(self._config.path)
        began = time.perf_counter()
        try:
            verdict = await self._ask(NO_ACCOUNT.encode(), b"x")
        except ProviderUnavailable as error:
            text = on_one_line(error)
            known = (advice for words, advice in _ADVICE.items() if words in text)
            return [failed(what, text, next(known, "see the log of saslauthd"))]
        took = time.perf_counter() - began
        if verdict is not Verdict.REFUSED:
            found = "it accepts any password, even for a user who does not exist"
            return [failed(what, found, "correct saslauthd's mechanism, or its PAM service")]
        found = f"refused an unknown user in {in_milliseconds(took)}"
        if took * 1000 >= self._config.keys.failure_time:
            advice = "raise failure_time above that, or add nodelay to pam_unix.so"
            return [warning(what, found, advice)]
        return [good(what, found)]
