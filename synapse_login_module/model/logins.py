"""A login request, the client that it comes from, and the buckets that count it."""

from __future__ import annotations

from dataclasses import dataclass, field

from synapse_login_module.model.names import Identifier, UserId


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """``m.login.password``: the user that the client claims to be, and a password."""

    identifier: Identifier
    password: str = field(repr=False)
    kind = "password"


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """``m.login.token``: a single-use login token."""

    token: str = field(repr=False)
    kind = "token"


@dataclass(frozen=True, slots=True)
class ServiceLogin:
    """``m.login.application_service``: a user, and the token of the user's application service."""

    user_id: UserId
    token: str = field(repr=False)
    kind = "application_service"


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """The content of one ``POST /login`` request."""

    credentials: PasswordLogin | TokenLogin | ServiceLogin
    device_id: str | None = None
    display_name: str | None = None
    wants_refresh_token: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    """The client that a request comes from.

    :param address: the client's address, as text; behind a trusted proxy, the one it forwards.
    :param network: the network that shares rate limits: the IPv4 address itself, or the /64 of an
        IPv6 address.
    """

    address: str
    network: str


@dataclass(frozen=True, slots=True)
class Rate:
    """The refill rate and the size of a token bucket, under Synapse's names.

    :param per_second: attempts a second, in the long run.
    :param burst_count: attempts that a full bucket allows at once.
    """

    per_second: float
    burst_count: int

    def looser(self, factor: int) -> Rate:
        """Return a rate with the refill rate and the size multiplied by ``factor``."""
        return Rate(self.per_second * factor, self.burst_count * factor)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket that counts attempts of one kind. It is full at first.

    :param limit: the name of the rate limit.
    :param key: the account, network or both that the bucket belongs to, unique within its limit.
    :param shared: how many clients share the bucket: 0 for one network or account, 1 and 2 for
        larger networks, 3 for all clients. Where one attempt changes several buckets, the least
        shared come first.
    """

    limit: str
    key: tuple[str, ...]
    rate: Rate
    shared: int = 0
