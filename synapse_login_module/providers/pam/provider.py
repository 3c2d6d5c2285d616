"""Unix accounts, whose passwords PAM checks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import alsoProvides, implementer, provider

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.interfaces import IDiagnosable, IFindsAccounts, IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Finding, Identifier, fold
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.even_time import EvenTime
from synapse_login_module.providers.identifiers import (
    Named,
    id_in,
    kind_of,
    named,
    named_as_typed,
    names_of,
    names_of_subject,
    unchecked_status,
)
from synapse_login_module.providers.pam.accounts import Answer, UnixAccounts
from synapse_login_module.providers.pam.calls import Calls
from synapse_login_module.providers.pam.codes import Code, Password, name_of
from synapse_login_module.providers.pam.config import PAMConfig, parse
from synapse_login_module.providers.pam.diagnosis import examine
from synapse_login_module.providers.pam.nss import UnixUser
from synapse_login_module.providers.pam.users import subject_of


@implementer(IPasswordProvider, IDiagnosable)
@provider(IPluginClass)
class PAMProvider(Service):
    """Has PAM check passwords, and the system's name service say whose they are.

    All calls are made on threads of their own: one set for logins and one for looks at accounts, so
    that logins that hang do not delay looks. A module's failure delay is not waited for on a
    thread. Instead, each refusal takes the same time, which the reactor waits for.
    """

    log = Logger()
    name = "pam"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> PAMConfig:
        """Check the ``config:`` block, and load libpam; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return parse(config)

    def __init__(self, config: PAMConfig, environment: Environment) -> None:
        keys = config.keys
        self._config = config
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        self.verifiable = keys.nss or config.account_checks
        self._accounts = UnixAccounts(config.pam, config.users, config.account_checks)
        if keys.nss:
            alsoProvides(self, IFindsAccounts)

        common = (environment.reactor, self.name, keys.threads, keys.queue, keys.timeout / 1000)
        self._for_logins = Calls(*common, hashes=True)
        self._for_statuses = Calls(*common)
        self._even_time = EvenTime(environment.reactor, self.name, keys.failure_time / 1000)

    def startService(self) -> None:
        """Start the threads."""
        super().startService()
        self._for_logins.start()
        self._for_statuses.start()

    def stopService(self) -> None:
        """End the threads."""
        super().stopService()
        self._for_logins.stop()
        self._for_statuses.stop()

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        if not self.verifiable:
            return succeed(unchecked_status(subject, self._server_name))
        name = None
        if id_in(subject) is None:
            names = names_of_subject(subject, self._server_name)
            if names is None:
                return succeed(None)
            name = names["localpart"]
        return self._for_statuses.make(partial(self._accounts.status, subject, name))

    def find(self, identifier: Identifier) -> Deferred[Account | None]:
        """Find an account; see :class:`~synapse_login_module.interfaces.IFindsAccounts`."""
        return Deferred.fromCoroutine(self._find(identifier))

    def diagnose(self) -> Deferred[list[Finding]]:
        """Examine the service; see :class:`~synapse_login_module.interfaces.IDiagnosable`."""
        return self._for_statuses.make(partial(examine, self._config, self._accounts))

    async def _find(self, identifier: Identifier) -> Account | None:
        typed = self._typed(identifier)
        if typed is None:
            return None
        user, status = await self._for_statuses.make(partial(self._look, typed))
        who = None if user is None else named(user.name, self._server_name)
        if user is None or who is None or who.user_id is None:
            return None
        return self._account(who.user_id, user, user.name, status)

    def _look(self, typed: str) -> tuple[UnixUser | None, AccountStatus | None]:
        """Find a user and look at its account; called on a thread."""
        user = self._accounts.find(typed)
        return user, None if user is None else self._accounts.status_of_user(user)

    def _typed(self, identifier: Identifier) -> str | None:
        """Return the name that was typed; ``None`` if it cannot be a user of this server."""
        names = names_of(identifier, self._server_name)
        return None if names is None or kind_of(identifier) != "user" else names["localpart"]

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        typed = self._typed(identifier)
        if typed is None:
            return None
        work = partial(self._log_in, typed, password)
        answer, began = await self._for_logins.make(work, owner=fold(typed))
        if answer.verdict is Password.ACCEPTED:
            who = self._who(answer)
            user_id = who.require_user_id(self.log, self.name)
            if answer.status is None:
                return None
            return self._account(user_id, answer.user, who.name, answer.status)
        await self._even_time.wait(began)
        if answer.verdict is Password.UNKNOWN_USER or self._config.keys.unknown == "next":
            return None
        # Take as long as for an unknown user, for whom the provider chain hashes a decoy.
        await self._hashing.decoy(password)
        reason = "wrong_password" if answer.code == Code.AUTH_ERR else name_of(answer.code).lower()
        raise InvalidCredentials(reason, self._who(answer).user_id)

    def _log_in(self, typed: str, password: str) -> tuple[Answer, float]:
        """Check a password; called on a thread."""
        began = self._even_time.now()
        return self._accounts.log_in(typed, password), began

    def _who(self, answer: Answer) -> Named:
        """Tell whose account it is."""
        if answer.user is None:
            return named_as_typed(answer.name, self._server_name)
        return named(answer.name, self._server_name) or Named(answer.name, None)

    def _account(
        self, user_id: str, user: UnixUser | None, name: str, status: AccountStatus | None
    ) -> Account:
        """Make the account of a user.

        :param user: the user of the system; ``None`` where the name service is not asked.
        :param name: the name of the account.
        """
        if user is None:
            return Account(user_id, status=status, subject=name)
        subject = subject_of(user, self._config.keys.subject)
        return Account(user_id, user.full_name, status=status, subject=subject)
