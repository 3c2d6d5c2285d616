"""The diagnosis of an HTTP service that checks passwords. No login is posted to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model import AccountStatus, Finding
from synapse_login_module.model.findings import (
    NO_ACCOUNT,
    failed,
    good,
    has_failure,
    in_milliseconds,
    warning,
)
from synapse_login_module.outbound.examining import advice_on_connecting, in_words, of_tls
from synapse_login_module.outbound.http import BackendResponse
from synapse_login_module.outbound.url import is_in_the_clear
from synapse_login_module.providers.http.config import HTTPConfig
from synapse_login_module.providers.identifiers import with_tag

_OUTAGES = (502, 503, 504)
_TRUST = "ca_file"


class HTTPDiagnosis:
    """Examines the service.

    :param ask: sends a GET request with the headers of a login, but without a user.
    :param clock: the wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        config: HTTPConfig,
        ask: Callable[[str], Any],
        reactor: Any,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._ask = ask
        self._reactor = reactor
        self._clock = clock

    async def of_statuses(
        self, url: str, account_status: Callable[[str], Deferred[AccountStatus | None]]
    ) -> list[Finding]:
        """Examine a service that is asked for the status of accounts, by asking for one that does
        not exist.
        """
        findings = await self._of_tls(url)
        if has_failure(findings):
            return findings
        findings.append(await self._of_status_url(url, account_status))
        if self._config.keys.encoding == "basic":
            findings.append(await self._of_login_url())
        return findings

    async def _of_status_url(
        self, url: str, account_status: Callable[[str], Deferred[AccountStatus | None]]
    ) -> Finding:
        what = "status_url"
        by_id = self._config.answer.subject is not None
        began = time.perf_counter()
        try:
            status = await account_status(with_tag(NO_ACCOUNT) if by_id else NO_ACCOUNT)
        except ProviderUnavailable as error:
            text = in_words(error)
            return failed(f"{what} {_place(url)}", text, self._advice(text, what))
        took = in_milliseconds(time.perf_counter() - began)
        if status is None:
            return good(_place(url), f"answered about an unknown account in {took}")
        return warning(
            _place(url),
            f"it says that {NO_ACCOUNT} is {status.value}, and there is no such account",
            "have it answer unknown, or a code of unknown_user_codes: accounts that are removed"
            " keep their sessions otherwise",
        )

    async def of_logins(self) -> list[Finding]:
        """Examine a service that takes only logins, by a GET of its URL, which is no login."""
        findings = await self._of_tls(self._config.url)
        return findings if has_failure(findings) else [*findings, await self._of_login_url()]

    async def _of_login_url(self) -> Finding:
        url = self._config.url
        key = "endpoint" if self._config.keys.url is None else "url"
        began = time.perf_counter()
        try:
            answer: BackendResponse = await self._ask(url)
        except ProviderUnavailable as error:
            text = in_words(error)
            return failed(_place(url), text, self._advice(text, key))
        took = in_milliseconds(time.perf_counter() - began)
        return self._of_code(_place(url), answer.code, took)

    async def _of_tls(self, url: str) -> list[Finding]:
        if is_in_the_clear(url):
            found = f"passwords go unencrypted to {urlsplit(url).hostname}"
            return [warning("TLS", found, "use https")]
        seconds = self._config.keys.connect_timeout / 1000
        return await of_tls(url, self._config.tls, self._reactor, seconds, self._clock(), _TRUST)

    def _of_code(self, what: str, code: int, took: str) -> Finding:
        answered = f"answered {code} to a GET in {took}"
        if code in _OUTAGES:
            return failed(what, answered, "see the log of the service")
        if code >= 500:  # some services only take a POST there, and fail at anything else
            return warning(what, answered, "see the log of the service: does it take logins?")
        where = self._config.answer
        by_code = where.success is None and where.user_id is None
        if code < 300 and by_code and self._config.keys.encoding == "basic":
            found = f"answered {code} to a GET without a user: any password would be right"
            return failed(what, found, "correct url: it must need a user and a password")
        if code == 401 and self._config.keys.encoding == "basic":
            return good(what, f"{answered} without a user, as it should; a login was not tried")
        if code in (401, 403):
            advice = f"{self._correct_secret}, unless the service answers so to any GET"
            return warning(what, answered, advice)
        return good(what, f"{answered}; a login was not tried")

    def _advice(self, problem: str, key: str) -> str:
        if "answered 401" in problem or "answered 403" in problem:
            return self._correct_secret
        if "answered 404" in problem:
            return f"correct {key}, or list 404 in unknown_user_codes"
        if "answered 3" in problem:
            return f"correct {key}: it leads to another address, and redirects are not followed"
        if "answered 5" in problem:
            return "see the log of the service"
        return advice_on_connecting(problem, key)

    @property
    def _correct_secret(self) -> str:
        keys = self._config.keys
        if keys.headers_file is not None and keys.authorization_file is None:
            return "correct the headers in headers_file"
        return "correct the first line of authorization_file"


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
