"""Frozen values that the parts of the service hand to one another.

All times are whole milliseconds since the Unix epoch, all durations whole milliseconds; ``None`` as
a duration means "no limit" and as a moment means "never".

What every request makes is a named tuple: a frozen dataclass takes six times as long to make.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

from synapse_login_module.errors import AccountDeactivated, AccountLocked

MAX_USER_ID = 255
"""How long a user ID may be (Matrix specification, Appendices, "User Identifiers")."""

_TO_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")


def fold(name: str) -> str:
    """Put a name's ASCII letters in lower case, and leave all else as it is.

    ``str.lower`` would make ``k`` of the Kelvin sign, and so one account of two.
    """
    return name.translate(_TO_LOWER)


def localpart_from(name: str) -> str | None:
    """Make the local part of a user ID from a name, or ``None`` when it makes no valid one.

    Source: Matrix specification, Appendices, "User Identifiers".
    """
    folded = fold(name)
    return folded if _LOCALPART.fullmatch(folded) else None


def canonical_email(address: str) -> str | None:
    """Put an e-mail address in the form that addresses are compared in, which is Synapse's.

    Before the "@" case is folded, after it letters are put in lower case; no more is done, so
    that what is stored here and at the homeserver is the same text. Source: MSC2265.

    :return: ``None`` when it is no e-mail address, which has one "@", and something before that.
        Else "@alice:example.com" were one, which users may give as their own in some directories.
        Logins by it would count, and make networks known, as those of another's user ID.
    """
    local, at, domain = address.strip().partition("@")
    if not local or not at or "@" in domain:
        return None
    return f"{local.casefold()}@{domain.lower()}"


class UserId(NamedTuple):
    """A Matrix user identifier, ``@localpart:server_name``.

    Source: Matrix specification, Appendices, "User Identifiers".
    """

    localpart: str
    server_name: str

    @classmethod
    def parse(cls, text: str, default_server: str) -> UserId:
        """Read a full user ID, or a bare local part of ``default_server``.

        :param text: ``@alice:example.com`` or ``alice``.
        :param default_server: the server that a bare local part belongs to.
        """
        if not text.startswith("@"):
            return cls(text, default_server)
        localpart, _, server = text[1:].partition(":")
        return cls(localpart, server)

    def __str__(self) -> str:
        return f"@{self.localpart}:{self.server_name}"


@dataclass(frozen=True, slots=True)
class UserIdentifier:
    """The user named by their user ID (``m.id.user``, or the legacy ``user``).

    :param typed: the name as the client sent it: a bare local part, or a user ID.
    """

    user_id: UserId
    typed: str = field(default="", compare=False)

    def __str__(self) -> str:
        return str(self.user_id)


@dataclass(frozen=True, slots=True)
class EmailIdentifier:
    """The user named by an e-mail address, as ``canonical_email`` makes it (``m.id.thirdparty``).

    One that is no address stays as it is, and is nobody's.
    """

    address: str

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True, slots=True)
class PhoneIdentifier:
    """The user named by a telephone number: an MSISDN, digits alone (``m.id.phone``)."""

    msisdn: str

    def __str__(self) -> str:
        return self.msisdn


Identifier = UserIdentifier | EmailIdentifier | PhoneIdentifier


class AccountStatus(enum.Enum):
    """What a password provider says of an account.

    ``UNVERIFIABLE`` is the answer of a provider that cannot look at accounts without a password:
    there may be one of that name, or none.
    """

    ACTIVE = "active"
    LOCKED = "locked"
    DEACTIVATED = "deactivated"
    UNVERIFIABLE = "unverifiable"


def require_active(status: AccountStatus | None) -> None:
    """Let an account through that is active, or that nobody can look at; one that nobody knows any
    more counts as closed.

    :raise AccountLocked: when it is locked for now.
    :raise AccountDeactivated: when it is closed.
    """
    if status is AccountStatus.LOCKED:
        raise AccountLocked
    if status in (None, AccountStatus.DEACTIVATED):
        raise AccountDeactivated


class Claim(NamedTuple):
    """Whose account it is to a provider: what a homeserver's account is linked to.

    :param providers: the provider's name, and the names that it had before.
    :param subject: what the provider knows the account by.
    """

    providers: tuple[str, ...]
    subject: str

    @property
    def provider(self) -> str:
        """The provider's name today."""
        return self.providers[0]


class Link(NamedTuple):
    """A user ID, and the one account of a provider that may log in as it."""

    user_id: str
    provider: str
    subject: str


@dataclass(frozen=True, slots=True)
class Account:
    """An account that a password provider vouches for.

    :param user_id: the full user ID: the provider's own, or made from the name it has there.
    :param display_name: the name to show, or ``None`` when the provider knows none.
    :param emails: the account's e-mail addresses.
    :param provider: the name of the provider that vouched; the chain fills it in.
    :param status: its status, where the provider has it in hand; the chain asks where it has not.
    :param named: the user ID of the name that it has there, which its failures count by; the chain
        fills it in.
    :param subject: an id of the account that never changes, or its name as the provider spells it;
        without one the user ID serves.
    :param claim: what the account is linked by; the chain fills it in. ``None`` for an account of
        the homeserver's own, which is not linked.
    :param is_local: whether it is an account of the homeserver itself, with no provider behind it.
    """

    user_id: str
    display_name: str | None = None
    emails: tuple[str, ...] = ()
    provider: str = ""
    status: AccountStatus | None = None
    is_local: bool = False
    named: str = ""
    subject: str = ""
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """``m.login.password``: who says to be who, and the password for it."""

    identifier: Identifier
    password: str = field(repr=False)
    kind = "password"


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """``m.login.token``: a single-use login token."""

    token: str = field(repr=False)
    kind = "token"


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """One ``POST /login``, in the terms of the domain."""

    credentials: PasswordLogin | TokenLogin
    device_id: str | None = None
    display_name: str | None = None
    wants_refresh_token: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from.

    :param address: the client's address, as text, behind any trusted proxy.
    :param network: what is limited together: the IPv4 address, or the /64 of an IPv6 one.
    """

    address: str
    network: str


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a token bucket refills and how much it holds; Synapse's names.

    :param per_second: attempts a second, in the long run.
    :param burst_count: attempts at once, after a rest.
    """

    per_second: float
    burst_count: int

    def looser(self, factor: int) -> Rate:
        """The same, so many times over."""
        return Rate(self.per_second * factor, self.burst_count * factor)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket, full at first: what attempts of one kind are counted by.

    :param limit: the kind.
    :param key: whom it is of, among those of its kind.
    :param shared: how widely it is shared: 0 by a client's own network or by an account, more by
        more people. Where one attempt changes several buckets, those shared by fewest come first.
    """

    limit: str
    key: tuple[str, ...]
    rate: Rate
    shared: int = 0


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """How long what is issued lives. Durations in milliseconds; ``None`` is "for ever".

    :param refreshable_access_token: an access token of a client that refreshes.
    :param nonrefreshable_access_token: an access token of a client that did not ask to.
    :param refresh_token: how long a session may go without a refresh (idle).
    :param session: how long a session may live at all (absolute).
    :param login_token: a login token.
    :param reuse_interval: how long after a rotation the earlier refresh token counts as the loser
        of a race and not as stolen.
    :param keep_ended: how long the row of a session stays once that is over, so that its client
        is told to keep its encryption keys.
    """

    refreshable_access_token: int | None = 5 * 60_000
    nonrefreshable_access_token: int | None = None
    refresh_token: int | None = None
    session: int | None = None
    login_token: int = 2 * 60_000
    reuse_interval: int = 10_000
    keep_ended: int | None = 30 * 24 * 60 * 60_000


class Session(NamedTuple):
    """One login: a user on a device. The whole of what a store keeps of it.

    :param session_id: a positive 63-bit number, the store's primary key.
    :param salt: 16 random bytes; without them no key makes this session's tokens.
    :param key_id: the key under which the pair of ``generation`` was derived.
    :param generation: 0 at login, one more with each refresh.
    :param confirmed: whether the holder has shown that it has the pair of ``generation``.
    :param created_at: the moment of the login.
    :param issued_at: the moment at which the pair of ``generation`` was last handed out.
    :param access_expires_at: when the access token of ``generation`` ends.
    :param previous_expires_at: when the access token of ``generation - 1`` ends; means nothing
        once the session is confirmed.
    """

    session_id: int
    user_id: str
    device_id: str
    display_name: str | None
    salt: bytes
    key_id: int
    generation: int
    confirmed: bool
    created_at: int
    issued_at: int
    access_expires_at: int | None
    previous_expires_at: int | None

    def __repr__(self) -> str:
        return f"Session(session_id={self.session_id}, user_id={self.user_id!r})"


class TokenKey(NamedTuple):
    """A key that tokens of a store are made under, or were, as the store knows it.

    :param fingerprint: tells it from another of that id, and says nothing of the key.
    :param retired: whether the tokens made under it are over.
    """

    key_id: int
    fingerprint: str
    retired: bool = False


class Pruned(NamedTuple):
    """What one batch of pruning has removed.

    :param sessions: so many rows of sessions that had long been over.
    :param login_tokens: so many of login tokens.
    :param after: where the next batch begins; ``None`` when all has been looked at.
    """

    sessions: int
    login_tokens: int
    after: int | None


class SessionInfo(NamedTuple):
    """What the rest of the service may know of a session.

    :param handle: the store's own name for it; opaque to everyone else.
    :param link: the link of its user, or ``None``; only ``session_for_refresh_token`` sets it.
    """

    handle: int | str
    user_id: str
    device_id: str
    display_name: str | None = None
    created_at: int | None = None
    issued_at: int | None = None
    link: Link | None = None


class TokenPair(NamedTuple):
    """The access and the refresh token of one generation.

    :param refresh_token: ``None`` when the policy gives none.
    :param expires_in_ms: what is left of the access token's life; ``None`` when it does not expire.
    """

    access_token: str
    refresh_token: str | None
    expires_in_ms: int | None

    def __repr__(self) -> str:
        return f"TokenPair(expires_in_ms={self.expires_in_ms})"


@dataclass(frozen=True, slots=True)
class Login:
    """What a login ended in."""

    user_id: str
    device_id: str
    tokens: TokenPair


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A single-use token for ``m.login.token``."""

    token: str = field(repr=False)
    expires_in_ms: int
