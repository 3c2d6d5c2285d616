"""Accounts of an HTTP service, which checks the passwords itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from zope.interface import implementer, provider

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable, UnusableAccount
from synapse_login_module.interfaces import IDiagnosable, IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Finding, Identifier, UserId, fold
from synapse_login_module.outbound.http import (
    BackendClient,
    BackendResponse,
    RequestLimits,
)
from synapse_login_module.outbound.url import is_in_the_clear
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.http.config import (
    REST_ANSWER,
    AnswerPaths,
    HTTPConfig,
    parse,
)
from synapse_login_module.providers.http.diagnosis import HTTPDiagnosis
from synapse_login_module.providers.http.templates import fill, fill_text, look_up
from synapse_login_module.providers.identifiers import (
    Named,
    id_in,
    kind_of,
    named,
    named_as_typed,
    names_of,
    names_of_subject,
    tagged_id,
    unchecked_status,
)

_STATUSES: Mapping[str, AccountStatus | None] = {
    "active": AccountStatus.ACTIVE,
    "locked": AccountStatus.LOCKED,
    "deactivated": AccountStatus.DEACTIVATED,
    "unknown": None,
}


class _Accepted(NamedTuple):
    """The service's response to a right password.

    :param given: the response's JSON; ``None`` if no value of it is used.
    :param who: the name of the account, and the user ID made from it.
    """

    given: Any
    who: Named


@implementer(IPasswordProvider, IDiagnosable)
@provider(IPluginClass)
class HTTPProvider(Service):
    """Has an HTTP service check passwords, by the REST password provider's protocol or by JSON of
    any shape.
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
        self._reactor = environment.reactor
        self._clock = environment.clock
        connect_timeout = ceil(keys.connect_timeout / 1000)
        limits = RequestLimits(connect_timeout, keys.timeout / 1000, keys.connections)
        # Two clients, so that logins that hang do not delay looks at accounts.
        self._for_logins = BackendClient(environment.reactor, config.tls, limits)
        self._for_statuses = BackendClient(environment.reactor, config.tls, limits)
        secret = config.secret
        self._secret = None if secret is None else secret.watch(environment.reactor)
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
            return await self._ask(self._for_statuses, "GET", url, None)

        diagnosis = HTTPDiagnosis(self._config, ask, self._reactor, self._clock)
        status_url = keys.status_url
        if status_url is None:
            return Deferred.fromCoroutine(diagnosis.of_logins())
        return Deferred.fromCoroutine(diagnosis.of_statuses(status_url, self.account_status))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        request = self._config.requests.get(kind_of(identifier))
        names = names_of(identifier, self._server_name)
        if request is None or names is None:
            return None
        try:
            accepted = await self._check(request, names, password)
            if accepted is not None and _may_be_repeated(accepted.who, names, self._server_name):
                accepted = await self._settle(request, names, password, accepted)
            return None if accepted is None else self._account(accepted)
        except InvalidCredentials:
            # Take as long as for an unknown user, for whom the provider chain hashes a decoy.
            if self._config.keys.unknown_user_codes:
                await self._hashing.decoy(password)
            raise

    async def _check(
        self, request: Mapping[str, Any], names: Mapping[str, str], password: str
    ) -> _Accepted | None:
        """Post a login; return ``None`` when the service does not know the user.

        :raise InvalidCredentials: when the service rejects the password.
        """
        body = json.dumps(fill(request, {**names, "password": password})).encode("ascii")
        answer = await self._ask(self._for_logins, "POST", self._config.url, body)
        if answer.code in self._config.keys.unknown_user_codes:
            return None
        if answer.code in self._config.keys.reject_codes:
            raise InvalidCredentials
        where = self._config.answer
        _check_code(answer)
        given = None if where == AnswerPaths() else _json_of(answer)
        if where.success is not None:
            success = look_up(given, where.success)
            if not isinstance(success, bool):
                raise ProviderUnavailable(f"{where.success} is neither true nor false")
            if not success:
                raise InvalidCredentials
        return _Accepted(given, self._who(given, names))

    async def _settle(
        self,
        request: Mapping[str, Any],
        names: Mapping[str, str],
        password: str,
        first: _Accepted,
    ) -> _Accepted:
        """Find out whether the service spells a name with capitals, or repeats what was typed.

        The login is posted again with the name in lower case. A service that repeats what was typed
        then returns the name in lower case too.

        :param first: the response to the name as it was typed.
        :return: the response whose spelling of the name is the account's.
        """
        localpart = fold(names["localpart"])
        low = {"user_id": str(UserId(localpart, self._server_name)), "localpart": localpart}
        try:
            again = await self._check(request, low, password)
        except InvalidCredentials:
            return first
        if again is None or again.who.spelled(self._server_name) != low["user_id"]:
            return first
        return again

    def _who(self, given: object, asked: Mapping[str, str]) -> Named:
        """Read the account's name in the response, or use the name that was asked for."""
        where = self._config.answer
        name = None if where.user_id is None else look_up(given, where.user_id)
        # The REST password provider ignores the user ID, and some services leave it out.
        if where.user_id is None or (name is None and where is REST_ANSWER):
            return named_as_typed(asked["localpart"], self._server_name)
        who = named(name, self._server_name)
        if who is None:
            raise UnusableAccount(f"{where.user_id} is no user ID of this server")
        spelled = who.spelled(self._server_name)
        if where is REST_ANSWER and fold(spelled) == fold(asked["user_id"]):
            # Most services repeat the name that they were asked for, whatever their own spelling.
            return named_as_typed(asked["localpart"], self._server_name)
        return who

    def _account(self, accepted: _Accepted) -> Account:
        where = self._config.answer
        given, who = accepted
        subject = who.name
        if where.subject is not None:
            found = tagged_id(look_up(given, where.subject))
            if found is None:
                raise UnusableAccount(f"{where.subject} is no id (text or a number)")
            subject = found
        status = None
        if where.status is not None and look_up(given, where.status) is not None:
            status = self._status_at(where.status, given)
        display_name = None if where.display_name is None else look_up(given, where.display_name)
        if not isinstance(display_name, str | None):
            raise UnusableAccount(f"{where.display_name} is not text")
        emails = () if where.emails is None else _texts(where.emails, look_up(given, where.emails))
        if where.three_pids is not None:
            emails += _emails(where.three_pids, look_up(given, where.three_pids))
        user_id = who.require_user_id(self.log, self.name)
        return Account(user_id, display_name or None, emails, status=status, subject=subject)

    async def _account_status(
        self, status_url: str, values: Mapping[str, str]
    ) -> AccountStatus | None:
        url = fill_text(status_url, values, lambda value: quote(value, safe=""))
        answer = await self._ask(self._for_statuses, "GET", url, None)
        if answer.code in self._config.keys.unknown_user_codes:
            return None
        return self._status_at(self._config.keys.status_path, _json_of(answer))

    @staticmethod
    def _status_at(path: str, given: object) -> AccountStatus | None:
        status = look_up(given, path)
        if not isinstance(status, str) or status not in _STATUSES:
            known = ", ".join(_STATUSES)
            raise UnusableAccount(f"{path} is none of {known}")
        return _STATUSES[status]

    async def _ask(
        self, client: BackendClient, method: str, url: str, body: bytes | None
    ) -> BackendResponse:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._secret is not None:
            headers["Authorization"] = await self._secret.current()
        return await client.request(method, url, headers, body)


def _may_be_repeated(who: Named, asked: Mapping[str, str], server_name: str) -> bool:
    """Say whether the account's name has capitals and is exactly the name that was typed."""
    localpart = asked.get("localpart", "")
    return fold(localpart) != localpart and who.spelled(server_name) == asked["user_id"]


def _check_code(answer: BackendResponse) -> None:
    if not 200 <= answer.code <= 299:
        raise ProviderUnavailable(f"the service answered {answer.code}")


def _json_of(answer: BackendResponse) -> Any:
    _check_code(answer)
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise ProviderUnavailable("the service's answer is not JSON") from None


def _texts(path: str, given: object) -> tuple[str, ...]:
    """Read one text, or a list of texts."""
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UnusableAccount(f"{path} is neither text nor a list of texts")
    return tuple(texts)


def _emails(path: str, given: object) -> tuple[str, ...]:
    """Read the e-mail addresses among the protocol's third-party identifiers."""
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise UnusableAccount(f"{path} is no list of objects")
    found = [each.get("address") for each in given if each.get("medium") == "email"]
    return _texts(f"{path}.address", found)
