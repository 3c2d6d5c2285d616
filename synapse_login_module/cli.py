"""``synapse-login-module``: what an operator does beside running the server."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import maybeDeferred
from twisted.python.reflect import namedAny

from synapse_login_module import __version__, keys_cli, links_cli
from synapse_login_module.compose import provider_names
from synapse_login_module.console import printable, run_in_reactor
from synapse_login_module.errors import ConfigError, LoginServiceError
from synapse_login_module.interfaces import IAccounts, ITokenStore
from synapse_login_module.links_cli import LinkCommand, LinkPlace
from synapse_login_module.model import UserId
from synapse_login_module.passwords import hash_password
from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.standalone.server import build_backends
from synapse_login_module.stores.memory import MemoryTokenStore

PROGRAM = "synapse-login-module"
_IN_PLACE = "Run it as Synapse's user, in the folder that Synapse runs in."


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit: 0 when done, 1 when it cannot be, 2 when not understood."""
    options = parser().parse_args(argv)
    try:
        options.run(options)
    except (LoginServiceError, OSError) as error:
        raise SystemExit(f"{PROGRAM}: {options.where}{error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog=PROGRAM, description="Helps whoever runs the login service of a Matrix homeserver."
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    top.set_defaults(where="")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _command(
        commands, "hash-password", _hash_password, "Make a bcrypt hash for users.yaml."
    )
    command.add_argument("--rounds", type=_rounds, default=12, help="bcrypt's cost, 4 to 31 (12)")
    command.add_argument("--pepper", default="", help="the pepper of the provider's configuration")
    command.epilog = "Asks for the password twice; or reads it, one line, from a pipe."

    command = _command(commands, "check-config", _check_config, "Check a configuration file.")
    command.add_argument("file", metavar="FILE", type=Path, help="the server's configuration")
    command.epilog = (
        "Exit status 0 when the server would start with it, else 1 and one line that says why."
    )

    command = _command(
        commands,
        "create-login-token",
        _create_login_token,
        "Make a single-use login token for a user.",
    )
    _config_option(command)
    command.add_argument("user", metavar="USER", help="a user ID, or its local part")
    command.epilog = "Prints the token, good for m.login.token for tokens.login_token_lifetime."

    command = _command(commands, "rotate-key", _rotate_key, "Add a new key for tokens.")
    _config_option(command)
    command.add_argument(
        "--now", action="store_true", help="have it sign at once: for one server alone"
    )
    command.epilog = (
        "The key is known, and signs nothing until activate-key. Until then copy the key file to"
        " every machine that shares the sessions."
    )

    command = _command(
        commands, "activate-key", _activate_key, "Have the newest key sign new tokens."
    )
    _config_option(command)
    command.epilog = "Once every machine has it; on each of them, in any order, without a restart."

    sessions = commands.add_parser(
        "sessions", help="List or revoke sessions.", description="List or revoke sessions."
    ).add_subparsers(
        title="commands", metavar="COMMAND", required=True, help="each has a --help of its own"
    )

    command = _command(sessions, "list", _list_sessions, "List sessions, oldest first.")
    _config_option(command)
    command.add_argument("user", metavar="USER", nargs="?", help="only this user's")

    command = _command(
        sessions, "revoke", _revoke_sessions, "End sessions; their tokens die at once."
    )
    _config_option(command)
    command.add_argument("user", metavar="USER", help="a user ID, or its local part")
    command.add_argument("device", metavar="DEVICE", nargs="?", help="only on this device")

    links_cli.add_commands(commands, _links_options, _run_on_links)

    command = _command(
        sessions,
        "end-gone",
        _end_gone,
        "Inside Synapse: list the accounts that have vanished from their provider, and whose"
        " sessions the brake keeps.",
    )
    _homeserver_option(command, required=True)
    command.add_argument("--yes", action="store_true", help="end these sessions")
    command.epilog = "Each account is asked for once more before it ends."
    return top


def _links_options(command: argparse.ArgumentParser) -> None:
    """Links are in the standalone server's store, or in Synapse's database."""
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "-c", "--config", metavar="FILE", type=Path, help="the standalone server's configuration"
    )
    _homeserver_option(where)


def _homeserver_option(options: Any, required: bool = False) -> None:
    """Add the option for what runs on Synapse's database."""
    options.add_argument(
        "--homeserver-config",
        metavar="FILE",
        action="append",
        required=required,
        help="Synapse's configuration; may be given more than once, as to Synapse. Run the command"
        " as Synapse's user, in the folder that Synapse runs in",
    )


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    return command


def _config_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        required=True,
        help="the server's configuration",
    )


def _rounds(text: str) -> int:
    rounds = int(text)
    if not 4 <= rounds <= 31:
        raise argparse.ArgumentTypeError("from 4 to 31")
    return rounds


def _hash_password(options: argparse.Namespace) -> None:
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise SystemExit(f"{PROGRAM}: the passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise SystemExit(f"{PROGRAM}: no password given")
    if any("\ud800" <= letter <= "\udfff" for letter in password):
        raise SystemExit(f"{PROGRAM}: the password is not text in this locale's encoding")
    print(hash_password(password, options.pepper, options.rounds))


def _check_config(options: argparse.Namespace) -> None:
    from twisted.internet import reactor

    options.where = f"{options.file}: "
    load_config(options.file, reactor)
    print(f"{options.file}: good")


def _rotate_key(options: argparse.Namespace) -> None:
    path = _key_file(options)
    print(keys_cli.rotate(path, os.urandom, options.now))


def _activate_key(options: argparse.Namespace) -> None:
    print(keys_cli.activate(_key_file(options)))


def _key_file(options: argparse.Namespace) -> Path:
    from twisted.internet import reactor

    options.where = f"{options.config}: "
    return load_config(options.config, reactor).key_file


def _create_login_token(options: argparse.Namespace) -> None:
    async def work(opened: Opened, user_id: str) -> None:
        if await opened.accounts.account_status(user_id, None) is None:
            raise ConfigError("", f"no password provider knows {user_id}")
        print((await opened.store.make_login_token(user_id)).token)

    _with_store(options, work)


def _list_sessions(options: argparse.Namespace) -> None:
    async def work(opened: Opened, user_id: str | None) -> None:
        for session in await opened.store.sessions(user_id):
            print(
                printable(session.user_id),
                printable(session.device_id),
                f"since={_moment(session.created_at)}",
                f"refreshed={_moment(session.issued_at)}",
                printable(session.display_name or ""),
                sep="\t",
            )

    _with_store(options, work)


def _revoke_sessions(options: argparse.Namespace) -> None:
    async def work(opened: Opened, user_id: str) -> None:
        store = opened.store
        if options.device is None:
            print(await store.revoke_all(user_id), "sessions revoked")
            return
        found = [each for each in await store.sessions(user_id) if each.device_id == options.device]
        for session in found:
            await store.revoke(session)
        print(len(found), "sessions revoked")

    _with_store(options, work)


def _run_on_links(command: LinkCommand, options: argparse.Namespace) -> None:
    if options.homeserver_config is not None:
        _synapse_commands(options).run(command, options)
        return

    async def work(opened: Opened, user_id: str | None) -> None:
        async def revoke_all(user_id: str) -> str:
            return f"{await opened.store.revoke_all(user_id)} sessions revoked"

        config = opened.loaded.config
        if user_id is not None and UserId.parse(user_id, "").server_name != config.server_name:
            raise ConfigError("", f"{user_id} is no user of {config.server_name}")
        names = provider_names(config.password_providers, opened.loaded.providers)
        # The configuration is refused where its store keeps no links.
        links: Any = opened.store
        await command(LinkPlace(links, names, revoke_all), user_id, options)

    _with_store(options, work)


def _end_gone(options: argparse.Namespace) -> None:
    _synapse_commands(options).end_gone(options)


def _synapse_commands(options: argparse.Namespace) -> Any:
    """What runs on Synapse's database.

    It is found by its name, since nothing but that room may know Synapse, which is not always
    there.
    """
    options.where = f"{', '.join(options.homeserver_config)}: "
    try:
        return namedAny("synapse_login_module.synapse.commands")
    except ImportError as error:
        raise ConfigError("", f"Synapse is needed for this: {error}") from None


class Opened(NamedTuple):
    """What commands work on.

    :param loaded: the configuration.
    """

    loaded: LoadedConfig
    store: ITokenStore
    accounts: IAccounts


def _with_store(options: argparse.Namespace, work: Callable[[Opened, Any], Any]) -> None:
    """Run work on the configuration's store, and leave the store clean."""
    options.where = f"{options.config}: "

    async def run(reactor: Any) -> None:
        loaded = load_config(options.config, reactor)
        if issubclass(loaded.store[0], MemoryTokenStore):
            raise ConfigError(
                "token_store",
                "the sessions are in the server's memory, where no command sees them",
            )
        backends = build_backends(loaded, reactor)
        user = options.user and str(UserId.parse(options.user, loaded.config.server_name))
        for part in backends.parts:
            part.startService()
        try:
            await work(Opened(loaded, backends.store, backends.accounts), user)
        finally:
            for part in backends.parts:
                await maybeDeferred(part.stopService)

    run_in_reactor(run)


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.isoformat(timespec="seconds")


if __name__ == "__main__":
    main()
