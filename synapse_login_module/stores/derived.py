"""A token store whose tokens are derived from its rows, over any database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from synapse_login_module.common.lru import Recent
from synapse_login_module.errors import (
    ExpiredToken,
    NotReserved,
    ReusedToken,
    SessionMismatch,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    Claim,
    Link,
    Login,
    PresentedToken,
    Session,
    SessionInfo,
    TokenPair,
    TokenPolicy,
)
from synapse_login_module.stores.catching_up import log_caught_up
from synapse_login_module.stores.keys import KnowsTokenKeys, SharedKeys
from synapse_login_module.stores.linking import KeepsLinks, LinkedLogin, linked_login
from synapse_login_module.stores.login_tokens import KeepsLoginTokens
from synapse_login_module.stores.names import free_id, new_device_id
from synapse_login_module.stores.ping import SharedPing
from synapse_login_module.stores.rows import Database, Rows
from synapse_login_module.tokens import over, rotation
from synapse_login_module.tokens.format import SALT_SIZE, KeyRing, ParsedToken, TokenKind, parse
from synapse_login_module.tokens.rotation import AccessOutcome, Outcome

A = TypeVar("A")
T = TypeVar("T")

_REMEMBERED = 10_000
_PAGE = 100
"""The fewest rows of a read, so that few sessions among many that are over cost few reads."""


@implementer(ITokenStore)
class DerivedTokenStore(KnowsTokenKeys, KeepsLinks, KeepsLoginTokens):
    """The rules of sessions, tokens and links, over any :class:`~.rows.Database`.

    :param database: the database that holds the rows.
    :param keys: the keys that tokens are derived under.
    :param policy: the lifetimes of tokens and sessions.
    :param clock: the wall clock, seconds since the epoch.
    :param random: returns the given number of random bytes.
    :param delegated: whether a homeserver delegates to this server. The end of a session then notes
        its device, and a session begins only on a device that is reserved.
    """

    def __init__(
        self,
        database: Database,
        keys: KeyRing,
        policy: TokenPolicy,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        delegated: bool = False,
    ) -> None:
        self._database = database
        self._keys = keys
        self._shared = SharedKeys(keys, database, clock)
        self._policy = policy
        self._clock = clock
        self._random = random
        self._delegated = delegated
        self._ping = SharedPing(self._probe, clock)
        self._owners: Recent[int, tuple[Session, Link | None]] = Recent(_REMEMBERED)

    def issue(
        self,
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
        with_refresh_token: bool,
        login_token: str | None = None,
        claim: Claim | None = None,
    ) -> Deferred[Login]:
        """Begin a session; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        now, policy = self._now(), self._policy
        drawn: list[int] = []
        device = device_id or new_device_id(self._random)
        lifetime = (
            policy.refreshable_access_token if refreshable else policy.nonrefreshable_access_token
        )

        def owner(rows: Rows) -> LinkedLogin:
            if login_token is not None:
                self._require_login_token(rows, login_token, user_id, now)
            elif claim is not None:
                return linked_login(user_id, claim, rows.links_of(user_id, claim))
            return LinkedLogin(user_id)

        def work(rows: Rows) -> Login:
            self._keys.renew()
            key_id = self._shared.signing(rows)
            linked, session_id = rows.together(
                lambda: owner(rows), lambda: free_id(self._random, now, drawn, rows.is_free)
            )
            if self._delegated and not rows.is_reserved(linked.user_id, device):
                raise NotReserved("the reservation of the device has ended")
            if login_token is not None:
                self._use_login_token(rows, login_token)
            session = Session(
                session_id=session_id,
                user_id=linked.user_id,
                device_id=device,
                display_name=display_name,
                salt=self._random(SALT_SIZE),
                key_id=key_id,
                generation=0,
                confirmed=True,
                created_at=now,
                issued_at=now,
                access_expires_at=rotation.access_expiry(now, lifetime, now, policy),
                previous_expires_at=None if with_refresh_token else over.NO_REFRESH_TOKEN,
            )
            rows.insert(session, linked.link, linked.new, self._delegated)
            pair = self._pair(session, now, with_refresh_token)
            return Login(linked.user_id, session.device_id, pair)

        self._shared.follow()
        return self._shared.sign(work, lambda login: login)

    def present(self, refresh_token: str) -> Deferred[PresentedToken]:
        """Check a refresh token; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        parsed = parse(TokenKind.REFRESH, refresh_token)
        if parsed is None:
            return fail(UnknownToken())
        known = self._owners.get(parsed.session_id)
        keys = self._keys.fingerprints
        # verify() may block to read the key file for an unknown key: leave that to the work below.
        if (
            known is not None
            and self._keys.holds(parsed.key_id)
            and self._keys.verify(parsed, known[0].salt)
        ):
            return succeed(_present(parsed, keys, *known))

        def work(rows: Rows) -> tuple[Session, Link | None]:
            found = rows.owner(parsed.session_id)
            if found is None:
                raise UnknownToken
            self._require_authentic(rows, parsed, found[0])
            return found

        def answer(found: tuple[Session, Link | None]) -> PresentedToken:
            # Once committed: the user of a session never changes, and if their link does, it ends.
            # A session of an application service goes on when the person logs in.
            if found[1] is None or found[1].provider != APPLICATION_SERVICE:
                self._owners.remember(parsed.session_id, found)
            return _present(parsed, keys, *found)

        return self._database.run(work).addCallback(answer)

    def refresh(
        self, presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Exchange a refresh token; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        now = self._now()
        behind: list[Session] = []
        parsed, verified = presented.checked

        def work(rows: Rows) -> TokenPair | ReusedToken:
            session = self._authentic(rows, parsed, verified)
            if access_token is not None:
                self._require_same_session(rows, session, access_token)
            key_id = self._shared.signing(rows)
            decision = rotation.refresh(
                session, parsed.generation, now, strict, key_id, self._policy
            )
            if decision.session is not None:
                written = decision.session
                # A repeated pair is derived under the key of the first time.
                if decision.outcome is Outcome.REPEATED and written.key_id != key_id:
                    key_id = self._shared.resigning(rows, written.key_id)
                    written = written._replace(key_id=key_id)
                if not rows.compare_and_swap(session, written):
                    return work(rows)
                if decision.outcome is Outcome.REUSED:
                    return ReusedToken(session.user_id, session.device_id)
                if decision.outcome is Outcome.CAUGHT_UP:
                    behind[:] = [session]
                return self._pair(written, now, True)
            if decision.outcome is Outcome.EXPIRED:
                raise ExpiredToken
            if decision.outcome in (Outcome.RACED, Outcome.ENDED):
                raise SupersededToken
            raise UnknownToken

        def answer(result: TokenPair | ReusedToken) -> TokenPair:
            log_caught_up(behind)
            # The work returned the error, so that the end of the session was committed.
            if isinstance(result, ReusedToken):
                raise result
            return result

        self._shared.follow()
        return self._shared.sign(work, answer)

    def session_for_access_token(
        self, access_token: str, allow_expired: bool
    ) -> Deferred[SessionInfo]:
        """Find a session; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        now = self._now()
        behind: list[Session] = []

        def catch_up(rows: Rows, parsed: ParsedToken, session: Session) -> SessionInfo | None:
            ahead = rotation.caught_up(session, parsed.generation, now, self._policy)
            if not rows.compare_and_swap(session, ahead._replace(key_id=parsed.key_id)):
                return work(rows, parsed)
            behind[:] = [session]
            outcome = rotation.access(ahead, parsed.generation, now, self._policy)
            if allow_expired or outcome is AccessOutcome.VALID:
                return self._used(ahead, parsed)
            return None

        def work(rows: Rows, parsed: ParsedToken) -> SessionInfo | None:
            session = self._authentic(rows, parsed)
            outcome = rotation.access(session, parsed.generation, now, self._policy)
            if outcome is AccessOutcome.AHEAD:
                return catch_up(rows, parsed, session)
            if outcome is AccessOutcome.SUPERSEDED:
                raise ExpiredToken
            if outcome is AccessOutcome.EXPIRED and not allow_expired:
                raise ExpiredToken
            if outcome is AccessOutcome.CONFIRMS and not rows.compare_and_swap(
                session, session._replace(confirmed=True)
            ):
                return work(rows, parsed)
            return self._used(session, parsed)

        def answer(found: SessionInfo | None) -> SessionInfo:
            log_caught_up(behind)
            if found is None:  # not raised by the work, so that the caught-up row was committed
                raise ExpiredToken
            return found

        return self._with_token(TokenKind.ACCESS, access_token, work, answer)

    def revoke(self, session: SessionInfo) -> Deferred[None]:
        """End one session; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        note = self._note()
        return self._database.run(lambda rows: rows.delete(int(session.handle), note))

    def revoke_all(self, user_id: str, device_grace: int = 0) -> Deferred[int]:
        """End a user's sessions; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        now, note = self._now(), self._note(device_grace)

        def work(rows: Rows) -> int:
            living = self._not_over(rows.sessions(user_id), now)
            rows.delete_user(user_id, note)
            return len(living)

        return self._database.run(work)

    def sessions(
        self, user_id: str | None, after: SessionInfo | None = None, most: int = 1000
    ) -> Deferred[list[SessionInfo]]:
        """List sessions; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        start = 0 if after is None else int(after.handle)
        return Deferred.fromCoroutine(self._page(user_id, start, most))

    async def _page(self, user_id: str | None, after: int, most: int) -> list[SessionInfo]:
        """Read rows until enough of them are of sessions that are not over.

        Each read is as short as a page, or as ``_PAGE``, however many sessions are over.
        """
        size = max(most, _PAGE)
        found: list[SessionInfo] = []
        while True:
            page = await self._database.read(methodcaller("page", user_id, after, size))
            found += [_info(each) for each in self._not_over(page, self._now())]
            if len(page) < size or len(found) >= most:
                return found[:most]
            after = page[-1].session_id

    def ping(self) -> Deferred[None]:
        """Check the store; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        return self._able_to_sign(self._ping())

    def _probe(self) -> Deferred[None]:
        """Check that the store can be reached by work that writes."""
        return self._database.run(lambda rows: rows.delete(0))  # no session has this number

    def _with_token(
        self,
        kind: TokenKind,
        token: str,
        work: Callable[[Rows, ParsedToken], T],
        finish: Callable[[T], A],
    ) -> Deferred[A]:
        """Run work that begins with a token. Text that is not a token is rejected before that."""
        parsed = parse(kind, token)
        if parsed is None:
            return fail(UnknownToken())
        self._shared.follow()
        return self._shared.sign(lambda rows: work(rows, parsed), finish)

    def _authentic(self, rows: Rows, parsed: ParsedToken, verified: object = None) -> Session:
        """Read the session of a token, and verify the token.

        :param verified: the keys and the salt with which this request has verified it already.
        """
        session = rows.session(parsed.session_id)
        if session is None:
            raise UnknownToken
        known = verified == (self._keys.fingerprints, session.salt)
        if not (known and self._shared.is_shared(parsed.key_id)):
            self._require_authentic(rows, parsed, session)
        if parsed.generation > session.generation:
            session = rows.reread(parsed.session_id)
            if session is None:
                raise UnknownToken
        return session

    def _require_authentic(self, rows: Rows, parsed: ParsedToken, session: Session) -> None:
        likely = parsed.key_id == session.key_id
        if not self._shared.verify(rows, parsed, session.salt, likely):
            raise UnknownToken

    def _not_over(self, sessions: Sequence[Session], now: int) -> list[Session]:
        """Leave out the sessions that are over and still have rows."""
        moment = over.bounds(self._policy, now)
        return [
            each for each in sessions if not (over.is_ended(each) or over.was_over(each, moment))
        ]

    def _require_same_session(self, rows: Rows, session: Session, access_token: str) -> None:
        parsed = parse(TokenKind.ACCESS, access_token)
        if parsed is None or parsed.session_id != session.session_id:
            raise SessionMismatch
        try:
            self._require_authentic(rows, parsed, session)
        except (UnknownToken, ExpiredToken):
            raise SessionMismatch from None

    def _pair(self, session: Session, now: int, with_refresh_token: bool) -> TokenPair:
        def derive(kind: TokenKind) -> str:
            return self._keys.derive(
                kind, session.key_id, session.session_id, session.generation, session.salt
            )

        expires_at = session.access_expires_at
        return TokenPair(
            derive(TokenKind.ACCESS),
            derive(TokenKind.REFRESH) if with_refresh_token else None,
            None if expires_at is None else max(0, expires_at - now),
        )

    def _used(self, session: Session, parsed: ParsedToken) -> SessionInfo:
        """Describe the session of an access token that is used."""
        expires_at = rotation.access_token_expiry(session, parsed.generation, self._policy)
        return _info(session)._replace(access_expires_at=expires_at)

    def _note(self, grace: int = 0) -> int | None:
        """Return when the device of a session that ends now is due; ``None`` to note nothing.

        :param grace: milliseconds from now.
        """
        return self._now() + grace if self._delegated else None

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _present(parsed: ParsedToken, keys: Any, session: Session, link: Link | None) -> PresentedToken:
    return PresentedToken(_info(session, link), (parsed, (keys, session.salt)))


def _info(session: Session, link: Link | None = None) -> SessionInfo:
    return SessionInfo(
        session.session_id,
        session.user_id,
        session.device_id,
        session.display_name,
        session.created_at,
        session.issued_at,
        link,
    )
