"""A flood of logins from one IPv6 /48, and other people's logins meanwhile: simulated, with the
real limits and the real queue for hashing, and with time that a test moves on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common import thread_pool
from synapse_login_module.config.settings import RateLimits
from synapse_login_module.errors import Overloaded, RateLimited
from synapse_login_module.hashes import Kind
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.model import Client
from synapse_login_module.passwords import HashingPool, call_hashing_for

_THREADS = 2
_HASHING = 0.25
"""Seconds that a password takes."""

_A_SECOND = 50
_SECONDS = 30
_PEOPLE = 40


class SimulatedThreads:
    """Replaces the threads and the reactor; runs work a while later in simulated time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def call(self, function: Callable[[], object], wanted: int) -> None:
        """Run the function in simulated time."""
        self._clock.callLater(_HASHING, function)

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call the function at once."""
        function(*arguments)


class FloodTests(SynchronousTestCase):
    """50 logins a second for half a minute, each from another /64 and for another name."""

    def setUp(self) -> None:
        self.clock = Clock()
        threads = SimulatedThreads(self.clock)
        self.patch(thread_pool, "Threads", lambda *_: threads)
        self.patch(Kind, "decoy", lambda kind, password: None)
        self.pool = HashingPool(threads, _THREADS, 64, new_hashes(12), clock=self.clock.seconds)
        self.pool.startService()
        self.limits = LoginLimits(*RateLimits().rates(), self.clock.seconds)
        self.outcomes: dict[str, Counter[str]] = {
            who: Counter() for who in ("flood", "known", "unknown")
        }

    async def log_in(self, who: str, name: str, client: Client) -> None:
        """Log in, with a right password unless the login is of the flood."""
        try:
            attempt = await self.limits.attempt(client, name)
            try:
                await call_hashing_for(attempt.known_as, self.pool.decoy, "x")
            except Overloaded:
                attempt.forgive(entirely=True)
                raise
            if who == "flood":
                await attempt.charge_account(None)
            else:
                await attempt.succeeded(name, name)
        except RateLimited:
            self.outcomes[who]["limited"] += 1
        else:
            self.outcomes[who]["hashed"] += 1

    def start(self, who: str, name: str, client: Client) -> None:
        """Begin a login now."""
        Deferred.fromCoroutine(self.log_in(who, name, client))

    def flood(self, number: int) -> tuple[str, str, Client]:
        """Describe one login of the flood."""
        network = f"2001:db8:0:{number * 43 % 65_536:x}::/64"
        return "flood", f"@stranger{number}:example.com", Client("", network)

    def person(self, who: str, number: int) -> tuple[str, str, Client]:
        """Describe a login of a user from the user's own network."""
        address = f"198.51.{number + (100 if who == 'known' else 0)}.1"
        return who, f"@{who}{number}:example.com", Client(address, address)

    def test_flood(self) -> None:
        """Users in known networks do not notice the flood, and others do for a short time only."""
        for number in range(_PEOPLE):
            _, name, client = self.person("known", number)
            self.limits.remember_network(name, name, client)
        for login, count in (
            (self.flood, _A_SECOND * _SECONDS),
            (lambda number: self.person("known", number), _PEOPLE),
            (lambda number: self.person("unknown", number), _PEOPLE),
        ):
            every = _SECONDS / count
            for number in range(count):
                self.clock.callLater((number + 1) * every, self.start, *login(number))
        for _ in range(int((_SECONDS + 10) / 0.05)):
            self.clock.advance(0.05)
        self.assertEqual(self.outcomes["known"], {"hashed": _PEOPLE})
        self.assertGreaterEqual(self.outcomes["unknown"]["hashed"], 32)
        # The burst of a /48, and what was refilled since.
        self.assertLessEqual(self.outcomes["flood"]["hashed"], 16 * 5 + 2)

    def test_own_account(self) -> None:
        """A stranger with an account and many known networks cannot keep others out."""
        mallory = "@mallory:example.com"
        homes = deque(Client("", f"203.0.{number}.1") for number in range(100))
        for home in homes:
            self.limits.remember_network(mallory, mallory, home)
        _, alice, home = self.person("known", 0)
        self.limits.remember_network(alice, alice, home)
        for number in range(_THREADS + 64):
            self.start(*self.flood(number))
        for _ in range(100):
            self.start("flood", mallory, homes[0])
            homes.rotate()
        self.assertEqual(self.outcomes["flood"]["limited"], 100)
        self.start("known", alice, home)
        for _ in range(400):
            self.clock.advance(0.05)
        self.assertEqual(self.outcomes["known"], {"hashed": 1})
