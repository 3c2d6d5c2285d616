"""The settings as frozen models, parsed from a mapping. No files are read here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from synapse_login_module.config.validation import Duration, FilePath, Strict, validate
from synapse_login_module.errors import Mistakes
from synapse_login_module.hashes import NewHashes, argon2, bcrypt, check_limits
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    HomeserverPolicy,
    LockedAccounts,
    Rate,
    TokenPolicy,
)

_SERVER_NAME = re.compile(
    r"[A-Za-z0-9.\-]{1,230}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?"
)

_DOTTED_PATH = re.compile(r"\w+(\.\w+)+")
_PROVIDER_NAME = re.compile(r"[\w.-]{1,64}")
_LINK_EXCEPTION = re.compile(r"(?:([\w.-]+):)?(@[^:\s]+:\S+)")

_USER_ID = re.compile(r"@[^:\s]+:\S+")
_BASE_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(given: object) -> object:
    if not isinstance(given, str):
        raise ValueError("not an address or network")
    try:
        return ipaddress.ip_network(given)
    except ValueError as error:
        problem = str(error)
    try:
        meant = ipaddress.ip_network(given, strict=False)
    except ValueError:
        raise ValueError(problem) from None
    raise ValueError(f"{problem}: write {meant}")


def _server_name(given: str) -> str:
    if not _SERVER_NAME.fullmatch(given):
        raise ValueError("not a server name: write what user IDs have after the colon")
    return given


def _dotted_path(given: str) -> str:
    if not _DOTTED_PATH.fullmatch(given):
        raise ValueError(
            "must be the dotted path of a class,"
            " such as synapse_login_module.providers.BcryptProvider"
        )
    return given


def _provider_name(given: str) -> str:
    if not _PROVIDER_NAME.fullmatch(given):
        raise ValueError("must be 1 to 64 letters, digits, dots, underscores or hyphens")
    if given == APPLICATION_SERVICE:
        raise ValueError("this name stands for the application services of the homeserver")
    return given


def _user_id(given: str) -> str:
    if not _USER_ID.fullmatch(given):
        raise ValueError("write a full user ID, such as @alice:example.com")
    return given


def _base_url(given: str) -> str:
    if not _BASE_URL.fullmatch(given):
        raise ValueError("write it like https://matrix.example.com")
    return given.rstrip("/")


PositiveDuration = Annotated[Duration, Field(gt=0)]
Networks = Annotated[tuple[Annotated[Network, BeforeValidator(_network)], ...], Field(strict=False)]


MatrixUserId = Annotated[str, AfterValidator(_user_id)]


class Plugin(Strict):
    """A provider or store: the dotted path of its class, and its own configuration."""

    module: Annotated[str, AfterValidator(_dotted_path)]
    config: dict[str, Any] = Field(default_factory=dict, repr=False)


class CircuitBreakerConfig(Strict):
    """The ``circuit_breaker:`` block of a provider.

    After ``failures`` within ``window``, the provider is not asked for the time of ``pause``.
    """

    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    window: PositiveDuration = 60_000
    pause: PositiveDuration = 10_000


class CacheConfig(Strict):
    """The ``cache:`` block of a provider: how long and how many right passwords are remembered."""

    lifetime: Annotated[Duration, Field(gt=0, le=10 * 60_000)]
    entries: Annotated[int, Field(ge=1, le=1_000_000)] = 1000


ProviderName = Annotated[str, AfterValidator(_provider_name)]


class ProviderPlugin(Plugin):
    """A password provider, and how the server treats it when it is slow or unavailable."""

    name: ProviderName | None = None
    deadline: PositiveDuration = 30_000
    circuit_breaker: CircuitBreakerConfig | None = None
    one_time_codes: bool = False
    cache: CacheConfig | None = None
    on_unavailable: Literal["fail", "next"] = "fail"
    former_names: Annotated[tuple[ProviderName, ...], Field(strict=False)] = ()

    @field_validator("cache")
    @classmethod
    def _caches_no_codes(cls, cache: CacheConfig | None, info: ValidationInfo) -> object:
        if cache is not None and info.data.get("one_time_codes"):
            raise ValueError("one_time_codes rules it out: a used code would be good again")
        return cache

    def names(self, usual: str) -> tuple[str, ...]:
        """Return all names of the provider, the current one first. Links may hold any of them.

        :param usual: the provider's name where the configuration has none.
        """
        return (self.name or usual, *self.former_names)


class SharedTokens(Strict):
    """The keys of the ``tokens:`` block that are valid standalone and inside Synapse."""

    refresh_token: Literal["always", "on_request"] = "on_request"
    login_token_lifetime: PositiveDuration = 2 * 60_000
    reuse_interval: Duration = 10_000
    account_check_timeout: PositiveDuration = 3_000
    account_check_interval: PositiveDuration = 15 * 60_000


class Tokens(SharedTokens):
    """The ``tokens:`` block of the standalone server."""

    key_file: FilePath = "token.key"
    refreshable_access_token_lifetime: PositiveDuration | None = 5 * 60_000
    nonrefreshable_access_token_lifetime: PositiveDuration | None = None
    refresh_token_lifetime: PositiveDuration | None = None
    session_lifetime: PositiveDuration | None = None
    keep_ended: Duration | None = 30 * 24 * 60 * 60_000

    def policy(self) -> TokenPolicy:
        """Return the lifetimes for the stores."""
        return TokenPolicy(
            refreshable_access_token=self.refreshable_access_token_lifetime,
            nonrefreshable_access_token=self.nonrefreshable_access_token_lifetime,
            refresh_token=self.refresh_token_lifetime,
            session=self.session_lifetime,
            login_token=self.login_token_lifetime,
            reuse_interval=self.reuse_interval,
            keep_ended=self.keep_ended,
        )


class TokenRefresh(Strict):
    """The ``tokenrefresh:`` block."""

    require_access_token: bool = True


class RateConfig(Strict):
    """One rate limit: a token bucket."""

    per_second: Annotated[float, Field(ge=1e-6, le=1e9)]
    burst_count: Annotated[int, Field(ge=1, le=1_000_000_000)]


def _rate(limit: RateConfig | None) -> Rate | None:
    return None if limit is None else Rate(limit.per_second, limit.burst_count)


class RateLimits(Strict):
    """The ``rate_limits:`` block; ``null`` switches a limit off."""

    address: RateConfig | None = RateConfig(per_second=0.003, burst_count=5)
    account: RateConfig | None = RateConfig(per_second=0.003, burst_count=5)
    failed_attempts: RateConfig | None = RateConfig(per_second=0.17, burst_count=3)

    def rates(self) -> tuple[Rate | None, Rate | None, Rate | None]:
        """Return the limits by address, by account and for failed attempts."""
        return _rate(self.address), _rate(self.account), _rate(self.failed_attempts)


class Argon2Config(Strict):
    """The ``argon2:`` block of ``hashing:``. The defaults are OWASP's.

    :param memory: in KiB.
    """

    memory: Annotated[int, Field(ge=8, le=2**18)] = 19_456
    iterations: Annotated[int, Field(ge=1, le=1_000_000)] = 2
    parallelism: Annotated[int, Field(ge=1, le=16)] = 1


HashFormat = Literal["bcrypt", "argon2id"]


class Hashing(Strict):
    """The ``hashing:`` block."""

    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    queue: Annotated[int, Field(ge=0, le=100_000)] = 64
    format: HashFormat = "bcrypt"
    rounds: Annotated[int, Field(ge=4, le=bcrypt.MOST_COST)] = 12
    argon2: Argon2Config = Argon2Config()

    def new_hashes(self) -> NewHashes:
        """Return how new hashes are made.

        :raise ValueError: when the parameters do not fit, or a library is missing.
        """
        if self.format == "bcrypt":
            return bcrypt.new_hashes(self.rounds)
        cost = self.argon2
        new = argon2.new_hashes(cost.memory, cost.iterations, cost.parallelism)
        check_limits(new.kind)
        return new

    @model_validator(mode="after")
    def _makes_hashes(self) -> Hashing:
        self.new_hashes()
        return self


LogFormat = Literal["text", "json"]


class LogConfig(Strict):
    """The ``log:`` block."""

    format: LogFormat = "text"


class Limits(Strict):
    """The ``limits:`` block; ``null`` switches a limit off."""

    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    connections_per_address: Annotated[int, Field(ge=1, le=1_000_000)] | None = 200
    requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = 512
    request_timeout: PositiveDuration = 30_000
    idle_timeout: PositiveDuration = 60_000


class BrakeConfig(Strict):
    """The ``brake:`` block: how many accounts may vanish at once before the brake holds them."""

    accounts: Annotated[int, Field(ge=0, le=1_000_000_000)] = 10
    percent: Annotated[float, Field(ge=0, le=100)] = 10.0


class LinkException(NamedTuple):
    """An entry of ``link_accounts``.

    :param provider: the only provider whose account may be linked; ``None`` for any provider.
    :param user_id: the Matrix account.
    """

    provider: str | None
    user_id: str


def _link_exception(given: object) -> LinkException:
    match = _LINK_EXCEPTION.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise ValueError("write @alice:example.com, or ldap:@alice:example.com for one provider")
    return LinkException(match[1], match[2])


class SharedConfig(Strict):
    """The keys that are valid standalone and inside Synapse."""

    hints: ClassVar[Mapping[str, str]] = {
        "rate_limits": "null switches one limit off: {address: null}; for the defaults omit the key"
    }

    trusted_proxies: Networks = (
        ipaddress.ip_network("127.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    )
    password_providers: Annotated[tuple[ProviderPlugin, ...], Field(min_length=1, strict=False)]
    tokens: SharedTokens = SharedTokens()
    tokenrefresh: TokenRefresh = TokenRefresh()
    rate_limits: RateLimits = RateLimits()
    hashing: Hashing = Hashing()
    brake: BrakeConfig | None = BrakeConfig()


class LinkKeys(Strict):
    """The keys that say which accounts of a homeserver a login may link."""

    existing_accounts: Literal["passwordless", "all", "none"] = "passwordless"
    link_accounts: Annotated[
        tuple[Annotated[LinkException, BeforeValidator(_link_exception)], ...], Field(strict=False)
    ] = ()


class HomeserverKeys(Strict):
    """The keys that the ``config:`` of every kind of homeserver has."""

    register_users: bool = True
    sync_profile: bool = False
    admins: Annotated[tuple[MatrixUserId, ...], Field(strict=False)] = ()
    locked_accounts: LockedAccounts = "keep"
    device_grace: Duration = 24 * 60 * 60_000

    def policy(self) -> HomeserverPolicy:
        """Return them for the homeserver's ``policy``."""
        return HomeserverPolicy(
            register_users=self.register_users,
            sync_profile=self.sync_profile,
            admins=frozenset(self.admins),
            locked_accounts=self.locked_accounts,
            device_grace=self.device_grace,
        )


class Listener(NamedTuple):
    """An endpoint that the standalone server listens on.

    :param path: its place in the configuration, such as ``listen.0``.
    :param description: Twisted's endpoint description.
    :param is_internal: whether the homeserver connects to it, and not clients.
    """

    path: str
    description: str
    is_internal: bool


class Config(SharedConfig, LinkKeys):
    """The configuration of the standalone server."""

    server_name: Annotated[str, AfterValidator(_server_name)]
    listen: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = (
        "tcp:8008:interface=127.0.0.1",
    )
    internal_listen: Annotated[tuple[str, ...], Field(strict=False)] = ()
    public_baseurl: Annotated[str, AfterValidator(_base_url)] | None = None
    homeserver: Plugin | None = None
    limits: Limits = Limits()
    log: LogConfig = LogConfig()
    tokens: Tokens = Tokens()
    token_store: Plugin = Plugin(
        module="synapse_login_module.stores.SQLiteTokenStore", config={"path": "sessions.db"}
    )

    @property
    def listeners(self) -> Sequence[Listener]:
        """All endpoints, those of ``listen`` before those of ``internal_listen``."""
        return [
            *(Listener(f"listen.{n}", each, False) for n, each in enumerate(self.listen)),
            *(
                Listener(f"internal_listen.{n}", each, True)
                for n, each in enumerate(self.internal_listen)
            ),
        ]


class ModuleConfig(SharedConfig, LinkKeys):
    """The configuration of the module inside Synapse.

    :param delegated: whether Synapse delegates authentication. Where it is true, there is no other
        key, and another class reads the configuration
        (:class:`synapse_login_module.synapse.forget_tokens.DelegatedConfig`).
    """

    delegated: bool = False
    register_users: bool = True
    sync_profile: bool = False
    fall_back_to_local: bool = True


_INSIDE_SYNAPSE = {
    "key_file": "Synapse has its own keys",
    "keep_ended": "Synapse decides how long it keeps sessions",
}
_OF_THE_SERVER = {
    "server_name": "homeserver.yaml determines it",
    "listen": "homeserver.yaml determines it",
    "token_store": "homeserver.yaml determines it",
    "public_baseurl": "homeserver.yaml determines it",
    "internal_listen": "Synapse accepts the connections",
    "limits": "Synapse accepts the connections",
    "log": "log_config in homeserver.yaml determines it",
    "homeserver": "this Synapse is the homeserver",
}
_SYNAPSE_TOKENS = frozenset(Tokens.model_fields) - frozenset(SharedTokens.model_fields)


def parse_module(given: Mapping[str, Any]) -> ModuleConfig:
    """Parse the module's configuration.

    :raise synapse_login_module.errors.ConfigError: with the path of every mistake.
    """
    tokens = given.get("tokens")
    mistakes = Mistakes()
    for key in sorted(_SYNAPSE_TOKENS & set(tokens if isinstance(tokens, Mapping) else ())):
        where = _INSIDE_SYNAPSE.get(key, "set it at the top level of homeserver.yaml")
        mistakes.add(f"tokens.{key}", f"not valid inside Synapse: {where}")
    for key, where in _OF_THE_SERVER.items():
        if key in given:
            mistakes.add(key, f"not valid inside Synapse: {where}")
    belongs = {key: given[key] for key in given if key not in _OF_THE_SERVER}
    if isinstance(tokens, Mapping):
        belongs["tokens"] = {key: tokens[key] for key in tokens if key not in _SYNAPSE_TOKENS}
    with mistakes.gathered():
        config = validate(ModuleConfig, belongs)
    mistakes.raise_any()
    return config


def parse(given: Mapping[str, Any]) -> Config:
    """Parse the standalone server's configuration.

    :raise synapse_login_module.errors.ConfigError: with the path of every mistake.
    """
    return validate(Config, given)
