"""Accounts of an LDAP directory, Active Directory among them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from ldaptor.ldapfilter import InvalidLDAPFilter, parseFilter  # type: ignore[import-untyped]
from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from ldaptor.protocols.ldap import distinguishedname  # type: ignore[import-untyped]
from OpenSSL import SSL, crypto
from pydantic import Field
from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.ssl import Certificate
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from synapse_login_module.config import PositiveDuration
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    Overloaded,
    ProviderUnavailable,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import (
    Account,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
)
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.ldapdirectory import (
    CONSTRAINT_VIOLATION,
    INAPPROPRIATE_AUTHENTICATION,
    INVALID_CREDENTIALS,
    NO_SUCH_OBJECT,
    SUCCESS,
    UNWILLING_TO_PERFORM,
    Directory,
    Entry,
    Result,
    Search,
    Server,
    Settings,
    octets,
    tls_for,
)
from synapse_login_module.schema import Strict, validate

T = TypeVar("T")

PLACEHOLDER = "{localpart}"

_PORTS = {"ldap": 389, "ldaps": 636}
_MAX_USER_ID = 255
# Matrix specification, Appendices, "User Identifiers"; capitals are taken for small letters.
_LOCALPART = re.compile(r"[a-zA-Z0-9._=/+-]{1,255}", re.ASCII)
_ATTRIBUTE = r"^[A-Za-z][A-Za-z0-9-]*$"
_DISTINGUISHED_NAME = re.compile(r"[A-Za-z0-9.-]+ *=")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_NO_ATTRIBUTES = ("1.1",)

_ANY = pureldap.LDAPFilterMatchAll

_DISABLED = {"active_directory": "(userAccountControl:1.2.840.113556.1.4.803:=2)"}
_LOCKED = {"ppolicy": "(pwdAccountLockedTime=*)", "389ds": "(nsAccountLock=TRUE)"}

_REFUSALS = (INVALID_CREDENTIALS, INAPPROPRIATE_AUTHENTICATION, NO_SUCH_OBJECT)
"""What a directory says of a password that it does not take."""

_REFUSALS_OF_THE_LOCKED = (CONSTRAINT_VIOLATION, UNWILLING_TO_PERFORM)
"""What some say of a locked account, before they look at the password."""

_Attribute = Annotated[str, Field(pattern=_ATTRIBUTE)]
_Text = Annotated[str, Field(min_length=1)]


class _Attributes(Strict):
    """Where in an entry things are."""

    uid: _Attribute = "uid"
    mail: _Attribute | None = "mail"
    name: _Attribute | None = "cn"
    phone: _Attribute | None = "mobile"

    @property
    def names(self) -> Sequence[str]:
        """Those that are read."""
        return [each for each in (self.uid, self.mail, self.name) if each is not None]


class _Keys(Strict):
    servers: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    start_tls: bool = True
    ca_file: str | None = None
    verify_certificate: bool = True
    allow_plaintext: bool = False
    bind_dn_template: _Text | None = None
    bind_dn: _Text | None = None
    bind_password: _Text | None = Field(default=None, repr=False)
    bind_password_file: str | None = None
    base: _Text | None = None
    filter: str | None = None
    group_filter: str | None = None
    attributes: _Attributes = _Attributes()
    disabled_filter: str | None = None
    locked_filter: str | None = None
    connect_timeout: PositiveDuration = 3_000
    read_timeout: PositiveDuration = 5_000
    timeout: PositiveDuration = 10_000
    retry_after: PositiveDuration = 30_000
    connections: Annotated[int, Field(ge=1, le=1000)] = 8
    queue: Annotated[int, Field(ge=0, le=10_000)] = 64


@dataclass(frozen=True)
class LDAPConfig:
    """The checked configuration of :class:`LDAPProvider`.

    :param user_filter: finds the account of a local part below ``base``; ``None`` where its name
        is made by ``bind_dn_template``.
    :param group_filter: what every account must match, if anything.
    :param statuses: the filters of accounts that are not active, in order of weight.
    """

    keys: _Keys
    settings: Settings
    user_filter: Any
    group_filter: Any
    statuses: Sequence[tuple[AccountStatus, Any]]


@implementer(IPasswordProvider)
@provider(IPluginClass)
class LDAPProvider(Service):
    """Looks an account up in a directory, and binds as it with the password."""

    log = Logger()
    name = "ldap"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> LDAPConfig:
        """Take ``servers``, and ``base`` or ``bind_dn_template``; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        keys = validate(_Keys, config)
        named = _is_distinguished_name(keys.bind_dn_template)
        _check_names(keys, named)
        statuses = []
        for status, key, presets in (
            (AccountStatus.DEACTIVATED, "disabled_filter", _DISABLED),
            (AccountStatus.LOCKED, "locked_filter", _LOCKED),
        ):
            text = getattr(keys, key)
            if text is not None:
                statuses.append((status, _preset_or_filter(key, text, presets)))
        group_filter = None
        if keys.group_filter is not None:
            group_filter = _filter("group_filter", keys.group_filter)
        return LDAPConfig(
            keys,
            Settings(
                servers=_servers(keys, folder),
                bind_dn=keys.bind_dn or "",
                bind_password=_bind_password(keys, folder),
                connect_timeout=keys.connect_timeout / 1000,
                read_timeout=keys.read_timeout / 1000,
                retry_after=keys.retry_after / 1000,
                connections=keys.connections,
                queue=keys.queue,
            ),
            None if named else _user_filter(keys),
            group_filter,
            statuses,
        )

    def __init__(self, config: LDAPConfig, environment: Environment) -> None:
        self._config = config
        self._attributes = config.keys.attributes
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        self._reactor = environment.reactor
        self._directory = Directory(config.settings, environment.reactor)
        if not config.keys.verify_certificate:
            self.log.warn("LDAP: certificates are not checked (verify_certificate: false)")

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Have the connections end with the parent.

        The directory is what goes in there: it has no name, and several providers have the same.
        """
        self._directory.setServiceParent(parent)

    def disownServiceParent(self) -> Deferred[None] | None:
        """Have the connections end now."""
        gone: Deferred[None] | None = self._directory.disownServiceParent()
        return gone

    def startService(self) -> None:
        """Be ready."""
        super().startService()
        self._directory.startService()

    def stopService(self) -> Deferred[None]:
        """Close the connections."""
        super().stopService()
        return self._directory.stopService()

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._decide(identifier, password))

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        wanted = UserId.parse(user_id, self._server_name)
        search = self._search_for_user(wanted)
        if search is None:
            return succeed(None)
        return self._in_time(Deferred.fromCoroutine(self._account_status(search, wanted)))

    def _in_time(self, asked: Deferred[T]) -> Deferred[T]:
        def too_late(_: Any, seconds: float) -> Failure:
            problem = f"LDAP: no answer within {seconds:g} seconds"
            self.log.warn("{problem}", problem=problem)
            return Failure(ProviderUnavailable(problem))

        seconds = self._config.keys.timeout / 1000
        return asked.addTimeout(seconds, self._reactor, onTimeoutCancel=too_late)

    async def _decide(self, identifier: Identifier, password: str) -> Account | None:
        asked = Deferred.fromCoroutine(self._authenticate(identifier, password))
        try:
            return await self._in_time(asked)
        except InvalidCredentials:
            # In the time that an unknown user takes.
            await self._hashing.decoy(password)
            raise

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        search = self._search_for(identifier)
        if search is None:
            return None
        found = (await self._directory.search(search))[0]
        account = self._account(found, identifier)
        if account is None:
            return None
        entry = found.entries[0]
        # Without a password a bind succeeds, as nobody: it is not to be sent.
        if not password:
            raise InvalidCredentials
        result = await self._directory.bind(self._bind_name(entry, account), password)
        if result.code != SUCCESS:
            await self._refused(result, account, entry)
        return account

    async def _refused(self, result: Result, account: Account, entry: Entry) -> NoReturn:
        """Say what a directory means that does not take a password."""
        if result.code in _REFUSALS:
            raise InvalidCredentials
        if result.code in _REFUSALS_OF_THE_LOCKED:
            base = Search(entry.dn, False, self._filtered(_ANY), _NO_ATTRIBUTES)
            status = self._status(await self._directory.search(*self._with_statuses(base)))
            if status is not AccountStatus.ACTIVE:
                raise InvalidCredentials
        self.log.error(
            "LDAP: the bind of {user_id} is answered with {result}",
            user_id=account.user_id,
            result=result,
        )
        raise ProviderUnavailable(f"LDAP: a bind is answered with {result}")

    async def _account_status(self, search: Search, wanted: UserId) -> AccountStatus | None:
        try:
            results = await self._directory.search(*self._with_statuses(search))
        except Overloaded:
            raise ProviderUnavailable("LDAP: too many searches are under way") from None
        if not results[0].entries:
            return None
        user_id = self._user_id(results[0], str(wanted), wanted.localpart)
        # A filter may find an account by more than its own name.
        own = user_id == str(UserId(wanted.localpart.lower(), self._server_name))
        return self._status(results) if own else None

    def _with_statuses(self, search: Search) -> list[Search]:
        """A search, and the same for each status that an account may have instead of active."""
        return [
            search,
            *(
                Search(
                    search.base,
                    search.whole_tree,
                    pureldap.LDAPFilter_and([search.filter, each]),
                    _NO_ATTRIBUTES,
                )
                for _, each in self._config.statuses
            ),
        ]

    def _status(self, results: Sequence[Result]) -> AccountStatus:
        for (status, _), result in zip(self._config.statuses, results[1:], strict=True):
            if result.entries:
                return status
        return AccountStatus.ACTIVE

    def _search_for(self, identifier: Identifier) -> Search | None:
        """The search for whom a client names; ``None`` when nobody of ours can be meant."""
        if isinstance(identifier, EmailIdentifier):
            return self._search_by(self._attributes.mail, identifier.address)
        if isinstance(identifier, PhoneIdentifier):
            number = identifier.msisdn
            return self._search_by(self._attributes.phone, number, f"+{number}")
        return self._search_for_user(identifier.user_id)

    def _search_by(self, attribute: str | None, *values: str) -> Search | None:
        base = self._config.keys.base
        if attribute is None or base is None or not all(values):
            return None
        wanted = [_equals(attribute, value) for value in values]
        either = wanted[0] if len(wanted) == 1 else pureldap.LDAPFilter_or(wanted)
        return Search(base, True, self._filtered(either), self._attributes.names)

    def _search_for_user(self, user_id: UserId) -> Search | None:
        if user_id.server_name != self._server_name or not _is_localpart(user_id.localpart):
            return None
        keys, names = self._config.keys, self._attributes.names
        if self._config.user_filter is not None and keys.base is not None:
            wanted = filled(self._config.user_filter, user_id.localpart)
            return Search(keys.base, True, self._filtered(wanted), names)
        name = filled_name(keys.bind_dn_template or "", user_id.localpart)
        return Search(name, False, self._filtered(_ANY), names)

    def _filtered(self, wanted: Any) -> Any:
        """Only accounts of the group."""
        group = self._config.group_filter
        return wanted if group is None else pureldap.LDAPFilter_and([wanted, group])

    def _bind_name(self, entry: Entry, account: Account) -> str | bytes:
        """The name that the user binds by."""
        template = self._config.keys.bind_dn_template
        if template is None or _is_distinguished_name(template):
            return entry.dn
        localpart = UserId.parse(account.user_id, self._server_name).localpart
        return template.replace(PLACEHOLDER, localpart)

    def _account(self, found: Result, identifier: Identifier) -> Account | None:
        """The account that was found, if there is one that can be used."""
        if not found.entries:
            return None
        typed = identifier.user_id.localpart if isinstance(identifier, UserIdentifier) else ""
        user_id = self._user_id(found, str(identifier), typed)
        if user_id is None:
            return None
        entry, attributes = found.entries[0], self._attributes
        names = _texts(entry, attributes.name)
        return Account(user_id, names[0] if names else None, _texts(entry, attributes.mail))

    def _user_id(self, found: Result, asked: str, typed: str) -> str | None:
        """The full user ID of the entry that was found, if it can have one.

        :param typed: the local part that was asked for, to choose among several of one entry.
        """
        uid = self._attributes.uid
        values = [value.lower() for value in _texts(found.entries[0], uid)]
        localpart = typed.lower() if typed.lower() in values else values[0] if values else ""
        user_id = str(UserId(localpart, self._server_name))
        problem = None
        if found.several:
            problem = "there are several entries"
        elif localpart != typed.lower() and len(values) > 1:
            problem = f"its entry has several values of {uid}"
        elif not _is_localpart(localpart) or len(user_id.encode("utf-8")) > _MAX_USER_ID:
            problem = f"{uid} of its entry cannot be in a user ID"
        if problem is None:
            return user_id
        self.log.warn("LDAP: {asked} is taken for unknown: {problem}", asked=asked, problem=problem)
        return None


def filled(template: Any, localpart: str) -> Any:
    """A filter with a local part in the place of ``{localpart}``.

    It goes into the parsed filter, as a value: there is nothing in it to escape.
    """
    if isinstance(template, pureldap.LDAPFilterSet):
        return type(template)([filled(each, localpart) for each in template])
    if isinstance(template, pureldap.LDAPFilter_not):
        return pureldap.LDAPFilter_not(filled(template.value, localpart))
    if isinstance(template, pureldap.LDAPAttributeValueAssertion):
        value = template.assertionValue.value.replace(PLACEHOLDER, localpart)
        return type(template)(template.attributeDesc, pureldap.LDAPAssertionValue(octets(value)))
    return template


def filled_name(template: str, localpart: str) -> str:
    """A distinguished name with a local part, escaped, in the place of ``{localpart}``."""
    escaped: str = distinguishedname.escape(localpart)
    return template.replace(PLACEHOLDER, escaped)


def _equals(attribute: str, value: str) -> Any:
    return pureldap.LDAPFilter_equalityMatch(
        pureldap.LDAPAttributeDescription(attribute), pureldap.LDAPAssertionValue(octets(value))
    )


def _texts(entry: Entry, attribute: str | None) -> tuple[str, ...]:
    """The values of an attribute that are text."""
    texts = []
    for value in entry.attributes.get((attribute or "").lower(), ()):
        with suppress(UnicodeDecodeError):
            texts.append(value.decode("utf-8"))
    return tuple(texts)


def _is_localpart(text: str) -> bool:
    return _LOCALPART.fullmatch(text) is not None


def _is_distinguished_name(template: str | None) -> bool:
    return template is not None and _DISTINGUISHED_NAME.match(template) is not None


def _check_names(keys: _Keys, named: bool) -> None:
    """Check that accounts can be found, and in one way."""
    if keys.base is None and keys.bind_dn_template is None:
        raise ConfigError("", "takes base, or bind_dn_template")
    if keys.bind_dn_template is not None and PLACEHOLDER not in keys.bind_dn_template:
        raise ConfigError("bind_dn_template", f"{PLACEHOLDER} is not in it")
    if keys.base is None and not named:
        raise ConfigError("base", "entries are searched below it, since the template is no DN")
    if keys.filter is not None and named:
        raise ConfigError("filter", "the template says which entry is meant; see group_filter")
    if keys.timeout <= max(keys.connect_timeout, keys.read_timeout):
        raise ConfigError("timeout", "it is to be longer than connect_timeout and read_timeout")


def _user_filter(keys: _Keys) -> Any:
    if keys.filter is None:
        return _equals_text(keys.attributes.uid)
    parsed = _filter("filter", keys.filter)
    if filled(parsed, "a").toWire() == parsed.toWire():
        raise ConfigError(
            "filter",
            f"{PLACEHOLDER} is no value in it; what every account matches goes in group_filter",
        )
    return parsed


def _equals_text(attribute: str) -> Any:
    return _filter("attributes.uid", f"({attribute}={PLACEHOLDER})")


def _preset_or_filter(key: str, text: str, presets: Mapping[str, str]) -> Any:
    if not text.startswith("(") and text not in presets:
        known = ", ".join(presets)
        raise ConfigError(key, f"neither a filter in brackets nor one of: {known}")
    return _filter(key, presets.get(text, text))


def _filter(key: str, text: str) -> Any:
    try:
        parsed = parseFilter(text)
    except (InvalidLDAPFilter, RecursionError, ValueError):
        raise ConfigError(key, "not an LDAP filter (RFC 4515)") from None
    return _plain(parsed)


def _plain(parsed: Any) -> Any:
    """A filter without the default values that ldaptor writes out, which not all servers take."""
    if isinstance(parsed, pureldap.LDAPFilterSet):
        return type(parsed)([_plain(each) for each in parsed])
    if isinstance(parsed, pureldap.LDAPFilter_not):
        return pureldap.LDAPFilter_not(_plain(parsed.value))
    if isinstance(parsed, pureldap.LDAPFilter_extensibleMatch) and not parsed.dnAttributes.value:
        parsed.dnAttributes = None
    return parsed


def _bind_password(keys: _Keys, folder: Path) -> str:
    given = [
        key for key in ("bind_password", "bind_password_file") if getattr(keys, key) is not None
    ]
    if keys.bind_dn is None:
        for key in given:
            raise ConfigError(key, "it goes with bind_dn")
        return ""
    if len(given) != 1:
        raise ConfigError("bind_dn", "it takes either bind_password or bind_password_file")
    if keys.bind_password is not None:
        return keys.bind_password
    try:
        password = _read(folder, keys.bind_password_file or "").decode("utf-8").rstrip("\r\n")
    except ConfigError as error:
        raise error.within("bind_password_file") from None
    except UnicodeDecodeError:
        raise ConfigError("bind_password_file", "not text in UTF-8") from None
    if not password:
        raise ConfigError("bind_password_file", "there is nothing in it")
    return password


def _servers(keys: _Keys, folder: Path) -> Sequence[Server]:
    authorities = None
    if keys.ca_file is not None:
        try:
            authorities = _authorities(folder, keys.ca_file)
        except ConfigError as error:
            raise error.within("ca_file") from None
    servers = []
    for index, url in enumerate(keys.servers):
        try:
            servers.append(_server(url, keys, authorities))
        except ConfigError as error:
            raise error.within(f"servers.{index}") from None
    return servers


def _server(url: str, keys: _Keys, authorities: Sequence[Certificate] | None) -> Server:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        tls = tls_for(host or "", authorities, keys.verify_certificate) if host else None
    except (KeyError, ValueError):
        host = None
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username) if host else ()
    if host is None or any(rest):
        raise ConfigError("", "not ldap://HOST, ldap://HOST:PORT, or the same with ldaps")
    if parts.scheme == "ldaps":
        return Server(url, host, port, tls, start_tls=False)
    if keys.start_tls:
        return Server(url, host, port, tls, start_tls=True)
    if not keys.allow_plaintext and not _is_loopback(host):
        raise ConfigError(
            "", "passwords would go there in the clear: set start_tls, or allow_plaintext"
        )
    return Server(url, host, port, None, start_tls=False)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authorities(folder: Path, name: str) -> Sequence[Certificate]:
    found = _CERTIFICATE.findall(_read(folder, name))
    if not found:
        raise ConfigError("", f"{folder / name}: there is no certificate in it")
    try:
        return [Certificate.loadPEM(pem) for pem in found]
    except (SSL.Error, crypto.Error, ValueError):
        raise ConfigError("", f"{folder / name}: a certificate in it is broken") from None


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file has that name"
        raise ConfigError("", f"cannot read {path}: {reason}") from None
