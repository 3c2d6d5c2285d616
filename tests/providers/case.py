"""What the tests of the providers share: a case, users, and name servers that do not answer."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.application.service import IService
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from synapse_login_module import testing
from synapse_login_module.model import EmailIdentifier, PhoneIdentifier, UserId, UserIdentifier
from synapse_login_module.plugin import Environment
from tests.support.configuration import password_hash

T = TypeVar("T")

reactor = cast(Any, global_reactor)

SERVER = testing.SERVER_NAME
PASSWORD = "wonderland"
WONDERLAND = password_hash(PASSWORD)


def user(localpart: str, server: str = SERVER) -> UserIdentifier:
    """The user of that name."""
    return UserIdentifier(UserId(localpart, server))


def email(address: str = "alice@example.com") -> EmailIdentifier:
    """The user of that e-mail address."""
    return EmailIdentifier(address)


def phone(msisdn: str = "447700900123") -> PhoneIdentifier:
    """The user of that telephone number."""
    return PhoneIdentifier(msisdn)


def fake_hashing(environment: Environment) -> testing.FakeHashing:
    """The hashing of an environment of :func:`testing.environment`."""
    hashing: Any = environment.hashing
    assert isinstance(hashing, testing.FakeHashing)
    return hashing


class ProviderCase(TestCase):
    """Builds providers on the real reactor, and reads the log."""

    timeout = 60.0

    def build(
        self, cls: Any, config: Mapping[str, Any], environment: Environment | None = None
    ) -> Any:
        """A provider of this configuration, started; it is stopped after the test."""
        folder = self.folder()
        provider = cls(cls.parse_config(config, folder), environment or self.environment())
        if IService.providedBy(provider):
            provider.startService()
            self.addCleanup(lambda: maybeDeferred(provider.stopService))
        return provider

    def environment(self) -> Environment:
        """An environment with the real reactor."""
        return testing.environment(reactor=reactor)

    def folder(self) -> Path:
        """A folder of the test's own, which relative paths are relative to."""
        if not hasattr(self, "_folder"):
            self._folder = Path(self.mktemp()).absolute()
            self._folder.mkdir(parents=True)
        return self._folder

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file there."""
        path = self.folder() / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    async def fails(self, asked: Deferred[Any], kind: type[T]) -> T:
        """The error of this kind that a Deferred fails with."""
        failure = await asked.addCallbacks(repr, lambda failure: failure.value)
        self.assertIsInstance(failure, kind)
        error: T = failure
        return error

    def catch_log(self) -> list[LogEvent]:
        """The events that are logged from now on."""
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return events


def lines(events: Iterable[LogEvent], least: LogLevel = LogLevel.warn) -> list[str]:
    """The lines of log events that are at least so grave."""
    return [
        formatEvent(event)
        for event in events
        if event.get("log_level") and event["log_level"] >= least and event.get("log_format")
    ]


@implementer(IHostnameResolver)
class NoAnswer:
    """Name servers that do not answer, in the place of all others until ``end``."""

    def __init__(self, case: TestCase) -> None:
        self._others = reactor.installNameResolver(self)
        case.addCleanup(self.end)

    def end(self) -> None:
        """Let the others answer again."""
        reactor.installNameResolver(self._others)

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Say nothing."""


@implementer(IHostnameResolver)
class EverythingIsHere:
    """Name servers that know every name, as this machine's, until the test is over."""

    def __init__(self, case: TestCase) -> None:
        others = reactor.installNameResolver(self)
        case.addCleanup(reactor.installNameResolver, others)

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Say the loopback address."""
        resolutionReceiver.resolutionBegan(None)
        if hostName == "::1":
            resolutionReceiver.addressResolved(IPv6Address("TCP", hostName, portNumber))
        else:
            resolutionReceiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        resolutionReceiver.resolutionComplete()


def in_coroutine(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Begin, and go on with something else."""
    return Deferred.fromCoroutine(work)
