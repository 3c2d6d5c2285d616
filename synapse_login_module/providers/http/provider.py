"""Accounts of an HTTP service, which checks the passwords itself."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from zope.interface import implementer, provider

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.interfaces import IDiagnosable, IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Finding, Identifier, UserId, fold
from synapse_login_module.outbound.http import (
    BackendClient,
    BackendResponse,
    RequestLimits,
)
from synapse_login_module.outbound.url import is_in_the_clear
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.http.answers import Accepted, Answers
from synapse_login_module.providers.http.config import (
    HTTPConfig,
    parse,
)
from synapse_login_module.providers.http.diagnosis import HTTPDiagnosis
from synapse_login_module.providers.http.requests import Requests
from synapse_login_module.providers.identifiers import (
    Named,
    id_in,
    kind_of,
    names_of,
    names_of_subject,
    unchecked_status,
)


@implementer(IPasswordProvider, IDiagnosable)
@provider(IPluginClass)
class HTTPProvider(Service):
    """Has an HTTP service check passwords: by the REST password provider's protocol, by JSON or a
    form of any shape, or by Basic authentication.
    """

    log = Logger()
    name = "http"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> HTTPConfig:
        """Check ``endpoint``, or ``url`` and the shapes of request and response; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return parse(config, folder)

    def __init__(self, config: HTTPConfig, environment: Environment) -> None:
        keys = config.keys
        self._config = config
        self.verifiable = keys.status_url is not None
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        self._one_time_codes = environment.one_time_codes
        self._reactor = environment.reactor
        self._clock = environment.clock
        connect_timeout = ceil(keys.connect_timeout / 1000)
        limits = RequestLimits(connect_timeout, keys.timeout / 1000, keys.connections)
        # Two clients, so that logins that hang do not delay looks at accounts.
        self._for_logins = BackendClient(environment.reactor, config.tls, limits)
        self._for_statuses = BackendClient(environment.reactor, config.tls, limits)
        self._answers = Answers(config, environment.server_name)
        self._requests = Requests(config.requests, environment.reactor)
        for url in (config.url, keys.status_url):
            if url is not None and is_in_the_clear(url):
                self.log.warn(
                    "{name}: passwords go unencrypted to {host}",
                    name=self.name,
                    host=urlsplit(url).hostname,
                )

    def stopService(self) -> Deferred[Any]:
        """Close the persistent connections."""
        super().stopService()
        return gatherResults([self._for_logins.close(), self._for_statuses.close()])

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IPasswordProvider`.

        Without a ``status_url`` every account is ``UNVERIFIABLE``. So is an account that is known
        by its name, if the service has ids for its accounts.
        """
        status_url = self._config.keys.status_url
        by_id = self._config.answer.subject is not None
        account_id = id_in(subject)
        if status_url is None or (by_id and account_id is None):
            return succeed(unchecked_status(subject, self._server_name))
        values: Mapping[str, str] | None
        if by_id and account_id is not None:
            values = {"subject": account_id}
        else:
            values = names_of_subject(subject, self._server_name)
        if values is None or {".", ".."} & set(values.values()):
            return succeed(None)
        return Deferred.fromCoroutine(self._account_status(status_url, values))

    def diagnose(self) -> Deferred[list[Finding]]:
        """Examine the service; see :class:`~synapse_login_module.interfaces.IDiagnosable`."""
        keys = self._config.keys

        async def ask(url: str) -> BackendResponse:
            return await self._for_statuses.request(*await self._requests.without_user(url))

        diagnosis = HTTPDiagnosis(self._config, ask, self._reactor, self._clock)
        status_url = keys.status_url
        if status_url is None:
            return Deferred.fromCoroutine(diagnosis.of_logins())
        return Deferred.fromCoroutine(diagnosis.of_statuses(status_url, self.account_status))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        template = self._config.templates.get(kind_of(identifier))
        names = names_of(identifier, self._server_name)
        if template is None or names is None:
            return None
        try:
            accepted = await self._check(template, names, password)
            if (
                accepted is not None
                and not self._one_time_codes
                and _may_be_repeated(accepted.who, names, self._server_name)
            ):
                accepted = await self._settle(template, names, password, accepted)
            if accepted is None:
                return None
            user_id = accepted.who.require_user_id(self.log, self.name)
            return self._answers.account(accepted, user_id)
        except InvalidCredentials:
            # Take as long as for an unknown user, for whom the provider chain hashes a decoy.
            if self._config.keys.unknown_user_codes:
                await self._hashing.decoy(password)
            raise

    async def _check(
        self, template: Mapping[str, Any], names: Mapping[str, str], password: str
    ) -> Accepted | None:
        """Send a login; return ``None`` when the service does not know the user.

        :raise InvalidCredentials: when the service rejects the password.
        """
        request = await self._requests.of_login(template, names, password)
        if request is None:
            return None
        answer = await self._for_logins.request(*request, may_repeat=not self._one_time_codes)
        if answer.code in self._config.keys.unknown_user_codes:
            return None
        if answer.code in self._config.keys.reject_codes and self._answers.rejects(answer):
            raise InvalidCredentials
        return self._answers.of_login(answer, names)

    async def _settle(
        self,
        template: Mapping[str, Any],
        names: Mapping[str, str],
        password: str,
        first: Accepted,
    ) -> Accepted:
        """Find out whether the service spells a name with capitals, or repeats what was typed.

        The login is sent again with the name in lower case. A service that repeats what was typed
        then returns the name in lower case too. A one-time code cannot be sent again: then the name
        counts as the service spells it, since Alice and alice may be two accounts there.

        :param first: the response to the name as it was typed.
        :return: the response whose spelling of the name is the account's.
        """
        localpart = fold(names["localpart"])
        low = {"user_id": str(UserId(localpart, self._server_name)), "localpart": localpart}
        try:
            again = await self._check(template, low, password)
        except InvalidCredentials:
            return first
        if again is None or again.who.spelled(self._server_name) != low["user_id"]:
            return first
        return again

    async def _account_status(
        self, status_url: str, values: Mapping[str, str]
    ) -> AccountStatus | None:
        request = await self._requests.of_get(status_url, values)
        answer = await self._for_statuses.request(*request)
        if answer.code in self._config.keys.unknown_user_codes:
            return None
        return self._answers.status(answer)


def _may_be_repeated(who: Named, asked: Mapping[str, str], server_name: str) -> bool:
    """Say whether the account's name has capitals and is exactly the name that was typed."""
    localpart = asked.get("localpart", "")
    return fold(localpart) != localpart and who.spelled(server_name) == asked["user_id"]
