"""Walks through a login at the module in Synapse, from outside: with Synapse's configuration and
database, and without Synapse.

The accounts of the module decide. They ask a stand-in for Synapse, which undoes each transaction.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from synapse.api.errors import Codes, SynapseError
from synapse.handlers.register import RegistrationHandler
from twisted.internet.defer import Deferred, succeed

from synapse_login_module import compose
from synapse_login_module.accounts.rules import LinkRules
from synapse_login_module.common.console import run_in_reactor
from synapse_login_module.common.running import running
from synapse_login_module.config.homeserver_yaml import is_ours
from synapse_login_module.errors import AccountRefused
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import (
    Account,
    AccountStatus,
    Claim,
    Identifier,
    UserId,
)
from synapse_login_module.plugin import Environment, read_only_environment
from synapse_login_module.providers.wrappers.guard import Meter
from synapse_login_module.rehearsal.providers import TracedProvider, tracing
from synapse_login_module.rehearsal.steps import Step, Trace, tell_link
from synapse_login_module.rehearsal.verdict import Verdict
from synapse_login_module.rehearsal.walk import Rehearsal
from synapse_login_module.synapse import user_tables
from synapse_login_module.synapse.accounts import HomeserverAccounts
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.commands import (
    Installation,
    read_installation,
)
from synapse_login_module.synapse.database import CursorRows
from synapse_login_module.synapse.linking import Linker, ToRegister
from synapse_login_module.synapse.links import SynapseLinks
from synapse_login_module.synapse.provider import SynapsePasswordProvider
from synapse_login_module.synapse.registration import not_registered

T = TypeVar("T")


def rehearse(
    files: Sequence[str], body: Mapping[str, Any], address: str
) -> tuple[Sequence[Step], Verdict]:
    """Walk through a login.

    :param files: Synapse's configuration files.
    :param body: the body of ``POST /login`` that a client would send.
    :param address: the client's address; empty if it is not known.
    :return: the steps, and what the client would be answered.
    :raise ConfigError: when the configuration cannot be used.
    """
    installation = read_installation(files)

    async def run(reactor: Any) -> tuple[Sequence[Step], Verdict]:
        hashing = compose.hashing_pool(installation.config, reactor)
        async with running(hashing) as start:
            return await _walk(installation, hashing, start, reactor, body, address)

    return run_in_reactor(run)


async def _walk(
    installation: Installation,
    hashing: Any,
    start: Callable[[object], None],
    reactor: Any,
    body: Mapping[str, Any],
    address: str,
) -> tuple[Sequence[Step], Verdict]:
    trace = Trace()
    synapse = SynapseInFiles(installation, trace)
    environment = read_only_environment(
        installation.server_name, hashing, reactor, homeserver=synapse
    )
    config = installation.config
    providers = compose.build_providers(installation.plugins, environment)
    for each in providers:
        start(each)
    accounts = HomeserverAccounts(
        compose.chain(
            config.password_providers,
            providers,
            None,
            reactor,
            Meter(lambda *_: None, lambda *_: None),
            tracing(trace, list(installation.names), time.monotonic),
        ),
        _TracedLocal(environment, trace) if config.fall_back_to_local else None,
        # All that the accounts use of it.
        cast(Homeserver, synapse),
        hashing,
        Linker(
            LinkRules(config.existing_accounts, config.link_accounts),
            installation.is_reserved,
            installation.default_user_type,
            config.register_users,
        ),
        config.sync_profile,
        lambda _: succeed(0),
        lambda _user_id, _link, status: succeed(status),
        ForeseenRegistration(synapse, installation, trace),
    )
    _tell_unseen(installation, trace)
    rehearsal = Rehearsal(
        installation.server_name, config, accounts, synapse.begin, None, reactor, trace
    )
    return trace.steps, await rehearsal.walk(body, address)


class SynapseInFiles:
    """Answers from Synapse's configuration and database what the accounts ask Synapse.

    See :class:`~synapse_login_module.synapse.api.Homeserver`. It serves a login. Each transaction
    is undone.

    :param installation: the Synapse.
    :param trace: receives the steps.
    :ivar made: the user IDs that the login would register.
    """

    is_login = True

    def __init__(self, installation: Installation, trace: Trace) -> None:
        self._database = installation.database
        self._given = installation.given
        self._trace = trace
        self.server_name = installation.server_name
        self.made: set[str] = set()
        passwords = installation.given.get("password_config") or {}
        enabled = passwords.get("enabled", True)
        self.local_passwords_count = bool(
            enabled and enabled != "only_for_reauth" and passwords.get("localdb_enabled", True)
        )
        self.pepper = str(passwords.get("pepper") or "")

    def now(self) -> int:
        """Return the time, in milliseconds since the epoch."""
        return int(time.time() * 1000)

    def call_synapse(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> Deferred[T]:
        """Call a function here, since there is no crossing."""

        async def call() -> T:
            return await function(*arguments)

        return Deferred.fromCoroutine(call())

    async def transaction(self, name: str, work: Callable[[Any], T]) -> T:
        """Do some work in one transaction, and undo it."""
        return self._database.rehearse(lambda rows: work(_Rows(rows)))

    async def account_status(self, user_id: str) -> AccountStatus | None:
        """Return the status of an account at the homeserver; ``None`` when there is no account."""
        if user_id in self.made:
            return AccountStatus.ACTIVE
        found = await self._standing(user_id)
        status = None if found is None else found.status
        said = "does not exist there" if status is None else f"is {status.value} there"
        self._trace.add(
            "homeserver", f"{user_id} {said}", outcome=status.value if status else "missing"
        )
        return status

    async def is_administrator(self, user_id: str) -> bool:
        """Say whether an account is a server administrator."""
        found = await self._standing(user_id)
        return found is not None and found.is_admin

    async def set_administrator(self, user_id: str, is_admin: bool) -> None:
        """Tell what would be done."""
        does = "makes it a server administrator" if is_admin else "takes that from it"
        self._trace.add("homeserver", f"{user_id}: the login {does}", outcome="admin")

    async def begin(self, account: Account) -> str:
        """Decide what Synapse decides before it begins a session."""
        if account.claim is not None:
            # What the login has linked was undone.
            link = await SynapseLinks(cast(Homeserver, self)).link_of(account.user_id)
            tell_link(self._trace, account.user_id, account, link is None)
        if self._given.get("hs_disabled"):
            problem = str(self._given.get("hs_disabled_message") or "")
            self._trace.add("homeserver", "hs_disabled is on", outcome="disabled")
            raise AccountRefused(403, Codes.RESOURCE_LIMIT_EXCEEDED, problem)
        return account.user_id

    async def _standing(self, user_id: str) -> user_tables.Standing | None:
        return await self.transaction("standing", lambda rows: user_tables.standing(rows, user_id))


class _Rows:
    """Rows of a transaction that is undone, for work that is written for a running Synapse."""

    def __init__(self, rows: CursorRows) -> None:
        self.fetch, self.write = rows.fetch, rows.write

    def invalidate_external_id(self, auth_provider: str, external_id: str) -> None:
        """Do nothing: no cache of a running Synapse is out of date."""


class ForeseenRegistration:
    """Foretells whether Synapse would register an account; see
    :class:`~synapse_login_module.synapse.registration.Registers`.

    :param synapse: notes what would be registered.
    :param installation: the Synapse.
    :param trace: receives the steps.
    """

    def __init__(self, synapse: SynapseInFiles, installation: Installation, trace: Trace) -> None:
        self._synapse = synapse
        self._trace = trace
        underscore = bool(installation.given.get("allow_underscore_prefixed_localpart"))
        registration = SimpleNamespace(allow_underscore_prefixed_localpart=underscore)

        def refuse_reserved(user_id: str, **_: Any) -> None:
            if installation.is_reserved(user_id):
                raise SynapseError(400, "This user ID is reserved", Codes.EXCLUSIVE)

        async def no_user(user_id: str) -> dict[str, Any]:
            return {}  # the name is free: the Linker has just looked

        self._handler: Any = SimpleNamespace(
            hs=SimpleNamespace(
                hostname=installation.server_name, config=SimpleNamespace(registration=registration)
            ),
            check_user_id_not_appservice_exclusive=refuse_reserved,
            store=SimpleNamespace(get_users_by_id_case_insensitive=no_user),
        )

    async def register(self, account: Account, claim: Claim, wanted: ToRegister) -> bool:
        """Have Synapse's own code check the name."""
        user_id = wanted.user_id
        localpart = UserId.parse(user_id, "").localpart
        try:
            await RegistrationHandler.check_username(self._handler, localpart)
        except SynapseError as error:
            self._trace.add(
                "homeserver",
                f"{user_id} cannot be registered there: {error.msg}",
                outcome="refused",
            )
            raise not_registered(error) from None
        self._trace.add(
            "homeserver",
            f"{user_id} does not exist there: this login would register it",
            outcome="missing",
        )
        self._synapse.made.add(user_id)
        return True

    async def synchronize(self, user_id: str, account: Account) -> None:
        """Do nothing: it decides nothing."""


class _TracedLocal(SynapsePasswordProvider):
    """Synapse's local passwords, which add steps.

    :param environment: for the provider.
    :param trace: receives the steps.
    """

    def __init__(self, environment: Environment, trace: Trace) -> None:
        super().__init__(None, environment)
        inner: IPasswordProvider = SynapsePasswordProvider(None, environment)
        self._traced = TracedProvider(inner, False, (), trace, time.monotonic)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._traced.authenticate(identifier, password)


def _tell_unseen(installation: Installation, trace: Trace) -> None:
    """Tell what a running Synapse also asks, and this cannot ask."""
    given = installation.given
    others = [str(each.get("module")) for each in given.get("modules") or () if not is_ours(each)]
    if others:
        trace.add("unseen", f"other modules, which are not asked: {', '.join(others)}")
    if given.get("limit_usage_by_mau"):
        trace.add("unseen", "limit_usage_by_mau, which only the running Synapse checks")
