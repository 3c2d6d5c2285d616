"""``import-synapse``: takes over accounts and sessions from a Synapse."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from twisted.python.reflect import namedAny

from synapse_login_module.commands import import_sessions
from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.import_accounts import (
    SQL_TABLE,
    Accounts,
    deactivated,
    localpart_of,
    print_accounts,
    require_folder,
    write_accounts,
)
from synapse_login_module.commands.import_links import UNKNOWN, Linking, passwordless
from synapse_login_module.commands.import_next import lacks_only, names_file, provider_to_add
from synapse_login_module.commands.import_report import Tally
from synapse_login_module.commands.import_sessions import Source
from synapse_login_module.commands.options import FILE, config_option, homeserver_option
from synapse_login_module.commands.program import Command, about
from synapse_login_module.commands.progress import progress
from synapse_login_module.common.console import escaped
from synapse_login_module.compose import provider_names
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import HomeserverUser
from synapse_login_module.providers.files.bcrypt import BcryptConfig
from synapse_login_module.standalone.plan import LoadedConfig, load_for_store

_PAGE = 1000


@click.command(
    "import-synapse",
    cls=Command,
    short_help="Take over accounts and sessions from a Synapse.",
    examples=(
        "import-synapse -c new.yaml --homeserver-config hs.yaml --accounts users.yaml",
        "import-synapse -c new.yaml --homeserver-config hs.yaml --sessions",
    ),
    epilog="Synapse's database is only read, and matrix-synapse need not be installed here. First"
    " --accounts or --links, then the provider in the configuration and a restart of the server,"
    " and then --sessions, while Synapse is stopped, as the last step before Synapse delegates to"
    " this server. Nothing is taken twice: after an interruption, or a mistake that is mended, run"
    " the command again.",
)
@config_option()
@homeserver_option(
    advice="Run the command as root, in the folder that Synapse runs in if its paths are relative."
)
@click.option(
    "--accounts",
    metavar="FILE",
    type=FILE,
    help="Write the accounts that have a password into a file for BcryptProvider, mode 0600. If a"
    " provider of the configuration serves the file, link them to it.",
)
@click.option(
    "--accounts-sql",
    is_flag=True,
    help="Print the accounts that have a password as rows of SQL, for SQLProvider.",
)
@click.option(
    "--links",
    metavar="PROVIDER",
    help="Link the accounts that have no password, and that the rule existing_accounts:"
    " passwordless allows, to the accounts of this provider with the same local part.",
)
@click.option(
    "--sessions",
    is_flag=True,
    help="Take over the sessions whose accounts a provider knows, so that their clients stay"
    " logged in.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing, and print what would be done.")
@click.option("--verbose", is_flag=True, help="List all that is left out, not ten for each reason.")
def command(
    config: Path,
    homeserver_config: tuple[str, ...],
    accounts: Path | None,
    accounts_sql: bool,
    links: str | None,
    sessions: bool,
    dry_run: bool,
    verbose: bool,
) -> None:
    """Take over accounts, links and sessions from a Synapse's database."""
    if not (accounts or accounts_sql or links or sessions):
        raise click.UsageError(
            "Give at least one of --accounts, --accounts-sql, --links and --sessions."
        )
    if accounts_sql and (accounts or links or sessions):
        raise click.UsageError("--accounts-sql prints rows, and goes with nothing else.")
    with about(config):
        loaded, _ = load_for_store(config)
    with _source(homeserver_config) as source:
        if source.server_name != loaded.config.server_name:
            raise ConfigError(
                "",
                f"server_name is {source.server_name} in {', '.join(homeserver_config)}, and"
                f" {loaded.config.server_name} in {config}",
            )
        if accounts_sql:
            _print_accounts(source, verbose)
        else:
            files = ", ".join(homeserver_config)
            _Import(config, files, source, verbose, not dry_run).run(accounts, links, sessions)


@contextmanager
def _source(files: Sequence[str]) -> Iterator[Source]:
    with about(*files):
        # By name, because only synapse/ knows Synapse's tables.
        source: Source = namedAny("synapse_login_module.synapse.importing.SynapseSource")(files)
    try:
        yield source
    finally:
        source.close()


class _Import:
    """One run of the command.

    :param config: the server's configuration file.
    :param files: the names of Synapse's configuration files.
    :param write: ``False`` to count only.
    """

    def __init__(
        self, config: Path, files: str, source: Source, verbose: bool, write: bool
    ) -> None:
        self._config = config
        self._files = files
        self._source = source
        self._tally = Tally(verbose)
        self._write = write
        self._admins: list[str] = []
        self._without_provider: LoadedConfig | None = None

    def run(self, accounts: Path | None, links: str | None, sessions: bool) -> None:
        """Take over what is wanted, in the right order, and report."""
        if not self._write:
            click.echo("nothing is written (--dry-run)")
        try:
            self._take_over(accounts, links, sessions)
        finally:
            self._tally.show()
            if self._admins:
                click.echo("server administrators, to be listed in the homeserver block as:")
                admins = json.dumps(self._admins, ensure_ascii=False)
                click.echo(escaped(f"  admins: {admins}"))
            if accounts is not None and self._without_provider is not None:
                self._tell_provider(self._without_provider, accounts)
        self._tell_order()

    def _take_over(self, accounts: Path | None, links: str | None, sessions: bool) -> None:
        selected: list[HomeserverUser] = []
        served = None
        if accounts is not None:
            selected = self._write_accounts(accounts)
            loaded, problem = load_for_store(self._config)
            if problem is not None:
                if not self._write and lacks_only(problem, loaded, accounts):
                    click.echo(f"links and sessions are not tried: there is no {accounts} yet")
                    return
                if not names_file(loaded, accounts):
                    self._without_provider = loaded
                with about(self._config):
                    raise problem
            served = self._provider_of(loaded, accounts)
            if served is None:
                self._without_provider = loaded
                if sessions:
                    raise ConfigError(
                        "",
                        f"no provider serves {accounts} yet, so the sessions of its accounts cannot"
                        " be taken over: add the provider, restart the server, and run this again",
                    )
        if served is not None or links is not None or sessions:
            self._on_store(served, selected, links, sessions)

    def _users(self) -> Iterator[list[HomeserverUser]]:
        """Read all accounts, and remember the administrators."""
        admins = []
        with progress("accounts", self._source.number_of_users()) as update:
            for page in self._source.users(_PAGE):
                admins += [
                    each.user_id
                    for each in page
                    if each.is_admin and each.problem is None and not each.is_deactivated
                ]
                yield page
                update(len(page))
        self._admins = admins

    def _write_accounts(self, path: Path) -> list[HomeserverUser]:
        """Write the file; return the accounts that are in it."""
        with about(path):
            require_folder(path)
        chosen = Accounts(self._tally)
        entries: dict[str, dict[str, Any]] = {}
        gone: list[str] = []
        selected = []
        for page in self._users():
            mine = dict(chosen.entries(page))
            entries.update(mine)
            gone += deactivated(page)
            selected += [each for each in page if localpart_of(each) in mine]
        with about(path):
            write_accounts(path, entries, gone, self._tally, self._write)
        return selected

    def _provider_of(self, loaded: LoadedConfig, path: Path) -> str | None:
        """Return the name of the provider that serves a file, or ``None``.

        :raise Failure: when it has another pepper than Synapse.
        """
        names = provider_names(loaded.config.password_providers, loaded.providers)
        for index, (name, (_, parsed)) in enumerate(zip(names, loaded.providers, strict=True)):
            file = parsed.file if isinstance(parsed, BcryptConfig) else None
            if file is None or file.path.resolve() != path.resolve():
                continue
            if parsed.pepper != self._source.pepper:
                with about(self._config):
                    raise ConfigError(
                        f"password_providers.{index}.config.pepper",
                        f"it is not password_config.pepper in {self._files}, so no password would"
                        " be accepted: copy that one. There, keep pepper beside enabled: false",
                    )
            return name
        return None

    def _on_store(
        self,
        served: str | None,
        selected: Sequence[HomeserverUser],
        links: str | None,
        sessions: bool,
    ) -> None:
        """Make links, then take over sessions."""

        async def work(opened: Opened) -> None:
            from twisted.internet import reactor

            if served is not None:
                linking = Linking(opened, served, self._tally, self._write, True)
                await self._link(linking, _paged(selected))
            if links is not None:
                linking = Linking(opened, links, self._tally, self._write)
                pages = (passwordless(page, self._tally) for page in self._users())
                await self._link(linking, pages)
            if sessions:
                await import_sessions.import_sessions(
                    self._source, opened, self._tally, self._write, reactor
                )

        if self._write:
            click.echo(
                "restart the server now, unless it was restarted since its providers were changed:"
                " to one that lacks them, the accounts are gone"
            )
        with_store(self._config, work, read_only=not self._write)

    @staticmethod
    async def _link(linking: Linking, pages: Iterable[Sequence[HomeserverUser]]) -> None:
        for page in pages:
            await linking.link_all(page)

    def _tell_provider(self, loaded: LoadedConfig, path: Path) -> None:
        """Say what to do with the file that no provider serves yet."""
        click.echo(
            "next: add the provider, restart the server, and run this again, which links the"
            " accounts to it; then --sessions:"
        )
        for line in provider_to_add(loaded, path, self._files if self._source.pepper else None):
            click.echo(line)

    def _tell_order(self) -> None:
        """Say what the order is where it may have been another."""
        if self._tally.number_left(import_sessions.WHAT, UNKNOWN):
            click.echo(
                "accounts come before sessions: take the accounts over (--accounts, --links) or add"
                " their provider, restart the server, and run --sessions again"
            )


def _paged(users: Sequence[HomeserverUser]) -> Iterator[Sequence[HomeserverUser]]:
    """Cut accounts into pages, and show how many are done."""
    with progress("links", len(users)) as update:
        for start in range(0, len(users), _PAGE):
            page = users[start : start + _PAGE]
            yield page
            update(len(page))


def _print_accounts(source: Source, verbose: bool) -> None:
    """Print the accounts with a password as SQL, and the report as comments."""
    tally = Tally(verbose, "-- ")
    chosen = Accounts(tally)
    click.echo(SQL_TABLE)
    for page in source.users(_PAGE):
        print_accounts(chosen.entries(page), tally)
    tally.show()
