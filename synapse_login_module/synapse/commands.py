"""The operator's commands on links and sessions of the module in Synapse.

They read ``homeserver.yaml`` and work on Synapse's database, whether Synapse runs or not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from synapse.config._base import ConfigError as SynapseConfigError
from synapse.config._base import find_config_files, read_config_files
from synapse.config.appservice import load_appservices
from synapse.config.database import DatabaseConfig
from twisted.internet.defer import Deferred

from synapse_login_module import compose
from synapse_login_module.accounts.link_place import Count, LinkPlace, RefusedLink
from synapse_login_module.accounts.names import address_in, linked_by_name, meant, user_id_of
from synapse_login_module.accounts.rules import ExistingAccount, LinkRules
from synapse_login_module.common.concurrency import at_once
from synapse_login_module.common.console import moment, printable, run_in_reactor
from synapse_login_module.common.running import running
from synapse_login_module.config.delegated import is_delegated
from synapse_login_module.config.homeserver_yaml import MODULE, own_entries
from synapse_login_module.config.settings import ModuleConfig, parse_module
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import AccountStatus, fold
from synapse_login_module.plugin import read_only_environment
from synapse_login_module.providers.wrappers.guard import Meter
from synapse_login_module.synapse.database import DatabaseLinks, SynapseDatabase
from synapse_login_module.synapse.provider import SynapsePasswordProvider
from synapse_login_module.synapse.user_tables import spellings, unlinked_accounts, user_with_address

T = TypeVar("T")

_AT_ONCE = 8


@dataclass(frozen=True)
class Installation:
    """A Synapse with the module, as its configuration files describe it.

    :param given: its configuration files, parsed and merged.
    :param server_name: its server name.
    :param database: its database.
    :param config: the module's configuration.
    :param plugins: the module's password providers.
    :param default_user_type: the ``user_type`` that every new account gets.
    :param is_reserved: says whether a user ID is in an exclusive namespace of an application
        service, or is that of server notices.
    """

    given: Mapping[str, Any] = field(repr=False)
    server_name: str
    database: SynapseDatabase
    config: ModuleConfig
    plugins: Sequence[compose.LoadedPlugin]
    default_user_type: str | None
    is_reserved: Callable[[str], bool]

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """By the current name of each provider, that name and its former ones."""
        return compose.provider_names(self.config.password_providers, self.plugins)

    def links(self, password_removed: Callable[[str], None] | None = None) -> DatabaseLinks:
        """Return the links in its database.

        :param password_removed: see :class:`.DatabaseLinks`.
        """
        return DatabaseLinks(self.database, self.names, password_removed)

    async def find_users(self, given: str) -> list[str]:
        """Find accounts of its database; see :data:`.FindUsers`."""
        address = address_in(given)
        if address is not None:
            with_it = self.database.transaction(
                lambda rows: user_with_address(rows, "email", address)
            )
            if with_it is None:
                raise ConfigError("", f"{address}: no account of Synapse has that address")
            return [with_it]
        typed = user_id_of(given, self.server_name)
        links = self.links()
        known = self.database.transaction(lambda rows: spellings(rows, typed))
        # An account may be linked before its first login, which registers it.
        known += [each for each in (typed, fold(typed)) if await links.link_of(each)]
        return meant(given, typed, known) or await linked_by_name(given, links, self.names)


def read_installation(files: Sequence[str]) -> Installation:
    """Read Synapse's configuration the way Synapse does.

    :param files: files, or folders of files.
    :raise ConfigError: with the path of the first wrong value.
    """
    try:
        given = read_config_files(find_config_files(list(files)))
        database = DatabaseConfig(None)
        database.read_config(given)
        main = [each for each in database.databases if "main" in each.databases]
        services = load_appservices(given["server_name"], given.get("app_service_config_files", []))
    except SynapseConfigError as error:
        path = ".".join(error.path or ())
        raise ConfigError(path, str(error.msg)) from None
    except Exception as error:  # it is not YAML, or lacks a mapping or a key
        raise ConfigError("", f"it cannot be read: {error}") from None
    if not main:
        raise ConfigError("database", "it is missing")
    server_name = given["server_name"]
    config, plugins = _module(given)
    notices = (given.get("server_notices") or {}).get("system_mxid_localpart")

    def is_reserved(user_id: str) -> bool:
        return user_id == f"@{notices}:{server_name}" or any(
            service.is_exclusive_user(user_id) for service in services
        )

    return Installation(
        given,
        server_name,
        SynapseDatabase(main[0].config["name"], main[0].config.get("args") or {}),
        config,
        plugins,
        (given.get("user_types") or {}).get("default_user_type"),
        is_reserved,
    )


def _module(given: Mapping[str, Any]) -> tuple[ModuleConfig, Sequence[compose.LoadedPlugin]]:
    for index, entry in own_entries(given):
        if is_delegated(entry.get("config")):
            raise ConfigError(
                f"modules.{index}.config.delegated",
                "this Synapse leaves logins to another service, so give the --config of that",
            )
        try:
            config = parse_module(entry.get("config") or {})
            return config, compose.load_providers(config, Path.cwd())
        except ConfigError as error:
            raise error.within(f"modules.{index}.config") from None
    raise ConfigError("modules", f"{MODULE} is not among them")


async def would_refuse(installation: Installation, reactor: Any, count: Count) -> list[RefusedLink]:
    """Find the accounts whose names a provider knows, but which a login would not link.

    :param count: counts the accounts.
    :return: the accounts, in the order of their user IDs.
    :raise ProviderUnavailable: when a provider is.
    :raise StoreUnavailable: when the database is.
    """
    installation.links()  # makes the tables, if the module has never run
    accounts = installation.database.transaction(
        lambda rows: unlinked_accounts(rows, installation.default_user_type)
    )
    rules = LinkRules(installation.config.existing_accounts, installation.config.link_accounts)
    candidates = [
        account._replace(is_reserved=installation.is_reserved(account.user_id))
        for account in accounts
    ]
    providers, parts = _providers(installation, reactor)
    async with running(*parts):
        return await _ask(installation, rules, candidates, providers, count(len(candidates)))


async def _ask(
    installation: Installation,
    rules: LinkRules,
    accounts: Sequence[ExistingAccount],
    providers: Sequence[IPasswordProvider],
    tell: Callable[[int], None],
) -> list[RefusedLink]:
    names = installation.names

    async def ask(account: ExistingAccount) -> RefusedLink | None:
        tell(1)
        for provider in providers:
            refusal = rules.refusal(account, names[provider.name])
            # An account that the rules allow needs no question.
            if refusal is None:
                continue
            status = await provider.account_status(account.user_id)
            if status is not None:
                unsure = "?" if status is AccountStatus.UNVERIFIABLE else ""
                return RefusedLink(account.user_id, provider.name + unsure, *refusal)
        return None

    found = await at_once(_AT_ONCE, ask, accounts)
    return [each for each in found if each is not None]


def _providers(
    installation: Installation, reactor: Any
) -> tuple[list[IPasswordProvider], list[Any]]:
    """Return the providers of the configuration without Synapse's own passwords, and the parts to
    start for them.
    """
    hashing = compose.hashing_pool(installation.config, reactor)
    environment = read_only_environment(installation.server_name, hashing, reactor)
    meter = Meter(lambda *_: None, lambda *_: None)
    built: list[IPasswordProvider] = []
    parts: list[Any] = [hashing]
    for index, (plugin, loaded) in enumerate(
        zip(installation.config.password_providers, installation.plugins, strict=True)
    ):
        if issubclass(loaded[0], SynapsePasswordProvider):
            continue
        try:
            provider = compose.build_plugin(loaded, environment)
        except ConfigError as error:
            raise error.within(f"password_providers.{index}.config") from None
        parts.append(provider)
        built.append(compose.wrap(plugin, provider, reactor, meter))
    return built, parts


def run_on_links(
    files: Sequence[str],
    work: Callable[[LinkPlace], Coroutine[Deferred[Any], Any, T]],
    say: Callable[[str], None],
    keep_passwords: bool,
) -> T:
    """Run some work on the links in Synapse's database, and return what it returns.

    :param files: Synapse's configuration files.
    :param work: called with access to the links.
    :param say: called with each line to print.
    :param keep_passwords: whether a user whose link is removed keeps the local password.
    """

    def password_removed(user_id: str) -> None:
        say(
            f"the local password of {printable(user_id)} is removed; set a new one by the admin API"
            " if it is to have one"
        )

    async def run(reactor: Any) -> T:
        async def refused(count: Count) -> list[RefusedLink]:
            return await would_refuse(installation, reactor, count)

        place = LinkPlace(
            installation.links(None if keep_passwords else password_removed),
            installation.server_name,
            installation.find_users,
            installation.names,
            _say_ending,
            refused,
        )
        return await work(place)

    installation = read_installation(files)
    return run_in_reactor(run)


async def _say_ending(user_id: str) -> str:
    """Return the line to print. The command has written a wish; the running Synapse ends the
    sessions.
    """
    return f"the sessions of {user_id} are ended by Synapse within seconds, or at its next start"


def end_gone(files: Sequence[str], confirmed: bool, say: Callable[[str], None]) -> None:
    """List the accounts that the brake holds; if confirmed, have their sessions ended.

    :param files: Synapse's configuration files.
    :param confirmed: whether to end the sessions.
    :param say: called with each line to print.
    """

    async def run(_: Any) -> None:
        held = await installation.links().held(ended=confirmed)
        for each in held:
            link = map(printable, (each.user_id, each.provider, each.subject))
            say("\t".join((*link, moment(each.gone_since))))
        if not held:
            say("no account has vanished and keeps its sessions")
        elif not confirmed:
            say(f"{len(held)} accounts have vanished and keep their sessions; --yes ends them")
        else:
            say(
                f"the sessions of {len(held)} accounts are ended by Synapse within seconds, or at"
                " its next start, unless their provider knows them again"
            )

    installation = read_installation(files)
    run_in_reactor(run)
