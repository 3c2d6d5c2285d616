"""Walks through a login with the objects that a server answers logins with."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.interfaces import IReactorTime

from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.audit import AuditLog
from synapse_login_module.config.settings import SharedConfig
from synapse_login_module.errors import AccountNotLinked
from synapse_login_module.homeservers.host import Issue, NoHomeserver
from synapse_login_module.interfaces import IAccounts, IRateLimits
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.login import LoginService
from synapse_login_module.model import (
    Account,
    Client,
    EmailIdentifier,
    Login,
    LoginRequest,
    PasswordLogin,
    PhoneIdentifier,
    TokenPair,
    localpart_from,
)
from synapse_login_module.rehearsal.limits import UNKNOWN_NETWORK, ReadLimits
from synapse_login_module.rehearsal.steps import Trace, tell_refused_link
from synapse_login_module.rehearsal.verdict import Verdict, failed
from synapse_login_module.web import requests
from synapse_login_module.web.client import client_at
from synapse_login_module.web.responses import ErrorResponse

Begin = Callable[[Account], Awaitable[str]]
"""Decides on an account whose password was right, up to the session; returns the user ID of that.
Raises what a login raises."""


@dataclass(frozen=True)
class Rehearsal:
    """The parts of a server, for a login that is not made.

    :param server_name: the server name of the user IDs.
    :param config: the rate limits count.
    :param accounts: check the password. Their providers add steps to ``trace``.
    :param begin: what comes after the password.
    :param counts: the counts of attempts that all servers share; ``None`` where each server has its
        own in its memory.
    :param reactor: the reactor.
    :param trace: receives the steps.
    """

    server_name: str
    config: SharedConfig
    accounts: IAccounts
    begin: Begin
    counts: IRateLimits | None
    reactor: IReactorTime
    trace: Trace

    async def walk(self, body: Mapping[str, Any], address: str) -> Verdict:
        """Walk through one login.

        :param body: the body of ``POST /login`` that a client would send.
        :param address: the client's address; empty if it is not known.
        """
        try:
            request = requests.login(body, self.server_name)
        except ErrorResponse as error:
            return failed(error)
        assert isinstance(request.credentials, PasswordLogin)
        _tell_name(self.trace, request.credentials, self.server_name)
        client = client_at(address)
        self._tell_unseen_limits(client)
        counts = self.counts and ReadLimits(self.counts, self.trace)
        verdict = await self._log_in(request, client, counts)
        if verdict.status == HTTPStatus.TOO_MANY_REQUESTS and not self.trace.has("provider"):
            self.trace.add("limit", "once it is no longer reached, the login goes on like this:")
            later = await self._log_in(request, client, None)
            if not later.succeeds:
                return verdict._replace(reason=f"{verdict.reason}; after that {later.reason}")
        return verdict

    async def _log_in(
        self, request: LoginRequest, client: Client, counts: IRateLimits | None
    ) -> Verdict:
        """Log in without a session.

        :param counts: the counts of attempts; ``None`` for no limits.
        """
        limits = LoginLimits(*self.config.rate_limits.rates(), time.monotonic, shared=counts)
        no_store: Any = None  # a login with a password goes to the store through its host alone
        service = LoginService(
            accounts=self.accounts,
            store=no_store,
            hashing=no_store,
            limits=limits,
            audit=AuditLog(emit=lambda *_, **__: None),
            always_refresh_token=False,
            looks=AccountLooks(
                self.accounts, no_store, 0.0, 0.0, self.reactor, lambda _: succeed(0)
            ),
            host=_NoSession(self.begin),
        )
        try:
            return Verdict((await service.login(request, client)).user_id)
        except Exception as error:
            if isinstance(error, AccountNotLinked):
                tell_refused_link(self.trace, error)
            return failed(error)

    def _tell_unseen_limits(self, client: Client) -> None:
        rates = [rate for rate in self.config.rate_limits.rates() if rate is not None]
        if not rates:
            self.trace.add("limit", "rate_limits sets none")
        elif self.counts is None:
            self.trace.add(
                "unseen",
                "the rate limits are counted in the memory of the running server, which cannot be"
                " seen from here",
            )
        elif client.network == UNKNOWN_NETWORK:
            self.trace.add(
                "unseen",
                "the rate limits of the client's network: give --address to have them read",
            )


class _NoSession(NoHomeserver):
    """A host where no session begins.

    :param begin: what comes before the session.
    """

    def __init__(self, begin: Begin) -> None:
        self._begin = begin

    async def begin(
        self, account: Account, device_id: str | None, display_name: str | None, issue: Issue
    ) -> Login:
        """Decide, and return a login without tokens."""
        return Login(await self._begin(account), "", TokenPair("", None, None))


def _tell_name(trace: Trace, credentials: PasswordLogin, server_name: str) -> None:
    identifier = credentials.identifier
    if isinstance(identifier, EmailIdentifier):
        trace.add("name", f"read as the e-mail address {identifier}", kind="email")
    elif isinstance(identifier, PhoneIdentifier):
        trace.add("name", f"read as the telephone number +{identifier}", kind="phone")
    elif identifier.user_id.server_name != server_name:
        trace.add(
            "name",
            f"read as {identifier}, a user of another server than {server_name}",
            kind="foreign",
        )
    elif localpart_from(identifier.user_id.localpart) is None:
        spaced = " " in identifier.user_id.localpart
        known = "no provider knows a name with a space"
        if not spaced:
            known = "a provider may know it all the same"
        trace.add(
            "name", f"read as {identifier}, which is no valid user ID; {known}", kind="no_user_id"
        )
    else:
        trace.add("name", f"read as the user ID {identifier}", kind="user_id")
