"""Telling of sessions that have ended, where that fails; over fakes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed

from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.errors import ReusedToken
from synapse_login_module.testing.sessions import refresh
from tests.synapse.test_marks import HAS_SYNAPSE, NeedsSynapse

if HAS_SYNAPSE or TYPE_CHECKING:
    from synapse.handlers.auth import PasswordAuthProvider

    from synapse_login_module.synapse.aftermath import Aftermath
    from synapse_login_module.synapse.chains import EndedToken
    from synapse_login_module.synapse.ending import Ended, SessionEnding
    from synapse_login_module.synapse.module import SynapseLoginModule
    from synapse_login_module.synapse.store import SynapseTokenStore

_ALICE = "@alice:hs.example"


class FailingAftermath:
    """Synapse, where it cannot stop pushers."""

    def tell_modules(self, user_id: str, token: EndedToken) -> Deferred[None]:
        return succeed(None)

    def remove_pushers(self, user_id: str, tokens: list[EndedToken]) -> Deferred[None]:
        return fail(ZeroDivisionError("no pushers"))


class FakeHomeserver:
    """Ends a session for reuse, whatever is asked of it."""

    lifetimes = SimpleNamespace(refresh_token=None)
    secret = b"secret"
    server_name = "hs.example"
    is_main = True
    hs = SimpleNamespace(get_datastores=lambda: SimpleNamespace(main=None))

    def now(self) -> int:
        return 1

    def call_synapse(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(function(*arguments))

    def new_ids(self) -> tuple[int, int, int]:
        return 1, 2, 3

    def transaction(self, name: str, work: object) -> Deferred[Any]:
        ended = Ended(_ALICE, [EndedToken(1, "token", "PHONE")], EndReason.REUSED)
        return succeed((ReusedToken(_ALICE, "PHONE"), ended))


class TellingTests(NeedsSynapse):
    """A refresh token that was used again."""

    def test_reused(self) -> None:
        """Reuse is answered even if pushers cannot be removed; that error is logged."""
        homeserver: Any = FakeHomeserver()
        ended: list[str] = []
        ending = SessionEnding(homeserver, ended.append)
        self.patch(ending, "_aftermath", FailingAftermath())
        store = SynapseTokenStore(homeserver, 1, 1, bytes, ending)
        error = self.failureResultOf(refresh(store, "syr_x_y_z", None, strict=True), ReusedToken)
        self.assertEqual((error.value.user_id, error.value.device_id), (_ALICE, "PHONE"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(ended, ["reused"])

    def test_only_others(self) -> None:
        """This module is not told of what it has ended: the device may have a new session."""
        told: list[tuple[str, str | None, str]] = []

        async def tell(user_id: str, device_id: str | None, access_token: str) -> None:
            told.append((user_id, device_id, access_token))

        async def forget(user_id: str, device_id: str) -> None:
            told.append((user_id, device_id, "forgotten"))

        providers = PasswordAuthProvider()
        module: Any = SynapseLoginModule.__new__(SynapseLoginModule)
        module._store = SimpleNamespace(forget=forget)
        own = module.on_logged_out
        providers.on_logged_out_callbacks = [own, tell]
        homeserver: Any = FakeHomeserver()
        homeserver.hs = SimpleNamespace(
            get_datastores=homeserver.hs.get_datastores,
            get_password_auth_provider=lambda: providers,
        )
        telling = Aftermath(homeserver).tell_modules(_ALICE, EndedToken(1, "token", "PHONE"))
        self.successResultOf(Deferred.fromCoroutine(telling))
        self.assertEqual(told, [(_ALICE, "PHONE", "token")])
        self.assertEqual(providers.on_logged_out_callbacks, [own, tell])
