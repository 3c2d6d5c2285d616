"""Whole conversations over the resource tree, against the model."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.model import AccountStatus, TokenPolicy
from synapse_login_module.testing import SERVER_NAME
from tests.fuzz import model
from tests.fuzz.model import Model, Told
from tests.support.rig import Rig
from tests.support.web import Reply, WebCase

EXAMPLES = int(os.environ.get("FUZZ_CONVERSATIONS", "150"))

_ALICE, _BOB = (f"@{name}:{SERVER_NAME}" for name in ("alice", "bob"))
_PASSWORDS = {_ALICE: "wonderland", _BOB: "builder"}
_GARBAGE = ("", "x", "slmat_", "slmrt_AAAA", "é", "a" * 300)
_POLICY = TokenPolicy(
    refreshable_access_token=model.ACCESS_LIFETIME,
    refresh_token=model.IDLE_LIFETIME,
    session=model.SESSION_LIFETIME,
    login_token=model.LOGIN_TOKEN_LIFETIME,
    reuse_interval=model.REUSE_INTERVAL,
)

_users = st.sampled_from([_ALICE, _BOB])
_spellings = st.sampled_from(["user", "localpart", "identifier"])
_passwords = st.sampled_from([*_PASSWORDS.values(), *_PASSWORDS.values(), "", "wrong"])
_devices = st.sampled_from([None, "PHONE", "DESK"])
_statuses = st.sampled_from([None, None, AccountStatus.LOCKED, AccountStatus.DEACTIVATED])
_prefixes = st.sampled_from(["r0", "v3", "v1", "unstable", "api/v1", "v2_alpha"])
_pauses = st.sampled_from(
    [
        1,
        1,
        model.REUSE_INTERVAL - 1,
        model.REUSE_INTERVAL,
        model.LOGIN_TOKEN_LIFETIME,
        model.ACCESS_LIFETIME - 1,
        model.ACCESS_LIFETIME,
        model.IDLE_LIFETIME - 1,
        model.IDLE_LIFETIME,
    ]
)
_picks = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
"""The index of a token: 0 is the newest, and the highest ones are garbage or no token."""
_own_picks = st.sampled_from([0, 0, 0, 1, 1, 2, 3])
_rarely = st.integers(min_value=0, max_value=3).map(lambda number: not number)


class _Browser(WebCase):
    """Sends requests to the resource tree for the state machine, which is no test case."""

    def runTest(self) -> None:
        """Run nothing."""


class Conversation(RuleBasedStateMachine):
    """Clients, thieves and an administrator, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(policy=_POLICY)
        self.web = _Browser()
        self.web.use(self.rig)
        self.rig.accounts.passwords.clear()
        self.rig.accounts.passwords.update(_PASSWORDS)
        self.model = Model(round(self.rig.clock.seconds() * 1000), dict(_PASSWORDS))
        self.refresh_tokens: list[str] = []
        self.access_tokens: list[str] = []
        self.login_tokens: list[str] = []

    @rule(
        user=_users,
        spelling=_spellings,
        password=_passwords,
        device=_devices,
        asks=st.booleans(),
        prefix=_prefixes,
    )
    def log_in(
        self,
        user: str,
        spelling: str,
        password: str,
        device: str | None,
        asks: bool,
        prefix: str,
    ) -> None:
        """Log in with a password, right or wrong."""
        ways: dict[str, dict[str, Any]] = {
            "user": {"user": user},
            "localpart": {"user": user[1:].partition(":")[0]},
            "identifier": {"identifier": {"type": "m.id.user", "user": user}},
        }
        body = {"type": "m.login.password", "password": password, **ways[spelling]}
        self._log_in(self.model.password(user, password), user, body, device, asks, prefix)

    @rule(pick=_picks, device=_devices, asks=st.booleans(), prefix=_prefixes)
    def log_in_with_token(self, pick: int, device: str | None, asks: bool, prefix: str) -> None:
        """Log in with a login token, which may be used already."""
        token = self._pick(self.login_tokens, pick) or ""
        told, user = self.model.login_token(token)
        body = {"type": "m.login.token", "token": token}
        self._log_in(told, user, body, device, asks, prefix)

    @rule(refresh=_picks, access=_picks, strict=st.booleans(), prefix=_prefixes)
    def refresh(self, refresh: int, access: int, strict: bool, prefix: str) -> None:
        """Refresh with any tokens that were ever issued, or with others."""
        token = self._pick(self.refresh_tokens, refresh) or ""
        self._refresh(token, self._pick(self.access_tokens, access), strict, prefix)

    @rule(pick=_own_picks, strict=_rarely, prefix=_prefixes)
    def refresh_with_its_own(self, pick: int, strict: bool, prefix: str) -> None:
        """Refresh as a client does: with the two tokens of one response."""
        if self.refresh_tokens:
            index = -1 - pick % len(self.refresh_tokens)
            self._refresh(self.refresh_tokens[index], self.access_tokens[index], strict, prefix)

    @rule(pick=_picks, prefix=_prefixes)
    def whoami(self, pick: int, prefix: str) -> None:
        """Use an access token."""
        token = self._pick(self.access_tokens, pick)
        told, session = self.model.use(token)
        reply = self._ask("GET", prefix, "account/whoami", None, token)
        self._assert_told(reply, told)
        if session is not None:
            assert reply.json == {"user_id": session.user, "device_id": session.device}

    @rule(pick=_picks, everywhere=_rarely, prefix=_prefixes)
    def log_out(self, pick: int, everywhere: bool, prefix: str) -> None:
        """Log out."""
        token = self._pick(self.access_tokens, pick)
        told = self.model.log_out(token, everywhere=everywhere)
        path = "logout/all" if everywhere else "logout"
        self._assert_told(self._ask("POST", prefix, path, {}, token), told)

    @rule(pick=_own_picks, user=_users, password=st.none() | _passwords, prefix=_prefixes)
    def get_token(self, pick: int, user: str, password: str | None, prefix: str) -> None:
        """Ask for a login token."""
        token = self._pick(self.access_tokens, pick)
        told, session = self.model.use(token)
        body: dict[str, Any] = {}
        if password is not None:
            auth = {"type": "m.login.password", "user": user, "password": password}
            body = {"auth": auth}
        if session is not None and password is None:
            told = model.NO_PASSWORD
        elif session is not None and password is not None:
            told = self.model.password(user, password)
            if told is model.FORBIDDEN or (told is model.OK and user != session.user):
                told = model.WRONG_PASSWORD
        reply = self._ask("POST", prefix, "login/get_token", body, token)
        self._assert_told(reply, told)
        if told is model.OK:
            login_token = reply.json["login_token"]
            assert login_token not in self.login_tokens
            self.login_tokens.append(login_token)
            until = self.model.now + model.LOGIN_TOKEN_LIFETIME
            self.model.login_tokens[login_token] = (user, until)

    @rule(user=_users, status=_statuses)
    def set_status(self, user: str, status: AccountStatus | None) -> None:
        """Lock, deactivate or reactivate an account."""
        if status is None:
            self.rig.accounts.statuses.pop(user, None)
            self.model.statuses.pop(user, None)
        else:
            self.rig.accounts.statuses[user] = status
            self.model.statuses[user] = status.value

    @rule(user=_users, remove=_rarely)
    def remove_or_restore(self, user: str, remove: bool) -> None:
        """Remove an account, or restore it."""
        if remove != (user in self.model.passwords):
            return
        for passwords in (self.rig.accounts.passwords, self.model.passwords):
            if passwords.pop(user, None) is None:
                passwords[user] = _PASSWORDS[user]

    @rule(pause=_pauses)
    def wait(self, pause: int) -> None:
        """Let time pass."""
        self.model.now += pause
        self.rig.clock.rightNow = self.model.now / 1000

    def _log_in(
        self,
        told: Told,
        user: str,
        body: dict[str, Any],
        device: str | None,
        asks: bool,
        prefix: str,
    ) -> None:
        if device is not None:
            body["device_id"] = device
        if asks:
            body["refresh_token"] = True
        reply = self._ask("POST", prefix, "login", body)
        self._assert_told(reply, told)
        if told is not model.OK:
            return
        answer = reply.json
        assert answer["user_id"] == user
        assert device in (None, answer["device_id"])
        access, refresh = answer["access_token"], answer["refresh_token"]
        self.model.began(user, answer["device_id"], access, refresh, refreshable=asks)
        self._keep(access, refresh)

    def _refresh(self, refresh: str, access: str | None, strict: bool, prefix: str) -> None:
        told = self.model.refresh(refresh, access, strict=strict)
        path = "tokenrefresh" if strict else "refresh"
        reply = self._ask("POST", prefix, path, {"refresh_token": refresh}, access)
        self._assert_told(reply, told)
        if told is model.OK:
            answer = reply.json
            pair = answer["access_token"], answer["refresh_token"]
            self.model.refreshed(refresh, *pair, strict=strict)
            self._keep(*pair)

    def _keep(self, access: str, refresh: str) -> None:
        if access not in self.access_tokens:
            self.access_tokens.append(access)
            self.refresh_tokens.append(refresh)

    def _pick(self, tokens: list[str], pick: int) -> str | None:
        """Return a token, most likely one of the newest."""
        choices: list[str | None] = [*reversed(tokens[-6:]), None, *_GARBAGE]
        return choices[pick % len(choices)]

    def _ask(
        self,
        method: str,
        prefix: str,
        path: str,
        payload: object = None,
        token: str | None = None,
    ) -> Reply:
        return self.web.ask(method, f"/_matrix/client/{prefix}/{path}", payload, token=token)

    def _assert_told(self, reply: Reply, told: Told) -> None:
        answer = reply.json
        found = Told(reply.status, answer.get("errcode", ""), answer.get("soft_logout", False))
        assert found == told, f"{found} {reply.body!r}"


class ConversationTests(SynchronousTestCase):
    """The whole HTTP surface."""

    def test_conversations(self) -> None:
        """Any requests in any order get the responses that the contract says."""
        run_state_machine_as_test(
            Conversation,
            settings=settings(max_examples=EXAMPLES, stateful_step_count=50),
        )
