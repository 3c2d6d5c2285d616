"""Tests for parsing a configuration from a mapping."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config import settings as config
from synapse_login_module.config.settings import BrakeConfig, Config, Plugin, ProviderPlugin
from synapse_login_module.errors import ConfigError, RateLimited
from synapse_login_module.limits.token_bucket import RateLimiter
from synapse_login_module.model import Rate, TokenPolicy

PROVIDER = {"module": "a.Provider"}
LEAST: dict[str, Any] = {"server_name": "example.com", "password_providers": [PROVIDER]}

MINUTE = 60_000
DAY = 86_400_000


class ConfigCase(SynchronousTestCase):
    """A test case that parses configurations."""

    def parse(self, **changes: Any) -> Config:
        """Parse the minimal configuration with these changes."""
        return config.parse({**LEAST, **changes})

    def assert_refused(self, path: str, **changes: Any) -> ConfigError:
        """Assert that the configuration is rejected in one line with this path."""
        error: ConfigError = self.assertRaises(ConfigError, self.parse, **changes)
        self.assertEqual(error.path, path, error)
        self.assertTrue(str(error).startswith(f"{path}: "), error)
        self.assertEqual(len(str(error).splitlines()), 1)
        return error


class DefaultTests(ConfigCase):
    """The defaults."""

    def test_contract(self) -> None:
        """The defaults are those of the contract."""
        found = self.parse()
        self.assertEqual(found.listen, ("tcp:8008:interface=127.0.0.1",))
        self.assertEqual(
            found.trusted_proxies,
            (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        )
        self.assertEqual(
            found.token_store,
            Plugin(
                module="synapse_login_module.stores.SQLiteTokenStore",
                config={"path": "sessions.db"},
            ),
        )
        self.assertEqual(found.tokens.key_file, "token.key")
        self.assertEqual(found.tokens.refresh_token, "on_request")
        self.assertIs(found.tokenrefresh.require_access_token, True)
        self.assertEqual(found.rate_limits.rates(), (Rate(0.003, 5), Rate(0.003, 5), Rate(0.17, 3)))
        self.assertEqual(
            (found.hashing.threads, found.hashing.queue, found.hashing.rounds), (None, 64, 12)
        )
        self.assertEqual(found.password_providers, (ProviderPlugin(module="a.Provider"),))

    def test_lifetimes(self) -> None:
        """The default lifetimes are those of the contract, and of ``TokenPolicy``."""
        policy = self.parse().tokens.policy()
        self.assertEqual(
            policy,
            TokenPolicy(
                refreshable_access_token=5 * MINUTE,
                nonrefreshable_access_token=None,
                refresh_token=None,
                session=None,
                login_token=2 * MINUTE,
                reuse_interval=10_000,
            ),
        )
        self.assertEqual(policy, TokenPolicy())

    def test_empty_blocks(self) -> None:
        """An empty block is the same as a missing one."""
        self.assertEqual(
            self.parse(tokens={}, tokenrefresh={}, rate_limits={}, hashing={}), self.parse()
        )

    def test_defaults_are_not_shared(self) -> None:
        """A configuration is immutable, so the defaults cannot be changed through one."""
        with self.assertRaises(Exception):  # noqa: B017  pydantic says which
            self.parse().hashing.queue = 1


class ValueTests(ConfigCase):
    """Valid values."""

    def test_whole_contract(self) -> None:
        """Every key of the contract is accepted."""
        found = self.parse(
            listen=["tcp:8008:interface=127.0.0.1", "unix:/run/login.sock"],
            trusted_proxies=["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"],
            password_providers=[
                {
                    "module": "synapse_login_module.providers.BcryptProvider",
                    "config": {"path": "users.yaml", "pepper": ""},
                },
                PROVIDER,
            ],
            token_store={"module": "a.b.Store", "config": {"x": {"y": [1]}}},
            tokens={
                "key_file": "k",
                "refresh_token": "always",
                "refreshable_access_token_lifetime": "1m",
                "nonrefreshable_access_token_lifetime": "2h",
                "refresh_token_lifetime": "30d",
                "session_lifetime": "1y",
                "login_token_lifetime": 5000,
                "reuse_interval": 0,
                "account_check_interval": "1h",
                "keep_ended": "7d",
            },
            brake={"accounts": 3, "percent": 0.5},
            tokenrefresh={"require_access_token": False},
            rate_limits={
                "address": None,
                "account": {"per_second": 1, "burst_count": 2},
                "failed_attempts": {"per_second": 0.5, "burst_count": 1},
            },
            hashing={"threads": 2, "queue": 0, "rounds": 4},
            limits={
                "connections": 1,
                "connections_per_address": None,
                "requests": None,
                "request_timeout": "10s",
                "idle_timeout": 1500,
            },
        )
        self.assertEqual((found.limits.request_timeout, found.limits.idle_timeout), (10_000, 1500))
        self.assertEqual(found.listen[1], "unix:/run/login.sock")
        self.assertIn(ipaddress.ip_network("192.0.2.1/32"), found.trusted_proxies)
        self.assertEqual(len(found.password_providers), 2)
        self.assertEqual(found.token_store.config, {"x": {"y": [1]}})
        self.assertEqual(
            dataclasses.astuple(found.tokens.policy()),
            (MINUTE, 120 * MINUTE, 30 * DAY, 365 * DAY, 5000, 0, 7 * DAY),
        )
        self.assertEqual(found.tokens.account_check_interval, 60 * MINUTE)
        self.assertEqual(found.brake, BrakeConfig(accounts=3, percent=0.5))
        never = self.parse(tokens={"keep_ended": None}, brake=None)
        self.assertEqual((never.tokens.policy().keep_ended, never.brake), (None, None))
        self.assertIs(found.tokenrefresh.require_access_token, False)
        self.assertEqual(found.rate_limits.rates(), (None, Rate(1.0, 2), Rate(0.5, 1)))
        self.assertEqual(
            (found.hashing.threads, found.hashing.queue, found.hashing.rounds), (2, 0, 4)
        )

    def test_durations(self) -> None:
        """Durations are milliseconds or a number with a unit, as Synapse has them."""
        for given_, expected in (
            ("1", 1),
            (1, 1),
            ("30s", 30_000),
            ("5m", 5 * MINUTE),
            ("12h", 12 * 60 * MINUTE),
            ("30d", 30 * DAY),
            ("2w", 14 * DAY),
            ("1y", 365 * DAY),
            (None, None),
        ):
            found = self.parse(tokens={"session_lifetime": given_})
            self.assertEqual(found.tokens.session_lifetime, expected, given_)

    def test_no_durations(self) -> None:
        """Invalid durations are rejected, and so is 0 where a duration must be positive."""
        bad: list[Any] = [
            "",
            " ",
            "5 m",
            "m",
            "5x",
            "5M",
            "-5m",
            "1:30",
            "1.5h",
            "1h30m",
            "5m\n",
            "\u0665m",
            "1e3",
            -1,
            1.5,
            True,
            False,
            [],
            {},
            ["5m"],
            0,
            "0",
            "0d",
            "9" * 40,
        ]
        for key in ("session_lifetime", "login_token_lifetime"):
            for given_ in bad:
                self.assert_refused(f"tokens.{key}", tokens={key: given_})

    def test_duration_that_no_database_takes(self) -> None:
        """A duration that would overflow in a database is rejected."""
        for given_ in ("999999999999999y", "400000000y", 2**63, 10**14 * 10**5):
            self.assert_refused("tokens.session_lifetime", tokens={"session_lifetime": given_})

    def test_what_may_not_be_null(self) -> None:
        """Null is accepted as "no limit" only where the contract allows that."""
        for key in ("login_token_lifetime", "reuse_interval", "key_file", "refresh_token"):
            self.assert_refused(f"tokens.{key}", tokens={key: None})
        for key in ("tokens", "hashing", "token_store", "listen", "server_name", "rate_limits"):
            self.assert_refused(key, **{key: None})


class ModuleTests(SynchronousTestCase):
    """Keys that are not valid inside Synapse."""

    def test_keys_of_the_server(self) -> None:
        """Keys of the standalone server are rejected with the reason."""
        for key in ("server_name", "listen", "token_store", "limits"):
            given = {"password_providers": [PROVIDER], key: {}}
            error = self.assertRaises(ConfigError, config.parse_module, given)
            self.assertEqual(error.path, key)
            self.assertIn("not valid inside Synapse", str(error))

    def test_hides_no_other_mistake(self) -> None:
        """A key of the standalone server does not hide other mistakes."""
        given = {
            "password_providers": [PROVIDER],
            "listen": [],
            "tokens": {"key_file": "x", "reuse_interval": "soon"},
            "brake": {"acounts": 1},
        }
        error = self.assertRaises(ConfigError, config.parse_module, given)
        self.assertEqual(
            {each.path for each in error.all()},
            {"listen", "tokens.key_file", "tokens.reuse_interval", "brake.acounts"},
        )


class RefusalTests(ConfigCase):
    """What may not stand there."""

    def test_missing(self) -> None:
        """A server name and a password provider are required."""
        for missing in LEAST:
            rest = {key: value for key, value in LEAST.items() if key != missing}
            error = self.assertRaises(ConfigError, config.parse, rest)
            self.assertEqual(error.path, missing)
        self.assert_refused("password_providers", password_providers=[])
        self.assert_refused("listen", listen=[])

    def test_unknown_keys(self) -> None:
        """An unknown key is named, at any depth."""
        self.assert_refused("lisen", lisen=[])
        self.assert_refused("tokens.refresh", tokens={"refresh": "always"})
        self.assert_refused("tokenrefresh.x", tokenrefresh={"x": 1})
        self.assert_refused("hashing.cost", hashing={"cost": 12})
        self.assert_refused("limits.connection", limits={"connection": 1})
        self.assert_refused("rate_limits.adress", rate_limits={"adress": None})
        self.assert_refused(
            "rate_limits.address.burst",
            rate_limits={"address": {"per_second": 1, "burst_count": 1, "burst": 1}},
        )
        self.assert_refused(
            "password_providers.1.conf", password_providers=[PROVIDER, {**PROVIDER, "conf": {}}]
        )
        self.assert_refused("token_store.path", token_store={"module": "a.b", "path": "x"})

    def test_keys_of_the_module(self) -> None:
        """Keys that are only for inside Synapse are unknown to the standalone server."""
        for key in ("register_users", "sync_profile", "fall_back_to_local"):
            self.assert_refused(key, **{key: True})

    def test_odd_keys(self) -> None:
        """A key with line breaks in it is reported on one line."""
        for key in ("a\nb", "a\r\nb", "\u2028", "a\x0bb", "\x85"):
            error = self.assertRaises(ConfigError, self.parse, **{key: 1})
            self.assertEqual(len(str(error).splitlines()), 1, ascii(str(error)))

    def test_wrong_types(self) -> None:
        """A value of the wrong type is reported, and not converted."""
        for path, changes in (
            ("server_name", {"server_name": 5}),
            ("server_name", {"server_name": ["example.com"]}),
            ("listen", {"listen": "tcp:8008"}),
            ("listen", {"listen": 8008}),
            ("listen", {"listen": {"tcp": 8008}}),
            ("listen.0", {"listen": [8008]}),
            ("listen.1", {"listen": ["tcp:1", None]}),
            ("trusted_proxies", {"trusted_proxies": "127.0.0.1"}),
            ("password_providers", {"password_providers": PROVIDER}),
            ("password_providers.0", {"password_providers": ["a.Provider"]}),
            ("password_providers.0.module", {"password_providers": [{}]}),
            ("password_providers.0.module", {"password_providers": [{"module": 1}]}),
            (
                "password_providers.0.config",
                {"password_providers": [{**PROVIDER, "config": None}]},
            ),
            ("password_providers.0.config", {"password_providers": [{**PROVIDER, "config": []}]}),
            ("token_store", {"token_store": "a.Store"}),
            ("tokens", {"tokens": []}),
            ("tokens.key_file", {"tokens": {"key_file": 1}}),
            ("tokens.refresh_token", {"tokens": {"refresh_token": "never"}}),
            ("tokens.refresh_token", {"tokens": {"refresh_token": True}}),
            ("tokenrefresh", {"tokenrefresh": True}),
            ("tokenrefresh.require_access_token", {"tokenrefresh": {"require_access_token": 1}}),
            (
                "tokenrefresh.require_access_token",
                {"tokenrefresh": {"require_access_token": "no"}},
            ),
            ("rate_limits.address", {"rate_limits": {"address": 1}}),
            ("rate_limits.address.burst_count", {"rate_limits": {"address": {"per_second": 1}}}),
            ("rate_limits.address.per_second", {"rate_limits": {"address": {"burst_count": 1}}}),
            ("hashing.threads", {"hashing": {"threads": "2"}}),
            ("hashing.threads", {"hashing": {"threads": True}}),
            ("hashing.queue", {"hashing": {"queue": 1.5}}),
        ):
            self.assert_refused(path, **changes)

    def test_numbers(self) -> None:
        """Numbers out of range are rejected."""
        for path, changes in (
            ("hashing.threads", {"hashing": {"threads": 0}}),
            ("hashing.threads", {"hashing": {"threads": 100_000}}),
            ("hashing.queue", {"hashing": {"queue": -1}}),
            ("hashing.rounds", {"hashing": {"rounds": 3}}),
            ("hashing.rounds", {"hashing": {"rounds": 17}}),
            ("hashing.format", {"hashing": {"format": "md5"}}),
            ("hashing.argon2.memory", {"hashing": {"argon2": {"memory": 4}}}),
            ("hashing.argon2.parallelism", {"hashing": {"argon2": {"parallelism": 17}}}),
            (
                "hashing",
                {"hashing": {"format": "argon2id", "argon2": {"iterations": 1_000}}},
            ),
            (
                "hashing",
                {"hashing": {"format": "argon2id", "argon2": {"memory": 8, "parallelism": 2}}},
            ),
            ("limits.connections", {"limits": {"connections": 0}}),
            ("limits.connections", {"limits": {"connections": None}}),
            ("limits.connections_per_address", {"limits": {"connections_per_address": 0}}),
            ("limits.requests", {"limits": {"requests": 0}}),
            ("limits.request_timeout", {"limits": {"request_timeout": 0}}),
            ("limits.idle_timeout", {"limits": {"idle_timeout": None}}),
        ):
            self.assert_refused(path, **changes)
        for per_second in (0, -1, float("inf"), float("nan"), "1"):
            limit = {"per_second": per_second, "burst_count": 1}
            self.assert_refused("rate_limits.account.per_second", rate_limits={"account": limit})
        for burst_count in (0, -1, 1.5, "1"):
            limit = {"per_second": 1, "burst_count": burst_count}
            self.assert_refused("rate_limits.account.burst_count", rate_limits={"account": limit})

    def test_extreme_rates(self) -> None:
        """The smallest and largest accepted rate limits work."""
        for per_second, burst_count in ((5e-324, 1), (1e308, 1), (1.0, 10**400), (1.0, 2**63)):
            limit = {"per_second": per_second, "burst_count": burst_count}
            try:
                rate = self.parse(rate_limits={"address": limit}).rate_limits.rates()[0]
            except ConfigError:
                continue
            assert rate is not None
            clock = Clock()
            limiter = RateLimiter(rate, clock.seconds)
            for _ in range(3):
                clock.advance(1)
                try:
                    limiter.consume("x")
                except RateLimited as limited:
                    self.assertGreater(limited.retry_after, 0)

    def test_server_names(self) -> None:
        """A server name is a host with an optional port; other text is rejected."""
        for good in (
            "example.com",
            "localhost",
            "example.com:8448",
            "192.0.2.1",
            "[2001:db8::1]:1",
        ):
            self.assertEqual(self.parse(server_name=good).server_name, good)
        for bad in ("", " ", "a b", "@a:b", "https://example.com", "a/b", "é.example", "a\nb"):
            self.assert_refused("server_name", server_name=bad)
        for bad in ("a\rb", "a\0b", "a\x1b[2Jb", "x" * 300):
            self.assert_refused("server_name", server_name=bad)

    def test_networks(self) -> None:
        """Texts that are no address or network are rejected."""
        for bad in (
            "",
            "localhost",
            "127.0.0.1/33",
            "10.0.0.1/8",
            "x",
            2130706433,
            None,
            "::1%lo/x",
        ):
            self.assert_refused("trusted_proxies.0", trusted_proxies=[bad])
        self.assertEqual(self.parse(trusted_proxies=[]).trusted_proxies, ())

    def test_modules(self) -> None:
        """Texts that are no dotted path are rejected before anything is imported."""
        for bad in ("", "x", ".x", "a.", "a..b", "a b.c", "a.b\n", "a.b;c", "os/path", "a-b.c"):
            self.assert_refused("token_store.module", token_store={"module": bad})

    def test_values_are_not_repeated(self) -> None:
        """No error quotes a value, because it may be a secret in the wrong place."""
        for changes in (
            {"hunter2hunter2": 1},
            {"server_name": ["hunter2hunter2"]},
            {"tokens": {"refresh_token": "hunter2hunter2"}},
            {"tokens": {"session_lifetime": "hunter2hunter2"}},
            {"hashing": {"threads": "hunter2hunter2"}},
            {"token_store": {"module": "hunter2 hunter2"}},
            {"password_providers": [{"module": "a.b", "config": ["hunter2hunter2"]}]},
        ):
            error = self.assertRaises(ConfigError, self.parse, **changes)
            if "hunter2hunter2" not in changes:
                self.assertNotIn("hunter2", str(error))


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(("always", "5m", "tcp:8008", "127.0.0.1", "a.b", "example.com")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=6)
            | st.sampled_from(("module", "config", "key_file", "per_second", "burst_count")),
            inner,
            max_size=4,
        )
        | st.dictionaries(st.integers() | st.none() | st.booleans(), inner, max_size=2)
    ),
    max_leaves=10,
)
_mappings = st.dictionaries(
    st.sampled_from((*sorted(Config.model_fields), "x")) | st.text(max_size=6), _values, max_size=8
)


class AnythingTests(SynchronousTestCase):
    """Properties of any mapping."""

    @settings(max_examples=400)
    @example({"[key]": None}, True)
    @given(_mappings, st.booleans())
    def test_only_config_errors(self, mapping: dict[str, Any], complete: bool) -> None:
        """Any mapping is a configuration or gives a ConfigError of one line."""
        try:
            found = config.parse({**LEAST, **mapping} if complete else mapping)
        except ConfigError as error:
            self.assertEqual(len(str(error).splitlines()), 1, ascii(str(error)))
        else:
            self.assertIsInstance(found, Config)
            found.tokens.policy()
            found.rate_limits.rates()

    def test_deep(self) -> None:
        """Excessive nesting gives a ConfigError too."""
        deep: Any = 1
        for _ in range(100_000):
            deep = {"x": deep}
        round_and_round: dict[str, Any] = {}
        round_and_round["x"] = round_and_round
        for value in (deep, round_and_round):
            for key in ("server_name", "tokens", "x"):
                self.assertRaises(ConfigError, config.parse, {**LEAST, key: value})
        while isinstance(deep, dict):  # else its deallocation recurses as deeply
            deep = deep.pop("x")
