"""The parts of the store inside Synapse that need no server: marks, token forms, the mapping."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import (
    IAccounts,
    ILinks,
    ILinkWatch,
    IPasswordProvider,
    ITokenStore,
)
from synapse_login_module.model import TokenPolicy
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.testing import FakeHashing
from synapse_login_module.tokens import rotation
from synapse_login_module.tokens.rotation import Outcome

HAS_SYNAPSE = find_spec("synapse") is not None

if HAS_SYNAPSE or TYPE_CHECKING:
    from synapse_login_module.synapse import token_format
    from synapse_login_module.synapse.chains import (
        AccessRow,
        Generation,
        TokenChain,
        as_session,
    )
    from synapse_login_module.synapse.token_format import RefreshTokenTag

_SERVER = "hs.example"
_INTERVAL = 10_000
_NOW = 1_700_000_000_000

localparts = st.text(min_size=1, max_size=60).filter(lambda text: ":" not in text)
user_ids = localparts.map(lambda localpart: f"@{localpart}:{_SERVER}")


class NeedsSynapse(SynchronousTestCase):
    """Skipped where there is no Synapse."""

    if not HAS_SYNAPSE:
        skip = "not installed: synapse"


class TokenFormTests(NeedsSynapse):
    """Tokens in Synapse's form."""

    @given(localparts, st.binary(min_size=1, max_size=48))
    def test_round_trip(self, localpart: str, random: bytes) -> None:
        """What a token was made of can be read from it."""
        token = token_format.refresh_token(f"@{localpart}:{_SERVER}", random)
        self.assertEqual(token_format.random_part(token, len(random)), (localpart, random))
        self.assertTrue(token.startswith("syr_"))
        self.assertTrue(token.isascii())

    @given(user_ids, st.binary(min_size=1, max_size=48))
    def test_form(self, user_id: str, random: bytes) -> None:
        """A token has four parts, the last of them the checksum that Synapse's own have."""
        token = token_format.access_token(user_id, random)
        kind, _, _, checksum = token.split("_")
        self.assertEqual((kind, len(checksum)), ("syt", 6))

    def test_synapse_takes_it(self) -> None:
        """Synapse's own check of a refresh token's form passes one of ours."""
        from synapse.handlers.auth import AuthHandler

        checks = AuthHandler._verify_refresh_token
        token = token_format.refresh_token("@alice:hs.example", bytes(range(40)))
        self.assertTrue(checks(None, token))  # type: ignore[arg-type]
        self.assertFalse(checks(None, token[:-1]))  # type: ignore[arg-type]

    @given(st.text(max_size=200), st.integers(min_value=0, max_value=64))
    def test_rubbish(self, text: str, size: int) -> None:
        """Whatever it is given, reading a token raises nothing."""
        token_format.random_part(text, size)

    @given(st.lists(st.text("Aa0_=/+-", max_size=12), min_size=4, max_size=4))
    def test_rubbish_of_the_form(self, parts: list[str]) -> None:
        """Nor when it has the form of a token."""
        token_format.random_part("_".join(parts), 40)


class MarksTests(NeedsSynapse):
    """Marks, which say which session a refresh token is of."""

    def setUp(self) -> None:
        if HAS_SYNAPSE:
            self.marks = RefreshTokenTag(b"secret", _SERVER)

    @given(user_ids, st.binary(min_size=16, max_size=16), st.binary(min_size=12, max_size=12))
    def test_read(self, user_id: str, session_id: bytes, nonce: bytes) -> None:
        """A mark names its session, also to another object with the same secret."""
        token = self.marks.make(user_id, session_id, nonce)
        self.assertEqual(RefreshTokenTag(b"secret", _SERVER).read(token), session_id)

    @given(
        user_ids,
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=12, max_size=12),
        st.data(),
    )
    def test_changed(
        self, user_id: str, session_id: bytes, nonce: bytes, data: st.DataObject
    ) -> None:
        """A token that differs in one letter is of another session."""
        token = self.marks.make(user_id, session_id, nonce)
        place = data.draw(st.integers(min_value=0, max_value=len(token) - 1))
        letter = data.draw(st.sampled_from("abcXYZ0189_"))
        changed = token[:place] + letter + token[place + 1 :]
        assume(changed != token)
        self.assertNotEqual(self.marks.read(changed), session_id)

    @given(user_ids, st.binary(min_size=16, max_size=16), st.binary(min_size=12, max_size=12))
    def test_of_others(self, user_id: str, session_id: bytes, nonce: bytes) -> None:
        """A tag of another secret or server, or of an access token, names no session."""
        token = self.marks.make(user_id, session_id, nonce)
        for other in (
            RefreshTokenTag(b"other", _SERVER),
            RefreshTokenTag(b"secret", "other.example"),
        ):
            self.assertNotEqual(other.read(token), session_id)
        self.assertNotEqual(self.marks.read(f"syt{token[3:]}"), session_id)

    @given(st.text(max_size=100))
    def test_without_mark(self, text: str) -> None:
        """Any other text stands for a session of its own, always the same."""
        self.assertEqual(self.marks.read(text), self.marks.read(text))
        self.assertEqual(len(self.marks.read(text)), 16)
        self.assertNotEqual(self.marks.read(text), self.marks.read(f"{text}x"))


def _link(row_id: int, used: bool, issued_at: int) -> Generation:
    access = AccessRow(row_id, f"access{row_id}", None, used, issued_at)
    return Generation(row_id, f"refresh{row_id}", None, access)


def _chain(
    following: Generation | None, older: bool = False, presented: Generation | None = None
) -> TokenChain:
    return TokenChain(
        user_id="@alice:hs.example",
        device_id="DEVICE",
        presented=presented or _link(1, True, _NOW - 60_000),
        next=following,
        older=older,
        ends_at=None,
    )


class MappingTests(NeedsSynapse):
    """Synapse's rows in the terms of the table."""

    def outcome(self, chain: TokenChain, strict: bool) -> Outcome:
        """What becomes of a refresh."""
        session, presented = as_session(chain)
        policy = TokenPolicy(reuse_interval=_INTERVAL)
        return rotation.refresh(session, presented, _NOW, strict, 0, policy).outcome

    def test_current(self) -> None:
        """The refresh token without a successor is the current one, used or not."""
        for strict in (False, True):
            self.assertIs(self.outcome(_chain(None), strict), Outcome.ROTATED)
            unused = _chain(None, presented=_link(1, False, _NOW))
            self.assertIs(self.outcome(unused, strict), Outcome.ROTATED)

    def test_unconfirmed(self) -> None:
        """One whose successor was never used gives that again, however long ago it was."""
        for age in (0, _INTERVAL, 100 * _INTERVAL):
            chain = _chain(_link(2, False, _NOW - age))
            for strict in (False, True):
                self.assertIs(self.outcome(chain, strict), Outcome.REPEATED)

    def test_race(self) -> None:
        """One whose successor was used is in a race, within the interval."""
        for age in (0, _INTERVAL - 1):
            chain = _chain(_link(2, True, _NOW - age))
            self.assertIs(self.outcome(chain, True), Outcome.RACED)

    def test_reuse(self) -> None:
        """And reused after it."""
        for age in (_INTERVAL, 100 * _INTERVAL):
            chain = _chain(_link(2, True, _NOW - age))
            self.assertIs(self.outcome(chain, True), Outcome.REUSED)

    def test_older(self) -> None:
        """One whose successor has a successor is reused at any time, used or not."""
        for used in (False, True):
            chain = _chain(_link(2, used, _NOW), older=True)
            self.assertIs(self.outcome(chain, False), Outcome.REUSED)

    def test_access_token_gone(self) -> None:
        """A successor without an access token counts as used."""
        chain = _chain(Generation(2, "refresh2", None, None))
        self.assertIs(self.outcome(chain, True), Outcome.REUSED)


class InterfaceTests(NeedsSynapse):
    """The classes for Synapse provide the interfaces."""

    def test_interfaces(self) -> None:
        """The store and the providers provide their interfaces."""
        from synapse_login_module.synapse.accounts import HomeserverAccounts
        from synapse_login_module.synapse.link_watch import SynapseLinkWatch
        from synapse_login_module.synapse.links import SynapseLinks
        from synapse_login_module.synapse.provider import SynapsePasswordProvider
        from synapse_login_module.synapse.store import SynapseTokenStore

        fake: Any = SimpleNamespace(
            lifetimes=None, secret=b"", server_name=_SERVER, hashing=None, homeserver=object()
        )
        verifyObject(ITokenStore, SynapseTokenStore(fake, 1, 1, bytes, fake))
        verifyObject(IPasswordProvider, SynapsePasswordProvider(None, fake))
        accounts = HomeserverAccounts(fake, None, fake, FakeHashing(), fake, False, fake, fake)
        verifyObject(IAccounts, accounts)
        verifyObject(ILinks, SynapseLinks(fake))
        verifyObject(ILinkWatch, SynapseLinkWatch(fake))
        self.assertTrue(IPluginClass.providedBy(SynapsePasswordProvider))

    def test_configuration(self) -> None:
        """The provider takes no configuration, and none but the module can build it."""
        from synapse_login_module.synapse.provider import SynapsePasswordProvider

        self.assertIsNone(SynapsePasswordProvider.parse_config({}, Path()))
        with self.assertRaises(ConfigError) as caught:
            SynapsePasswordProvider.parse_config({"path": "x"}, Path())
        self.assertEqual(str(caught.exception), "path: unknown key")
        standalone: Any = SimpleNamespace(homeserver=None)
        with self.assertRaises(ConfigError):
            SynapsePasswordProvider(None, standalone)
