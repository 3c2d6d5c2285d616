"""Tests for walking through a login, and for its verdict."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.accounts.linked import LinkedAccounts
from synapse_login_module.config.settings import parse
from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    AccountNotLinked,
    AccountRefused,
    HomeserverUnavailable,
    InvalidCredentials,
    LoginNotPermitted,
    Overloaded,
    PasswordExpired,
    ProviderUnavailable,
    RateLimited,
    StoreUnavailable,
)
from synapse_login_module.limits.token_bucket import LocalRateLimits, local_buckets
from synapse_login_module.model import AccountStatus, Bucket, Link, Rate
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.rehearsal.providers import TracedProvider
from synapse_login_module.rehearsal.sessions import StoreSessions
from synapse_login_module.rehearsal.steps import Trace
from synapse_login_module.rehearsal.verdict import Verdict, failed
from synapse_login_module.rehearsal.walk import Rehearsal
from synapse_login_module.stores import MemoryTokenStore
from synapse_login_module.testing.fakes import FakeProvider
from tests.support.configuration import good_config

ALICE = "@alice:example.com"


class WalkTests(SynchronousTestCase):
    """A server with one provider."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.provider = FakeProvider({ALICE: "right"})
        self.store: Any = MemoryTokenStore(None, testing.environment(clock=self.clock))
        self.counts: Any = None
        self.limits: dict[str, Any] = {}

    def walk(
        self, password: str = "right", user: str = "alice", address: str = ""
    ) -> tuple[Verdict, list[str]]:
        """Walk through a login; return the verdict, and the texts of the steps."""
        trace = Trace()
        provider = TracedProvider(self.provider, False, (), trace, self.clock.seconds)
        rehearsal = Rehearsal(
            "example.com",
            parse(good_config(**self.limits)),
            LinkedAccounts(ProviderChain([provider], None), self.store),
            StoreSessions(self.store, None, trace).begin,
            self.counts,
            self.clock,
            trace,
        )
        body = {"type": "m.login.password", "user": user, "password": password}
        verdict = self.successResultOf(Deferred.fromCoroutine(rehearsal.walk(body, address)))
        self.assertEqual(self.successResultOf(self.store.sessions(None)), [])
        return verdict, [f"{step.name}: {step.text}" for step in trace.steps]

    def test_success(self) -> None:
        """A login that would succeed names the user, and begins no session."""
        verdict, texts = self.walk()
        self.assertEqual(verdict, Verdict(user_id=ALICE))
        self.assertEqual(texts[0], f"name: read as the user ID {ALICE}")
        self.assertEqual(self.successResultOf(self.store.links()), [])

    def test_names(self) -> None:
        """The first step says what the name is read as."""
        for user, said in (
            ("@alice:elsewhere", "another server than example.com"),
            ("Ä", "no valid user ID; a provider may know it"),
            ("a b", "no valid user ID; no provider knows a name with a space"),
            ("ALICE", "read as the user ID @ALICE:example.com"),
        ):
            self.assertIn(said, self.walk(user=user)[1][0])

    def test_linked(self) -> None:
        """A link that exists is found, and that of another account refuses the login."""
        self.successResultOf(self.store.link(Link(ALICE, "fake", ALICE), False))
        self.assertTrue(self.walk()[0].succeeds)
        self.successResultOf(self.store.link(Link(ALICE, "fake", "other"), True))
        verdict, texts = self.walk()
        self.assertEqual(verdict.answer, "403 M_FORBIDDEN")
        self.assertIn("link: @alice:example.com is not linked to it", texts[-1])
        self.assertIn("links relink", texts[-1])

    def test_status(self) -> None:
        """The status of the account decides after the password."""
        for status, answer in (
            (AccountStatus.LOCKED, "401 M_USER_LOCKED"),
            (AccountStatus.DEACTIVATED, "403 M_USER_DEACTIVATED"),
        ):
            self.provider.statuses[ALICE] = status
            self.assertEqual(self.walk()[0].answer, answer)
            self.assertEqual(self.walk("wrong")[0].answer, "403 M_FORBIDDEN")

    def test_store(self) -> None:
        """A store that cannot be written to would be answered 503."""
        self.patch(self.store, "ping", lambda: fail(StoreUnavailable("the disk is full")))
        verdict, _ = self.walk()
        self.assertEqual(verdict.status, 503)
        self.assertIn("the disk is full", verdict.reason)
        self.patch(self.store, "ping", lambda: succeed(None))
        self.assertTrue(self.walk()[0].succeeds)

    def test_unseen_limits(self) -> None:
        """Limits in the memory of a server cannot be seen."""
        self.assertIn("limit: rate_limits sets none", self.walk()[1])
        self.limits = {"rate_limits": {}}
        self.assertIn("which cannot be seen from here", "".join(self.walk()[1]))
        self.counts = LocalRateLimits(self.clock.seconds, local_buckets)
        self.assertIn("give --address", "".join(self.walk()[1]))

    def test_limited(self) -> None:
        """A limit is the answer, and the steps of the login after it follow."""
        self.counts = LocalRateLimits(self.clock.seconds, local_buckets)
        self.limits = {"rate_limits": {"address": {"per_second": 0.001, "burst_count": 1}}}
        self.assertTrue(self.walk(address="192.0.2.1")[0].succeeds)
        self.assertTrue(self.walk(address="192.0.2.1")[0].succeeds)
        bucket = Bucket("address", ("192.0.2.1",), Rate(0.001, 1))
        self.successResultOf(self.counts.consume([bucket]))
        verdict, texts = self.walk(address="192.0.2.1")
        self.assertEqual(verdict.answer, "429 M_LIMIT_EXCEEDED")
        self.assertIn("address of 192.0.2.1", verdict.reason)
        self.assertIn("accepted the password", "".join(texts))
        verdict, _ = self.walk("wrong", address="192.0.2.1")
        self.assertEqual(verdict.status, 429)
        self.assertIn("; after that the password is wrong", verdict.reason)


class VerdictTests(SynchronousTestCase):
    """What is said of each error."""

    def test_errors(self) -> None:
        """Each error has its answer, and a reason that says what is wrong."""
        outage = ProviderUnavailable("no route")
        outage.provider = "ldap"
        cases: tuple[tuple[Exception, str, str], ...] = (
            (InvalidCredentials(), "403 M_FORBIDDEN", "the password is wrong"),
            (InvalidCredentials("unknown_user"), "403 M_FORBIDDEN", "no provider knows"),
            (
                InvalidCredentials("too_many_failures", limited=RateLimited(60.0, "tried")),
                "403 M_FORBIDDEN",
                "refused like a wrong one until 2",
            ),
            (
                InvalidCredentials(detail="the account is locked out"),
                "403 M_FORBIDDEN",
                "the password is wrong (the account is locked out)",
            ),
            (PasswordExpired(), "403 M_FORBIDDEN", "has to be changed first"),
            (LoginNotPermitted(), "403 M_FORBIDDEN", "at this time, or from here"),
            (AccountLocked(), "401 M_USER_LOCKED", "locked"),
            (AccountDeactivated(), "403 M_USER_DEACTIVATED", "deactivated"),
            (AccountNotLinked(ALICE, "it is a guest's", "links link"), "403 M_FORBIDDEN", "guest"),
            (AccountRefused(400, "M_TEST", "no more"), "400 M_TEST", "no more"),
            (RateLimited(60.0, "address", ("192.0.2.1",)), "429 M_LIMIT_EXCEEDED", "192.0.2.1"),
            (Overloaded(1.0), "429 M_LIMIT_EXCEEDED", "being hashed"),
            (outage, "503 M_UNKNOWN", "ldap is unavailable: no route"),
            (HomeserverUnavailable("no route"), "503 M_UNKNOWN", "the homeserver is unavailable"),
            (StoreUnavailable("full"), "503 M_UNKNOWN", "the token store is unavailable: full"),
            (RuntimeError("a bug"), "500 M_UNKNOWN", "an unexpected error: RuntimeError: a bug"),
        )
        for error, answer, reason in cases:
            verdict = failed(error)
            self.assertEqual((verdict.answer, verdict.succeeds), (answer, False))
            self.assertIn(reason, verdict.reason)
            self.assertTrue(verdict.sentence().endswith(f"; a client is answered {answer}"))
