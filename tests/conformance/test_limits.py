"""Rate limits, and the limit on passwords being checked."""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance import accounts, paths
from tests.conformance.case import ConformanceTestCase, cases
from tests.conformance.profiles import (
    ACCOUNT_LIMIT,
    ADDRESS_LIMIT,
    FAILURE_LIMIT,
    REFRESH_LIMIT,
    SHORT_QUEUE,
    UNTRUSTED_PROXY,
)
from tests.conformance.target import TestAccount
from tests.support.response import Response
from tests.support.waiting import together

_BURST = 5


class _LimitTestCase(ConformanceTestCase):
    async def from_address(
        self, address: str, account: TestAccount, extra: Mapping[str, str] | None = None
    ) -> Response:
        """Log in as if from another address."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": account.user},
            "password": account.password,
            "refresh_token": True,
        }
        headers = {"X-Forwarded-For": address, **(extra or {})}
        return await self.client.post(paths.at(paths.LOGIN), body, headers=headers)

    async def refresh_from(self, path: str, address: str, refresh_token: str) -> Response:
        """Refresh as if from another address."""
        body = {"refresh_token": refresh_token}
        headers = {"X-Forwarded-For": address}
        token = "no_such_token" if path == paths.TOKENREFRESH else None
        return await self.client.post(paths.at(path), body, token, headers)

    def assert_limited(self, answer: Response) -> None:
        """Assert that a response is that of a limit, with the time to wait."""
        self.refused(answer, 429, "M_LIMIT_EXCEEDED")
        milliseconds = answer.json["retry_after_ms"]
        self.assertTrue(milliseconds > 0, str(answer))
        retry_after = int(answer.header("Retry-After") or "0")
        self.assertTrue(retry_after >= 1, retry_after)
        self.assertTrue(retry_after * 1000 >= milliseconds, (retry_after, milliseconds))


class AddressLimitTests(_LimitTestCase):
    """A limit of five logins an address."""

    profile = ADDRESS_LIMIT

    async def test_limited(self) -> None:
        """The sixth login from an address is rejected, for any account."""
        for _ in range(_BURST):
            self.succeeded(await self.from_address("192.0.2.1", accounts.CHEEKY))
        self.assert_limited(await self.from_address("192.0.2.1", accounts.CHEEKY))
        self.assert_limited(await self.from_address("192.0.2.1", accounts.BOB))

    async def test_other_address(self) -> None:
        """Another address, as a trusted proxy names it, has its own limit."""
        for _ in range(_BURST + 1):
            answer = await self.from_address("192.0.2.2", accounts.CHEEKY)
        self.assert_limited(answer)
        self.succeeded(await self.from_address("192.0.2.3", accounts.CHEEKY))

    async def test_larger_networks(self) -> None:
        """The networks of one IPv6 /48, and the addresses of one IPv4 /24, share a limit of a few
        times the failures of one. Other networks and known networks are not affected.
        """
        for factor, home, others in (
            (16, "2001:db8:48:1::1", [f"2001:db8:48:{number:x}00::1" for number in range(1, 256)]),
            (32, "203.0.113.1", [f"203.0.113.{number}" for number in range(2, 256)]),
        ):
            self.succeeded(await self.from_address(home, accounts.CHEEKY))
            statuses: list[int] = []
            # The bucket refills a little meanwhile.
            while 429 not in statuses:
                stranger = TestAccount(f"stranger{len(statuses)}", "x")
                answer = await self.from_address(others[len(statuses)], stranger)
                statuses.append(answer.status)
            self.assert_limited(answer)
            self.assertEqual(set(statuses[:-1]), {403})
            self.assertGreaterEqual(len(statuses[:-1]), factor * _BURST)
            self.assert_limited(await self.from_address(others[-1], accounts.CHEEKY))
            self.succeeded(await self.from_address(home, accounts.CHEEKY))
        for address in ("2001:db8:49::1", "203.0.114.1"):
            self.succeeded(await self.from_address(address, accounts.CHEEKY))

    async def test_same_network(self) -> None:
        """Addresses of one IPv6 /64 are one address."""
        for host in range(_BURST):
            self.succeeded(await self.from_address(f"2001:db8:1:1::{host:x}", accounts.CHEEKY))
        self.assert_limited(await self.from_address("2001:db8:1:1:ffff::1", accounts.CHEEKY))
        self.succeeded(await self.from_address("2001:db8:1:2::1", accounts.CHEEKY))

    async def test_forged(self) -> None:
        """What a client puts in front of the address that the proxy adds does not count."""
        for number in range(_BURST):
            answer = await self.from_address(f"198.51.100.{number}, 192.0.2.4", accounts.CHEEKY)
            self.succeeded(answer)
        answer = await self.from_address("198.51.100.99, 192.0.2.4", accounts.CHEEKY)
        self.assert_limited(answer)

    async def test_nonsense_forwarded(self) -> None:
        """A header that names no address is no error."""
        for value in ("nonsense", "", ",", "192.0.2.300", "x" * 5000, "[::1]:99"):
            answer = await self.from_address(value, accounts.CHEEKY)
            self.assertIn(answer.status, (200, 429), str(answer))

    async def test_limited_login_ends_nothing(self) -> None:
        """A login that is refused for the limit leaves the earlier session alive."""
        address = "192.0.2.10"
        login = self.succeeded(await self.from_address(address, accounts.CHEEKY))
        for _ in range(_BURST + 1):
            answer = await self.from_address(address, accounts.CHEEKY)
        self.assert_limited(answer)
        await self.assert_alive(login["access_token"])


class RefreshLimitTests(_LimitTestCase):
    """A limit of five failures an address, of refreshes too."""

    profile = REFRESH_LIMIT

    @cases(paths.REFRESH, paths.TOKENREFRESH)
    async def test_failing_refreshes(self, path: str) -> None:
        """Failing refreshes on /{} are limited by address."""
        address = "192.0.2.5" if path == paths.REFRESH else "192.0.2.6"
        answers = [await self.refresh_from(path, address, "no such token") for _ in range(30)]
        self.assertIn(answers[0].status, (401, 403))
        self.assert_limited(answers[-1])
        other = await self.refresh_from(path, "192.0.2.7", "no such token")
        self.assertIn(other.status, (401, 403))

    async def test_valid_refreshes(self) -> None:
        """Valid refreshes are never limited, however many fail from the address."""
        address = "192.0.2.8"
        login = self.succeeded(await self.from_address(address, accounts.CHEEKY))
        for _ in range(30):
            limited = await self.refresh_from(paths.REFRESH, address, "no such token")
        self.assert_limited(limited)
        pair = login
        for _ in range(15):
            pair = self.succeeded(
                await self.refresh_from(paths.REFRESH, address, pair["refresh_token"])
            )
        for _ in range(15):
            answer = await self.client.post(
                paths.at(paths.TOKENREFRESH),
                {"refresh_token": pair["refresh_token"]},
                pair["access_token"],
                {"X-Forwarded-For": address},
            )
            pair = self.succeeded(answer)

    async def test_lost_answer(self) -> None:
        """Repeating a refresh whose response was lost is not limited either."""
        address = "192.0.2.9"
        login = self.succeeded(await self.from_address(address, accounts.CHEEKY))
        for _ in range(20):
            self.succeeded(await self.refresh_from(paths.REFRESH, address, login["refresh_token"]))


class UntrustedProxyTests(_LimitTestCase):
    """A limit of five logins an address, and no trusted proxies."""

    profile = UNTRUSTED_PROXY

    async def test_forwarded_for(self) -> None:
        """X-Forwarded-For of an untrusted client is ignored."""
        for number in range(_BURST):
            self.succeeded(await self.from_address(f"192.0.2.{number}", accounts.CHEEKY))
        self.assert_limited(await self.from_address("192.0.2.99", accounts.CHEEKY))


class AccountLimitTests(_LimitTestCase):
    """A limit of five logins an account."""

    profile = ACCOUNT_LIMIT

    async def test_limited(self) -> None:
        """The sixth login to an account is refused; other accounts are not."""
        answers = [await self.from_address("192.0.2.1", accounts.CHEEKY) for _ in range(6)]
        for answer in answers[:_BURST]:
            self.succeeded(answer)
        self.assert_limited(answers[-1])
        self.succeeded(await self.from_address("192.0.2.1", accounts.BOB))

    async def test_not_told(self) -> None:
        """Without the password, a limited account looks like any other or an unknown one."""
        address = "198.51.100.2"
        for _ in range(_BURST):
            self.succeeded(await self.from_address("203.0.113.2", accounts.COMPOSED))
        self.assert_limited(await self.from_address("203.0.113.2", accounts.COMPOSED))
        for name in (accounts.COMPOSED.user, "nobody"):
            wrong = TestAccount(name, "not the password")
            self.refused(await self.from_address(address, wrong), 403, "M_FORBIDDEN")

    async def test_stranger(self) -> None:
        """A stranger without the password does not use up the limit for the owner elsewhere."""
        wrong = TestAccount(accounts.UPPER.user, "not the password")
        for _ in range(3 * _BURST):
            self.assertIn((await self.from_address("198.51.100.1", wrong)).status, (403, 429))
        self.succeeded(await self.from_address("203.0.113.1", accounts.UPPER))


class FailureLimitTests(_LimitTestCase):
    """A limit of five failed logins."""

    profile = FAILURE_LIMIT

    async def test_successes(self) -> None:
        """Logins that succeed are not limited."""
        for _ in range(3 * _BURST):
            self.succeeded(await self.from_address("192.0.2.1", accounts.CHEEKY))

    async def test_failures(self) -> None:
        """After five failures even the right password is refused, with the same answer."""
        wrong = TestAccount(accounts.BOB.user, "not the password")
        for _ in range(_BURST):
            self.refused(await self.from_address("192.0.2.2", wrong), 403, "M_FORBIDDEN")
        self.assert_limited(await self.from_address("192.0.2.2", wrong))
        self.assert_limited(await self.from_address("192.0.2.2", accounts.BOB))

    async def test_unknown_user(self) -> None:
        """Failures for a user that does not exist are limited in the same way."""
        nobody = TestAccount("nobody", "x")
        for _ in range(_BURST):
            self.refused(await self.from_address("192.0.2.3", nobody), 403, "M_FORBIDDEN")
        self.assert_limited(await self.from_address("192.0.2.3", nobody))

    async def test_stranger(self) -> None:
        """A stranger's failures elsewhere do not lock the owner out."""
        wrong = TestAccount(accounts.LONG.user, "not the password")
        for _ in range(_BURST + 1):
            answer = await self.from_address("198.51.100.1", wrong)
        self.assert_limited(answer)
        self.succeeded(await self.from_address("203.0.113.1", accounts.LONG))

    async def test_many_networks(self) -> None:
        """Guessing from many networks is limited too."""
        wrong = TestAccount(accounts.LOCKED.user, "not the password")
        statuses = set()
        for number in range(200):
            statuses.add((await self.from_address(f"203.0.113.{number}", wrong)).status)
        self.assertEqual(statuses, {403, 429})

    async def test_neighbours(self) -> None:
        """One user's failures do not limit another user at the same address."""
        wrong = TestAccount(accounts.DEACTIVATED.user, "not the password")
        for _ in range(_BURST + 1):
            answer = await self.from_address("192.0.2.6", wrong)
        self.assert_limited(answer)
        self.succeeded(await self.from_address("192.0.2.6", accounts.CHEEKY))

    async def test_spellings(self) -> None:
        """Spelling the user in another way does not get around the limit."""
        wrong = TestAccount(accounts.UPPER.user, "not the password")
        for _ in range(_BURST):
            self.refused(await self.from_address("192.0.2.4", wrong), 403, "M_FORBIDDEN")
        full = TestAccount(self.target.user_id(accounts.UPPER), "not the password")
        self.assert_limited(await self.from_address("192.0.2.4", full))

    async def test_many_names(self) -> None:
        """An account's names share one burst, and they are rejected like unknown names, so that a
        client does not learn whose they are.
        """
        address = "192.0.2.7"
        wrong = TestAccount(accounts.CHEEKY.user, "not the password")
        for _ in range(_BURST):
            self.refused(await self.from_address(address, wrong), 403, "M_FORBIDDEN")
        for email in (accounts.CHEEKY.email, "nobody@example.com"):
            body = {
                "type": "m.login.password",
                "identifier": {"type": "m.id.thirdparty", "medium": "email", "address": email},
                "password": accounts.CHEEKY.password,
            }
            answer = await self.client.post(
                paths.at(paths.LOGIN), body, headers={"X-Forwarded-For": address}
            )
            self.refused(answer, 403, "M_FORBIDDEN")

    async def test_malformed(self) -> None:
        """Requests that are malformed are no failed logins."""
        path = paths.at(paths.LOGIN)
        headers = {"X-Forwarded-For": "192.0.2.5"}
        for _ in range(2 * _BURST):
            body = {"type": "m.login.password", "user": accounts.COMPOSED.user}
            self.refused(await self.client.post(path, body, headers=headers), 400, "M_BAD_JSON")
        self.succeeded(await self.from_address("192.0.2.5", accounts.COMPOSED))


class HashingQueueTests(_LimitTestCase):
    """Passwords checked one at a time, with one waiting."""

    profile = SHORT_QUEUE

    async def test_shed(self) -> None:
        """Of many logins at once, those without a place in the queue are told to retry."""
        answers = await together(*(self.client.login() for _ in range(24)))
        good = [answer for answer in answers if answer.status == 200]
        shed = [answer for answer in answers if answer.status != 200]
        self.assertTrue(good)
        self.assertTrue(shed)
        for answer in shed:
            self.assert_limited(answer)

    async def test_recovery(self) -> None:
        """After the burst logins succeed again; refreshes succeed all the time."""
        login = await self.logged_in()
        refreshes = [self.client.refresh(login["refresh_token"]) for _ in range(4)]
        answers = await together(*(self.client.login() for _ in range(16)), *refreshes)
        for answer in answers[16:]:
            self.succeeded(answer)
        self.succeeded(await self.client.login())
