"""Tests for the cost of a whole login at PostgreSQL, in round trips on the connection."""

from __future__ import annotations

from pathlib import Path

from psycopg.conninfo import make_conninfo
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from synapse_login_module import testing
from synapse_login_module.accounts.linked import LinkedAccounts
from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.audit import AuditLog
from synapse_login_module.config.settings import RateLimits
from synapse_login_module.errors import AccountLocked, InvalidCredentials, RateLimited
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.login import LoginService
from synapse_login_module.model import (
    AccountStatus,
    Bucket,
    Client,
    Login,
    LoginRequest,
    PasswordLogin,
    Rate,
    UserId,
    UserIdentifier,
)
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore
from tests.stores.test_postgresql import PostgreSQLCase, reactor
from tests.support.pgwire import SYNC, CountingProxy

PASSWORD = "wonderland"
USERS = {f"@user{number}:{testing.SERVER_NAME}": PASSWORD for number in range(4)}
LOCKED = f"@user3:{testing.SERVER_NAME}"


def client(number: int) -> Client:
    """Return a client in a larger network of its own."""
    return Client(f"2001:db8:{number:x}::1", f"2001:db8:{number:x}::/64")


class LoginCostTests(PostgreSQLCase):
    """Tests of a service whose limits are all in PostgreSQL, seen from a proxy between the two."""

    async def open_service(self) -> LoginService:
        """Make a service whose store is connected."""
        self.proxy = CountingProxy(self.server)
        self.addCleanup(self.proxy.listening.stopListening)
        dsn = make_conninfo(self.dsn, port=self.proxy.listens_on)
        config = PostgreSQLTokenStore.parse_config({"dsn": dsn, "connections": 1}, Path())
        environment = testing.environment(reactor=reactor)
        # Connecting returns at once; the connection waits for what this thread passes on.
        store = await deferToThread(PostgreSQLTokenStore, config, environment)
        store.startService()
        self.addCleanup(store.stopService)
        await store.share_token_keys()
        for _ in range(2):  # the first request sweeps the table
            await store.consume([Bucket("test", (), Rate(1, 2))])
        # The first session has its key looked up in the store.
        await store.issue("@first:example.com", "PHONE", None, True, True)
        accounts = testing.FakeProvider(dict(USERS))
        accounts.statuses[LOCKED] = AccountStatus.LOCKED
        hashing = testing.FakeHashing()
        linked = LinkedAccounts(ProviderChain([accounts], hashing), store)
        return LoginService(
            accounts=linked,
            store=store,
            hashing=hashing,
            limits=LoginLimits(*RateLimits().rates(), reactor.seconds, shared=store),
            audit=AuditLog(),
            always_refresh_token=True,
            looks=AccountLooks(linked, store, 3.0, 900.0, reactor),
        )

    def log_in(
        self, service: LoginService, number: int, password: str = PASSWORD, network: int = 0
    ) -> Deferred[Login]:
        """Begin a login, and count the round trips from here."""
        self.proxy.counts.clear()
        identifier = UserIdentifier(UserId(f"user{number}", testing.SERVER_NAME))
        request = LoginRequest(PasswordLogin(identifier, password))
        return Deferred.fromCoroutine(service.login(request, client(network)))

    def assert_round_trips(self, count: int) -> None:
        """Check the number of round trips since the login began."""
        self.assertEqual(self.proxy.counts[SYNC], count, dict(self.proxy.counts))

    async def test_right_password(self) -> None:
        """A login costs three: one before the password, one after it, and one for the session; the
        first from a network as the next, which is from a known one.
        """
        service = await self.open_service()
        for network in (1, 1, 2):
            await self.log_in(service, 0, network=network)
            self.assert_round_trips(3)

    async def test_refused(self) -> None:
        """Every rejected login costs two round trips.

        So the time reveals neither whether the account exists nor whether the password was right.
        """
        service = await self.open_service()
        for number, password, error in (
            (1, "wrong", InvalidCredentials),
            (99, "wrong", InvalidCredentials),
            (3, "wrong", InvalidCredentials),
            (3, PASSWORD, AccountLocked),
        ):
            await self.assertFailure(
                self.log_in(service, number, password, network=10 + number), error
            )
            self.assert_round_trips(2)

    async def test_limited(self) -> None:
        """A login that is rate limited costs one round trip, and the next of its network none."""
        service = await self.open_service()
        for _ in range(5):
            await self.log_in(service, 0)
        for cost in (1, 0):
            await self.assertFailure(self.log_in(service, 1), RateLimited)
            self.assert_round_trips(cost)

    async def test_too_many_failures(self) -> None:
        """Where too many have failed on an account, a wrong password costs what the right does."""
        service = await self.open_service()
        limits, network = service.limits, client(0)
        for password, user_id in zip(("wrong", PASSWORD), USERS, strict=False):
            for _ in range(3):
                await limits.counts.consume(limits.failures_of_account(user_id, network)[:1])
            attempt = await limits.attempt(network, f"another name of {user_id}")
            self.proxy.counts.clear()
            is_right = password == PASSWORD
            asked = attempt.succeeded(user_id) if is_right else attempt.charge_account(user_id)
            await self.assertFailure(Deferred.fromCoroutine(asked), InvalidCredentials)
            self.assert_round_trips(1)
