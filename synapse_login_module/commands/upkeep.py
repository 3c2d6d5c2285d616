"""``sessions prune`` and ``sessions end-gone``: the server's background work, by hand."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.accounts.held import find_held, let_go
from synapse_login_module.commands.backends import Opened, on_synapse, with_store
from synapse_login_module.commands.expiring import housekept
from synapse_login_module.commands.options import Where, config_option, where_option
from synapse_login_module.commands.program import Command, about
from synapse_login_module.commands.progress import progress, shows_progress
from synapse_login_module.commands.report import Say, report, row
from synapse_login_module.common.console import moment
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import Pruned
from synapse_login_module.standalone.pruning import prune_all
from synapse_login_module.standalone.server import is_housekept


@click.command(
    "prune",
    cls=Command,
    examples=("sessions prune -c config.yaml",),
    short_help="Remove the rows of old, ended sessions from the store.",
    epilog="The server does this in the background. The command does it at once, also while the"
    " server runs.",
)
@config_option()
def prune(config: Path) -> None:
    """Remove the rows of sessions and login tokens that ended longer ago than tokens.keep_ended."""

    async def work(opened: Opened) -> Pruned:
        if not is_housekept(opened.store):
            raise ConfigError("token_store.module", "this store does not support pruning")
        if opened.loaded.config.tokens.keep_ended is None:
            raise ConfigError("tokens.keep_ended", "it is null, so nothing is ever removed")
        store = housekept(opened)
        old = (await store.count_sessions()).removable if shows_progress() else 0
        with progress("removing sessions", old) as update:
            return await prune_all(store, opened.reactor, lambda batch: update(batch.sessions))

    pruned = with_store(config, work, read_only=False)
    click.echo(f"{pruned.sessions} sessions and {pruned.login_tokens} login tokens removed")


@click.command(
    "end-gone",
    cls=Command,
    examples=(
        "sessions end-gone -c config.yaml",
        "sessions end-gone -c config.yaml --yes",
    ),
    short_help="List or end sessions of accounts that are gone.",
    epilog="Before sessions end, each account is looked up at its provider once more.",
)
@where_option
@click.option("--yes", is_flag=True, help="End the sessions of these accounts.")
def end_gone(where: Where, yes: bool) -> None:
    """List the accounts that are gone from their provider but keep their sessions, because the
    brake holds them.
    """
    with report() as say:
        if where.config is None:
            with about(*where.homeserver):
                on_synapse(where.homeserver).end_gone(where.homeserver, yes, say)
            return
        with_store(where.config, lambda opened: _end_gone(opened, yes, say), read_only=not yes)


async def _end_gone(opened: Opened, yes: bool, say: Say) -> None:
    watch = opened.watch()
    if watch is None:
        raise ConfigError("token_store.module", "this store does not support background checks")
    held = await find_held(opened.store.link_watch)  # type: ignore[attr-defined] # IHousekeeping
    for each in held:
        say(row(*each.link, moment(each.gone_since)))
    if not held:
        say("no account has vanished and keeps its sessions")
    elif not yes:
        say(f"{len(held)} accounts have vanished and keep their sessions; --yes ends them")
    else:
        with progress("asking the providers", len(held)) as update:
            done = await let_go(held, watch.questions, watch.judge, update)
        say(f"the sessions of {len(done.ended)} accounts have ended")
        if done.kept:
            say(f"{len(done.kept)} accounts are known again and keep theirs")
        if done.unsaid:
            raise ConfigError(
                "", f"the providers of {len(done.unsaid)} accounts cannot say whether they are gone"
            )
