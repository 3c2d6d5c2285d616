"""The login service over fakes that fail and stall when told to."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from synapse_login_module import testing
from synapse_login_module.accounts.brake import Brake
from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.linked import LinkedAccounts, StoreEndings
from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.audit import AuditLog
from synapse_login_module.config.settings import SharedConfig
from synapse_login_module.homeservers.host import NoHomeserver
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.login import LoginService
from synapse_login_module.model import AccountStatus, Rate, TokenPolicy
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.stores import MemoryTokenStore
from synapse_login_module.testing import SERVER_NAME, FakeHashing, FakeProvider
from synapse_login_module.web.account import AccountHandlers
from synapse_login_module.web.client import Clients
from synapse_login_module.web.handlers import Handlers
from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.resource import InFlight
from synapse_login_module.web.responses import Send
from synapse_login_module.web.routes import standalone_root
from tests.support.accounts import (
    ALICE,
    ALICE_PASSWORD,
    DEACTIVATED,
    DEACTIVATED_PASSWORD,
    LOCKED,
    LOCKED_PASSWORD,
)
from tests.support.delegation import DelegatedStore, FakeHost

NOBODY_IS_LIMITED = None, None, None


class Switch:
    """A proxy of a provider or a store, which fails or stalls when told to.

    :param behind: the provider or store that answers otherwise.
    :ivar failure: the error that every method fails with, while it is set.
    :ivar stalled: while it is a list, every method adds its Deferred to it, which never fires.
    :ivar cancelled: the methods whose Deferreds were cancelled.
    :ivar only: if not empty, the only methods that fail or stall.
    """

    def __init__(self, behind: Any) -> None:
        self._behind = behind
        self.failure: Exception | None = None
        self.stalled: list[Deferred[Any]] | None = None
        self.only: set[str] = set()
        self.cancelled: list[str] = []

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._behind, name)
        if not callable(attribute) or (self.only and name not in self.only):
            return attribute
        if self.failure is not None:
            failure = self.failure
            return lambda *_, **__: fail(failure)
        if self.stalled is not None:
            stalled = self.stalled

            def stall(*_: Any, **__: Any) -> Deferred[Any]:
                stalled.append(Deferred().addErrback(self._note_cancelled, name))
                return stalled[-1]

            return stall
        return attribute

    def _note_cancelled(self, failure: Failure, name: str) -> Failure:
        if failure.check(CancelledError):
            self.cancelled.append(name)
        return failure


def switch(behind: object) -> Any:
    """Make a :class:`Switch` that provides the interfaces of the object behind it."""
    return Switch(behind)


class Rig:
    """The login service over fakes, and the real resource tree on top of it.

    :param provider: the password provider, by default ``accounts``.
    :param requests: the number of requests that may be in flight.
    :param host: the homeserver that delegates to the service; ``None`` for none.
    :param public_baseurl: the homeserver's URL for clients.
    :ivar root: the resource tree of the standalone server.
    :ivar keys: the token keys.
    """

    def __init__(
        self,
        *,
        policy: TokenPolicy | None = None,
        rates: tuple[Rate | None, Rate | None, Rate | None] = NOBODY_IS_LIMITED,
        require_access_token: bool = True,
        always_refresh_token: bool = True,
        server_name: str = SERVER_NAME,
        provider: IPasswordProvider | None = None,
        requests: int | None = None,
        host: FakeHost | None = None,
        public_baseurl: str | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.accounts = FakeProvider(
            {ALICE: ALICE_PASSWORD, LOCKED: LOCKED_PASSWORD, DEACTIVATED: DEACTIVATED_PASSWORD}
        )
        self.accounts.statuses[LOCKED] = AccountStatus.LOCKED
        self.accounts.statuses[DEACTIVATED] = AccountStatus.DEACTIVATED
        self.hashing = FakeHashing()
        self.provider = switch(provider or self.accounts)
        environment = testing.environment(clock=self.clock, policy=policy)
        make_store = MemoryTokenStore if host is None else DelegatedStore
        self.memory = memory = make_store(None, environment)
        self.store = switch(memory)
        self.audit = AuditLog()
        providers = ProviderChain([self.provider], self.hashing)
        links = memory.link_watch
        brake = Brake(links, Questions(providers, lambda *_: None), None, 900.0, self.clock)
        judge = Judge(links, brake, StoreEndings(self.store))
        accounts = LinkedAccounts(providers, self.store, judge.judge)
        self.keys = environment.required_keys
        self.service = LoginService(
            accounts=accounts,
            store=self.store,
            hashing=self.hashing,
            limits=LoginLimits(*rates, clock=self.clock.seconds),
            audit=self.audit,
            always_refresh_token=always_refresh_token,
            looks=AccountLooks(accounts, self.store, 3.0, 900.0, self.clock),
            host=host or NoHomeserver(),
        )
        self.clients = Clients(SharedConfig.model_fields["trusted_proxies"].default)
        self.server_name = server_name
        self.handlers = Handlers(
            self.service,
            self.clients,
            server_name,
            require_access_token,
            is_delegated=host is not None,
            public_baseurl=public_baseurl,
        )
        self.requests = requests
        self.root = self.tree(HTTPRequest.respond)

    def tree(self, send: Send) -> Resource:
        """The resource tree, for a site of other requests than the standalone server's.

        :param send: sends a response to such a request.
        """
        in_flight = InFlight(self.requests, self.clients.network)
        return standalone_root(self.handlers, send, in_flight, self.account_handlers())

    def account_handlers(self) -> AccountHandlers | None:
        """The handlers of the account page, which this server does not have."""
        return None
