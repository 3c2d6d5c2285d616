"""Faults on purpose. This module is loaded by the Synapse under test, never by the tests.

A file says what goes wrong; it is read at each request:

``unavailable``
    the provider cannot be reached, at logins and at refreshes alike.
``hang``
    the provider never answers; its deadline is made short.
``slow``
    the provider takes a moment, and then has nothing to say.
``crash``
    the provider has a bug.
``kill in transaction``
    Synapse is killed inside the transaction of a strict refresh, when all is written.
``kill after commit``
    Synapse is killed after that transaction, before the answer.
``kill before issue``
    Synapse is killed within a login, when the device and its tokens are made, before what earlier
    sessions the device had are ended.
``kill before telling``
    Synapse is killed when sessions have ended, before modules are told.
``kill before registration``, ``kill before confirmation``
    Synapse is killed within a first login: when the name is held and the account not yet made, or
    when the account is made and the link does not count yet.

What the provider is asked is logged.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer, provider

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.tables import TokenRows
from tests.synapse import whole_log  # noqa: F401

_MOMENT = 0.1


@implementer(IPasswordProvider)
@provider(IPluginClass)
class FaultyProvider:
    """A provider that knows no account, and fails on demand."""

    log = Logger()
    name = "faulty"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        return Path(config["path"])

    def __init__(self, config: Path, environment: Environment) -> None:
        self._path = config
        _arm(config)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        self.log.debug("asked for a password")
        return self._ask()

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        return self._ask()

    def _ask(self) -> Deferred[Any]:
        fault = self._path.read_text()
        if fault == "unavailable":
            return fail(ProviderUnavailable("told to be"))
        if fault == "hang":
            return Deferred()
        if fault == "slow":
            slow: Any = deferLater
            waiting: Deferred[Any] = slow(reactor, _MOMENT, lambda: None)
            return waiting
        if fault == "crash":
            raise ZeroDivisionError("a bug of the provider")
        return succeed(None)


def _arm(path: Path) -> None:
    """Put the deaths in place."""
    rotate: Any = TokenRows.rotate_strictly
    transaction: Any = Homeserver.transaction

    def rotate_and_die(self: TokenRows, *arguments: Any) -> Any:
        result = rotate(self, *arguments)
        if path.read_text() == "kill in transaction":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    async def commit_and_die(self: Homeserver, name: str, work: Any, *more: Any) -> Any:
        if name == "synapse_login_issue" and path.read_text() == "kill before issue":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "synapse_login_confirm" and path.read_text() == "kill before confirmation":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await transaction(self, name, work, *more)
        if name == "synapse_login_end" and path.read_text() == "kill before telling":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "synapse_login_decide" and path.read_text() == "kill before registration":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "synapse_login_refresh" and path.read_text() == "kill after commit":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    patched: Any = TokenRows, Homeserver
    patched[0].rotate_strictly = rotate_and_die
    patched[1].transaction = commit_and_die
