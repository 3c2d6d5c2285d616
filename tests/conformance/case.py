"""The base of the suite's test classes."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from tests.conformance import server, target
from tests.conformance.client import CheckedClient
from tests.conformance.profiles import NORMAL, Profile
from tests.conformance.target import Feature, Target, TestAccount
from tests.support import wire
from tests.support.response import Response

TestMethod = TypeVar("TestMethod", bound=Callable[..., Awaitable[None] | None])
AsyncTest = TypeVar("AsyncTest", bound=Callable[..., Awaitable[None]])

_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|Unhandled (?:E|e)rror")


def cases(*values: Any) -> Callable[[TestMethod], TestMethod]:
    """Run a test method once for each value, which it takes as its argument.

    In the method's docstring ``{}`` stands for the value.
    """

    def decorate(method: TestMethod) -> TestMethod:
        method.conformance_cases = values  # type: ignore[attr-defined]
        return method

    return decorate


def needs(*features: Feature) -> Callable[[AsyncTest], AsyncTest]:
    """Skip a test method when the target lacks one of the features."""

    def decorate(method: AsyncTest) -> AsyncTest:
        @wraps(method)
        async def checked(self: ConformanceTestCase, *args: Any) -> None:
            self.need(*features)
            await method(self, *args)

        return checked  # type: ignore[return-value]

    return decorate


async def pause(seconds: float) -> None:
    """Wait until a lifetime has passed."""
    await deferLater(cast(Any, reactor), seconds)


class ConformanceTestCase(TestCase):
    """A test case with a server.

    :cvar profile: the profile of the server; the suite itself starts any but :data:`NORMAL`.
    :cvar features: the features that the target must have for any of the tests.
    :cvar errors_in_log: whether the server is expected to log a traceback.
    """

    if TYPE_CHECKING:
        # Not annotated in Twisted.
        def assertEqual(self, first: object, second: object, msg: object = None) -> None: ...
        def assertNotEqual(self, first: object, second: object, msg: object = None) -> None: ...
        def assertIn(self, member: object, container: object, msg: object = None) -> None: ...
        def assertNotIn(self, member: object, container: object, msg: object = None) -> None: ...
        def assertTrue(self, condition: object, msg: object = None) -> None: ...
        def assertFalse(self, condition: object, msg: object = None) -> None: ...

    profile: ClassVar[Profile] = NORMAL
    features: ClassVar[tuple[Feature, ...]] = ()
    errors_in_log: ClassVar[bool] = False
    timeout = 90

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            values = getattr(method, "conformance_cases", None)
            if values is not None:
                delattr(cls, name)
                for value in values:
                    slug = re.sub(r"\W+", "_", str(value)).strip("_")
                    case_name = f"{name}_{slug}"
                    assert case_name not in vars(cls), case_name
                    setattr(cls, case_name, _one_case(method, case_name, value))

    def setUp(self) -> None:
        self.server, self.target = self._find_target()
        self.need(*self.features)
        self.client = CheckedClient(self.target)
        self.addCleanup(self.client.close)
        if self.server is not None:
            self.addCleanup(self._check_log, self.server, self.server.folder.log_size())

    def need(self, *features: Feature) -> None:
        """Skip the test when the target lacks one of the features."""
        missing = [feature.value for feature in features if feature not in self.target.features]
        if missing:
            raise SkipTest(f"the target has no {', '.join(missing)}")

    def second_account(self) -> TestAccount:
        """Return the second account; skip the test if the target has none."""
        if self.target.second is None:
            raise SkipTest("the target has no second account")
        return self.target.second

    def own_server(self) -> server.ConformanceServer:
        """Return the server that the suite started; skip the test on another target."""
        if self.server is None:
            raise SkipTest("needs a server of the suite's own")
        return self.server

    async def connect(self) -> wire.Wire:
        """Open a connection, which is closed at the end of the test."""
        connection = await wire.connect_to(self.target.base_url)
        self.addCleanup(lambda: Deferred.fromCoroutine(connection.close()))
        return connection

    async def logged_in(self, account: TestAccount | None = None, **extra: Any) -> dict[str, Any]:
        """Log in as a client that refreshes; return the response's JSON."""
        answer = await self.client.login(account, refresh_token=True, **extra)
        return self.succeeded(answer)

    def succeeded(self, answer: Response) -> dict[str, Any]:
        """Assert that a response is a success; return its JSON."""
        self.assertEqual(answer.status, 200, str(answer))
        result: dict[str, Any] = answer.json
        return result

    def refused(self, answer: Response, status: int, *errcodes: str) -> None:
        """Assert that a response is an error with this status and one of these codes."""
        self.assertEqual(answer.status, status, str(answer))
        self.assertIn(answer.errcode, errcodes, str(answer))

    async def assert_alive(self, access_token: str) -> None:
        """Assert that an access token works. This counts as a use of it."""
        self.assertEqual((await self.client.whoami(access_token)).status, 200)

    async def assert_dead(self, access_token: str, soft: bool) -> None:
        """Assert that an access token is rejected, with or without ``soft_logout``."""
        answer = await self.client.whoami(access_token)
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        if Feature.STRICT_ERRORS in self.target.features:
            self.assertEqual(answer.soft_logout, soft, str(answer))

    def _find_target(self) -> tuple[server.ConformanceServer | None, Target]:
        external = target.from_environment(os.environ)
        if external is None:
            own = server.shared(self.profile)
            return own, own.target
        if self.profile is not NORMAL:
            raise SkipTest(f"needs a server of its own configuration: {self.profile.name}")
        return None, external

    def _check_log(self, own: server.ConformanceServer, start: int) -> None:
        log = own.folder.log(start)
        if not self.errors_in_log and _TRACEBACK.search(log):
            self.fail(f"the server logged an error:\n{log}")
        for secret in self.client.secrets:
            if secret in log:
                self.fail(f"the server logged a password or token:\n{log}")


def _one_case(method: Callable[..., Any], name: str, value: Any) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def run(self: ConformanceTestCase) -> None:
            await method(self, value)

    else:

        @wraps(method)
        def run(self: ConformanceTestCase) -> None:
            method(self, value)

    run.__name__ = name
    run.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{name}"
    run.__doc__ = (method.__doc__ or "").replace("{}", str(value))
    vars(run).pop("conformance_cases", None)
    return run


def named(values: Iterable[tuple[str, Any]]) -> list[Named]:
    """Give names to values, for :func:`cases`."""
    return [Named(name, value) for name, value in values]


class Named:
    """A value that is shown by a name."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return self.name
