"""Telling of sessions that have ended, where that fails; over fakes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed

from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.errors import ReusedToken
from tests.synapse.test_marks import HAS_SYNAPSE, NeedsSynapse

if HAS_SYNAPSE or TYPE_CHECKING:
    from synapse_login_module.synapse.chains import EndedToken
    from synapse_login_module.synapse.ending import Ended, SessionEnding
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
    api = SimpleNamespace(
        _hs=SimpleNamespace(get_datastores=lambda: SimpleNamespace(main=None)),
        get_current_time_msec=lambda: 1,
    )

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
        """That it was is said, though pushers cannot be removed; that they cannot be is logged."""
        homeserver: Any = FakeHomeserver()
        ended: list[str] = []
        ending = SessionEnding(homeserver, ended.append)
        self.patch(ending, "_aftermath", FailingAftermath())
        store = SynapseTokenStore(homeserver, 1, 1, bytes, ending)
        error = self.failureResultOf(store.refresh("syr_x_y_z", None, strict=True), ReusedToken)
        self.assertEqual((error.value.user_id, error.value.device_id), (_ALICE, "PHONE"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(ended, ["reused"])
