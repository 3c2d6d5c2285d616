"""Tests for the configuration of the module in a delegating Synapse, and for what it forgets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.process import require
from tests.support.synapse.profile import BCRYPT, user
from tests.synapse.test_private import Without

_PROVIDERS = [{"module": BCRYPT, "config": {"users": {"alice": user()}}}]


class ConfigTests(SynchronousTestCase):
    """``parse_config`` with the key ``delegated``."""

    def setUp(self) -> None:
        require("synapse")

    def problem(self, config: object) -> tuple[list[str], str]:
        """The path and the message of the error that a configuration leads to."""
        from synapse.module_api.errors import ConfigError

        from synapse_login_module import SynapseLoginModule

        with self.assertRaises(ConfigError) as caught:
            SynapseLoginModule.parse_config(config)
        return list(caught.exception.path or ()), caught.exception.msg

    def test_delegated(self) -> None:
        """``delegated: true`` alone is a whole configuration."""
        from synapse_login_module import SynapseLoginModule
        from synapse_login_module.config.delegated import DelegatedConfig

        parsed = SynapseLoginModule.parse_config({"delegated": True})
        self.assertIsInstance(parsed, DelegatedConfig)

    def test_other_keys(self) -> None:
        """Every key beside it is a mistake, known or not, and each is named."""
        for key, value in (
            ("password_providers", _PROVIDERS),
            ("rate_limits", {}),
            ("listen", []),
            ("no_such_key", 1),
        ):
            path, message = self.problem({"delegated": True, key: value})
            self.assertEqual(path, [key])
            self.assertIn("not valid beside delegated: true", message)
        path, message = self.problem({"delegated": True, "hashing": {}, "brake": None})
        self.assertEqual(path, ["hashing"])
        self.assertIn("also, at brake: not valid beside delegated: true", message)

    def test_not_delegated(self) -> None:
        """``delegated: false`` is the default, so the other keys apply."""
        from synapse_login_module import SynapseLoginModule
        from synapse_login_module.synapse.module import ParsedConfig

        given = {"delegated": False, "password_providers": _PROVIDERS}
        self.assertIsInstance(SynapseLoginModule.parse_config(given), ParsedConfig)
        self.assertEqual(self.problem({"delegated": False})[0], ["password_providers"])

    def test_no_boolean(self) -> None:
        """Any other value is a mistake."""
        values: tuple[object, ...] = ("true", 1, None, {})
        for value in values:
            path, _ = self.problem({"delegated": value, "password_providers": _PROVIDERS})
            self.assertEqual(path, ["delegated"])

    def test_mistyped(self) -> None:
        """A mistyped key is told the right one."""
        path, message = self.problem({"delegate": True, "password_providers": _PROVIDERS})
        self.assertEqual(path, ["delegate"])
        self.assertIn("did you mean delegated?", message)


class ForgetTests(SynchronousTestCase):
    """:meth:`synapse_login_module.synapse.delegation.Delegation.forget`."""

    def setUp(self) -> None:
        require("synapse")
        self.cache: dict[str, Any] = {}

    def put(self, token: str, result: Deferred[Any]) -> None:
        """Put an introspection into the cache."""
        from synapse.util.async_helpers import ObservableDeferred
        from synapse.util.caches.response_cache import ResponseCacheEntry

        observable = ObservableDeferred(result, consumeErrors=True)
        self.cache[token] = ResponseCacheEntry(observable, None, False)

    def answer(self, token: str, **answer: Any) -> None:
        """Put an answer into the cache."""
        from synapse.api.auth.mas import IntrospectionResponse

        self.put(token, succeed(IntrospectionResponse(retrieved_at_ms=0, **answer)))

    def forget(self, localpart: str, device_id: str | None) -> int:
        """Forget tokens; how many."""
        from synapse_login_module.synapse.delegation import Delegation

        cache = SimpleNamespace(_result_cache=self.cache, unset=self.cache.pop)
        auth = SimpleNamespace(_introspection_cache=cache)
        api: Any = SimpleNamespace(_hs=SimpleNamespace(get_auth=lambda: auth))
        return Delegation(api).forget(localpart, device_id)

    def test_device(self) -> None:
        """All tokens of the device go, and no other's."""
        for token, name, device in (
            ("old", "alice", "PHONE"),
            ("new", "alice", "PHONE"),
            ("other", "alice", "LAPTOP"),
            ("case", "alice", "phone"),
            ("hers", "bob", "PHONE"),
            ("longer", "alice2", "PHONE"),
        ):
            self.answer(token, active=True, username=name, device_id=device)
        self.assertEqual(self.forget("alice", "PHONE"), 2)
        self.assertEqual(list(self.cache), ["other", "case", "hers", "longer"])
        self.assertEqual(self.forget("alice", None), 2)
        self.assertEqual(list(self.cache), ["hers", "longer"])

    def test_empty(self) -> None:
        """An empty cache is no error."""
        self.assertEqual(self.forget("alice", None), 0)

    def test_device_in_the_scope(self) -> None:
        """A user's token whose answer names its device in the scope goes with any device."""
        scope = "urn:matrix:client:api:* urn:matrix:client:device:PHONE"
        self.answer("token", active=True, username="alice", scope=scope)
        self.answer("bob's", active=True, username="bob", scope=scope)
        self.assertEqual(self.forget("alice", "LAPTOP"), 1)
        self.assertEqual(list(self.cache), ["bob's"])

    def test_inactive(self) -> None:
        """The answer that a token is inactive stays: it names no user, and would not change."""
        self.answer("token", active=False)
        self.assertEqual(self.forget("alice", None), 0)
        self.assertEqual(list(self.cache), ["token"])

    def test_under_way(self) -> None:
        """An introspection under way goes, as it may be of the device; a failed one is nobody's."""
        self.put("under-way", Deferred())
        failed: Deferred[Any] = Deferred()
        self.put("failed", failed)
        failed.errback(Failure(ValueError("no answer")))
        self.assertEqual(self.forget("alice", "PHONE"), 1)
        self.assertEqual(list(self.cache), ["failed"])


class MissingTests(SynchronousTestCase):
    """:func:`synapse_login_module.synapse.compat.find_incompatible_delegation`."""

    def setUp(self) -> None:
        require("synapse")
        self.cache = SimpleNamespace(_result_cache={}, unset=lambda key: None)
        self.auth = SimpleNamespace(_introspection_cache=self.cache)
        self.mas = SimpleNamespace(enabled=True, secret=lambda: "")
        self.server = SimpleNamespace(listeners=[])
        self.worker = SimpleNamespace(worker_listeners=[])

    def missing(self) -> str | None:
        """What the module misses."""
        from synapse_login_module.synapse import compat

        config = SimpleNamespace(mas=self.mas, server=self.server, worker=self.worker)
        hs = SimpleNamespace(config=config, get_auth=lambda: self.auth)
        api: Any = SimpleNamespace(_hs=hs)
        return compat.find_incompatible_delegation(api)

    def test_installed_release(self) -> None:
        """The installed release has everything; if not, this names what is missing."""
        self.assertIsNone(self.missing())

    def test_gone(self) -> None:
        """What is gone is named."""
        for part, owner, attribute in (
            ("mas", "config.mas", "enabled"),
            ("mas", "config.mas", "secret"),
            ("server", "config.server", "listeners"),
            ("worker", "config.worker", "worker_listeners"),
            ("cache", "ResponseCache", "_result_cache"),
            ("cache", "ResponseCache", "unset"),
        ):
            before = getattr(self, part)
            without: Any = Without(before, gone=attribute)
            setattr(self, part, without)
            self.auth._introspection_cache = self.cache
            self.assertEqual(self.missing(), f"{owner}.{attribute}")
            setattr(self, part, before)
        self.auth = SimpleNamespace()
        self.assertIn("_introspection_cache", self.missing() or "")

    def test_parameter(self) -> None:
        """So is a parameter, and a field of an answer."""
        from synapse.api.auth import mas
        from synapse.util.caches import response_cache

        self.cache.unset = lambda: None
        self.assertEqual(self.missing(), "the parameter key of ResponseCache.unset")
        self.cache.unset = lambda key: None
        self.patch(mas, "IntrospectionResponse", lambda username: None)
        expected = "the parameter device_id of api.auth.mas.IntrospectionResponse"
        self.assertEqual(self.missing(), expected)
        self.patch(response_cache, "ResponseCacheEntry", lambda: None)
        expected = "the parameter result of response_cache.ResponseCacheEntry"
        self.assertEqual(self.missing(), expected)

    def test_delegates_not(self) -> None:
        """What is there only while Synapse delegates is not looked for otherwise."""
        self.mas.enabled = False
        self.auth = SimpleNamespace()
        self.assertIsNone(self.missing())
