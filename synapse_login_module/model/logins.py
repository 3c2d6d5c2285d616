"""What a login asks for, where it comes from, and the limits that it counts by."""

from __future__ import annotations

from dataclasses import dataclass, field

from synapse_login_module.model.names import Identifier


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
