"""A model of the server's responses, made from the tables of the contract and not from the code.

The model holds every token that was ever issued, as text, with its owner. It knows neither keys nor
rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

REUSE_INTERVAL = 10_000
ACCESS_LIFETIME = 300_000
IDLE_LIFETIME = 3_600_000
SESSION_LIFETIME = 4 * 3_600_000
LOGIN_TOKEN_LIFETIME = 120_000
CHECK_INTERVAL = 900_000


@dataclass(frozen=True)
class Told:
    """The outcome of a response.

    :param soft_logout: its ``soft_logout``.
    """

    status: int
    errcode: str = ""
    soft_logout: bool = False


OK = Told(200)
FORBIDDEN = Told(403, "M_FORBIDDEN")
DEACTIVATED = Told(403, "M_USER_DEACTIVATED")
LOCKED = Told(401, "M_USER_LOCKED", soft_logout=True)
UNKNOWN_TOKEN = Told(401, "M_UNKNOWN_TOKEN")
EXPIRED_TOKEN = Told(401, "M_UNKNOWN_TOKEN", soft_logout=True)
MISSING_TOKEN = Told(401, "M_MISSING_TOKEN")
NO_PASSWORD = Told(401)
WRONG_PASSWORD = Told(401, "M_FORBIDDEN")


@dataclass(eq=False)
class Generation:
    """One pair of a session.

    :param access_until: the time when the access token ends.
    """

    access: str
    refresh: str | None
    access_until: float


@dataclass(eq=False)
class Session:
    """One login.

    :ivar generations: every issued pair, oldest first.
    :ivar sure: whether the newest pair is confirmed.
    :ivar handed_out: the time when the newest pair was issued.
    :ivar over: whether the session and its device are gone.
    :ivar reused: whether reuse has ended it: its tokens are dead, and its device lives on.
    :ivar remembered: whether the store remembers whose it is, since a refresh token of it came.
    """

    user: str
    device: str
    began: int
    generations: list[Generation]
    sure: bool = True
    handed_out: int = 0
    over: bool = False
    reused: bool = False
    remembered: bool = False

    def __post_init__(self) -> None:
        self.handed_out = self.began

    @property
    def until(self) -> int:
        """The time when it ends at the latest."""
        return self.began + SESSION_LIFETIME


@dataclass
class Model:
    """The server according to its contract.

    :ivar now: the time in milliseconds.
    :ivar passwords: the passwords of all users that exist.
    :ivar statuses: ``locked`` or ``deactivated``, by user.
    :ivar looks: for each account, the time of the last look and whether it was locked.
    """

    now: int
    passwords: dict[str, str]
    statuses: dict[str, str] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    login_tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    looks: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def password(self, user: str, password: str) -> Told:
        """Return the outcome of a login with a password."""
        if self.passwords.get(user) != password:
            return FORBIDDEN
        return self._welcome(user)

    def login_token(self, token: str) -> tuple[Told, str]:
        """Return the outcome of a login with a login token, and its user."""
        user, until = self.login_tokens.pop(token, ("", 0))
        if self.now >= until:
            return FORBIDDEN, user
        return self._welcome(user), user

    def began(
        self, user: str, device: str, access: str, refresh: str | None, *, refreshable: bool
    ) -> None:
        """Record the session that a login began."""
        for each in self.sessions:
            if (each.user, each.device) == (user, device):
                each.over = True
        self.looks[user] = self.now, False
        until = float(self.now + SESSION_LIFETIME)
        if refreshable:
            until = min(until, self.now + ACCESS_LIFETIME)
        first = Generation(access, refresh, until)
        self.sessions.append(Session(user, device, self.now, [first]))

    def use(self, access: str | None) -> tuple[Told, Session | None]:
        """Return the outcome of using an access token.

        The account is looked at if the last look is too old, or found it locked.
        """
        told, session = self._access(access, allow_expired=False)
        if session is not None:
            at, locked = self.looks.get(session.user, (0, True))
            if locked or self.now >= at + CHECK_INTERVAL:
                told = self._look(session)
        return told, session if told is OK else None

    def log_out(self, access: str | None, *, everywhere: bool) -> Told:
        """Return the outcome of a logout from a session, or from all of its user's."""
        told, session = self._access(access, allow_expired=True)
        if session is not None and everywhere:
            self._end_all(session.user)
        elif session is not None:
            session.over = True
        return told

    def refresh(self, refresh: str, access: str | None, *, strict: bool) -> Told:
        """Return the outcome of a refresh; if it is ``OK``, pass the pair to :meth:`refreshed`."""
        if strict and not access:
            return MISSING_TOKEN
        refused = FORBIDDEN if strict else EXPIRED_TOKEN
        session, index = self._find_refresh(refresh)
        if session is None:
            self._look_after_the_end(refresh)
            return FORBIDDEN if strict else UNKNOWN_TOKEN
        session.remembered = True
        welcome = self._look(session)
        if welcome is LOCKED:
            return LOCKED
        if welcome is not OK:
            return FORBIDDEN if strict else UNKNOWN_TOKEN
        if strict and session is not self._find_access(access)[0]:
            told, _ = self._access(access, allow_expired=True)
            return UNKNOWN_TOKEN if told is UNKNOWN_TOKEN else FORBIDDEN
        if session.reused:
            return refused
        if self.now >= session.handed_out + IDLE_LIFETIME or self.now >= session.until:
            return refused
        behind = len(session.generations) - 1 - index
        if behind == 0 or (behind == 1 and not session.sure):
            return OK
        if behind > 1 or self.now >= session.handed_out + REUSE_INTERVAL:
            session.reused = True
        return refused

    def refreshed(self, used: str, access: str, refresh: str, *, strict: bool) -> None:
        """Record the pair that a refresh returned.

        :raise AssertionError: when it is the wrong one.
        """
        session, index = self._find_refresh(used)
        assert session is not None
        until = min(self.now + ACCESS_LIFETIME, session.until)
        if index == len(session.generations) - 1:
            assert self._find_access(access)[0] is None, "handed out before"
            assert self._find_refresh(refresh)[0] is None, "handed out before"
            session.generations.append(Generation(access, refresh, until))
        else:
            newest = session.generations[-1]
            assert (newest.access, newest.refresh) == (access, refresh), "not the very same pair"
            newest.access_until = until
        session.sure, session.handed_out = strict, self.now

    def _access(self, access: str | None, *, allow_expired: bool) -> tuple[Told, Session | None]:
        if not access:
            return MISSING_TOKEN, None
        session, index = self._find_access(access)
        if session is None:
            return UNKNOWN_TOKEN, None
        newest = len(session.generations) - 1
        if session.reused:
            return EXPIRED_TOKEN, None
        if index < newest - 1 or (index == newest - 1 and session.sure):
            return EXPIRED_TOKEN, None
        if self.now >= session.generations[index].access_until:
            return (OK, session) if allow_expired else (EXPIRED_TOKEN, None)
        if index == newest:
            session.sure = True
        return OK, session

    def _look(self, session: Session) -> Told:
        """Look at the account of a session; a user who is gone loses all sessions.

        The lock is not reported where the session is over anyway.
        """
        user, welcome = session.user, self._welcome(session.user)
        if welcome is LOCKED and not self._lives(session):
            return OK
        if welcome in (OK, LOCKED):
            self.looks[user] = self.now, welcome is LOCKED
            return welcome
        self._end_all(user)
        return UNKNOWN_TOKEN

    def _look_after_the_end(self, refresh: str) -> None:
        """A dead token of a session that is remembered still has the account looked at."""
        for session in self.sessions:
            if session.remembered and any(each.refresh == refresh for each in session.generations):
                self._look(session)

    def _end_all(self, user: str) -> None:
        """All sessions of a user end, and the user's login tokens."""
        for each in self.sessions:
            each.over = each.over or each.user == user
        self.login_tokens = {
            token: (owner, until)
            for token, (owner, until) in self.login_tokens.items()
            if owner != user
        }

    def _lives(self, session: Session) -> bool:
        """Return whether any token of a session works."""
        if session.over or session.reused or self.now >= session.until:
            return False
        good = session.generations[-1:] if session.sure else session.generations[-2:]
        idle = self.now >= session.handed_out + IDLE_LIFETIME
        return not idle or any(self.now < each.access_until for each in good)

    def _welcome(self, user: str) -> Told:
        if user not in self.passwords:
            return DEACTIVATED
        return {"locked": LOCKED, "deactivated": DEACTIVATED}.get(self.statuses.get(user, ""), OK)

    def _find_access(self, access: str | None) -> tuple[Session | None, int]:
        return self._find(lambda each: each.access == access)

    def _find_refresh(self, refresh: str) -> tuple[Session | None, int]:
        return self._find(lambda each: each.refresh == refresh)

    def _find(self, wanted: Callable[[Generation], bool]) -> tuple[Session | None, int]:
        for session in self.sessions:
            for index, generation in enumerate(session.generations):
                if not session.over and wanted(generation):
                    return session, index
        return None, 0
