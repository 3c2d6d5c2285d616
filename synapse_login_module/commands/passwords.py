"""``hash-password``."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import NamedTuple

import click
from twisted.python.reflect import namedAny

from synapse_login_module.commands.options import FILE, config_option
from synapse_login_module.commands.program import Command, Failure, about
from synapse_login_module.config import yaml_loader
from synapse_login_module.config.files import read_bytes, read_secret
from synapse_login_module.config.homeserver_yaml import MODULE, own_entries
from synapse_login_module.config.settings import SharedConfig, parse, parse_module
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError
from synapse_login_module.passwords import hash_password
from synapse_login_module.standalone.plan import is_homeserver_config

_DEFAULT_ROUNDS = 12
_BCRYPT = (".BcryptProvider", ".PasswdProvider", ".SQLProvider")
"""Class names of providers that verify bcrypt hashes, with or without a pepper."""


class _Rule(NamedTuple):
    """The pepper and the cost with which a provider's passwords are hashed."""

    pepper: str
    rounds: int


def _refuse_pepper(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            "Every user of this machine can read --pepper in the list of processes. Write the"
            " pepper to a file and give --pepper-file FILE, or give --config FILE. Consider the"
            " pepper that you gave compromised.",
            ctx,
        )


@click.command(
    "hash-password",
    cls=Command,
    examples=("hash-password -c config.yaml",),
    epilog="At a terminal, the command asks for the password twice. Otherwise it reads one line"
    " from standard input.",
)
@click.option(
    "--rounds",
    type=click.IntRange(4, 31),
    metavar="N",
    help="The cost of bcrypt. The default is hashing.rounds of the configuration, or"
    f" {_DEFAULT_ROUNDS} without --config.",
)
@click.option(
    "--pepper-file",
    metavar="FILE",
    type=FILE,
    help="A file with one line: the pepper of the provider's configuration.",
)
@config_option(
    required=False,
    help_text="Take the pepper and the rounds from this configuration file: the standalone"
    " server's, or Synapse's.",
)
@click.option(
    "--provider",
    metavar="NAME",
    help="The password provider that the hash is for, if providers have different peppers.",
)
@click.option("--pepper", hidden=True, expose_value=False, callback=_refuse_pepper)
def command(
    rounds: int | None, pepper_file: Path | None, config: Path | None, provider: str | None
) -> None:
    """Make a bcrypt hash for users.yaml."""
    if pepper_file is not None and config is not None:
        raise click.UsageError("Give one of --pepper-file and --config.")
    if provider is not None and config is None:
        raise click.UsageError("--provider needs --config.")
    rule = _Rule("", _DEFAULT_ROUNDS)
    if config is not None:
        rule = _rule_of(config, provider)
        if rounds is not None and rounds < rule.rounds:
            click.echo(f"{config}: hashing.rounds is {rule.rounds}: this hash is weaker", err=True)
    elif pepper_file is not None:
        rule = rule._replace(pepper=_read_pepper(pepper_file))
    click.echo(hash_password(_ask(), rule.pepper, rounds or rule.rounds))


def _rule_of(config: Path, name: str | None) -> _Rule:
    """Return the pepper and the cost of a provider.

    The providers' own configuration is not checked, because their files may not exist yet.

    :param name: the provider's name; ``None`` if all providers have the same pepper.
    """
    with about(config):
        settings = _settings(config)
        peppers: dict[str, str] = {}
        for index, plugin in enumerate(settings.password_providers):
            if "pepper" in plugin.config or plugin.module.endswith(_BCRYPT):
                pepper = plugin.config.get("pepper", "")
                if not isinstance(pepper, str):
                    raise ConfigError(f"password_providers.{index}.config.pepper", "must be text")
                peppers[plugin.name or _name_of(plugin.module)] = pepper
        if name is None and len(set(peppers.values())) == 1:
            name = next(iter(peppers))
        if name not in peppers:
            asked = "give --provider" if name is None else f"{name} is not among them"
            known = ", ".join(peppers) or "none"
            raise ConfigError("", f"password providers that take bcrypt hashes: {known}; {asked}")
    return _Rule(peppers[name], settings.hashing.rounds)


def _settings(config: Path) -> SharedConfig:
    """Parse the settings of the standalone server, or of the module in Synapse's configuration."""
    given = yaml_loader.parse(read_bytes(config))
    if not is_homeserver_config(given):
        return parse(given)
    for index, entry in own_entries(given):
        return config_path(f"modules.{index}.config", parse_module, entry.get("config") or {})
    raise ConfigError("modules", f"{MODULE} is not among them")


def _name_of(module: str) -> str:
    """Return the name of a provider without ``name`` in the configuration."""
    try:
        return str(namedAny(module).name)
    except Exception as error:  # the module's code may raise anything
        raise ConfigError("", f"cannot import {module}: {error}") from None


def _read_pepper(path: Path) -> str:
    with about(path):
        pepper = read_secret(path, read_bytes)
    if not pepper or "\n" in pepper:
        raise Failure(f"{path}: must hold exactly one line, the pepper")
    return pepper


def _ask() -> str:
    """Ask for a new password, twice at a terminal."""
    return ask_password("Password: ", "Again: ")


def ask_password(*prompts: str) -> str:
    """Ask for a password at a terminal, or read one line from standard input.

    :param prompts: what to ask with at a terminal, which shows nothing of the answers. All answers
        have to be the same.
    """
    if sys.stdin.isatty():
        try:
            password, *others = [getpass.getpass(prompt) for prompt in prompts]
        except EOFError:
            click.echo(err=True)
            raise Failure("no password given: the input has ended") from None
        if any(each != password for each in others):
            raise Failure("the passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise Failure("no password given")
    if any("\ud800" <= letter <= "\udfff" for letter in password):
        raise Failure("the password is not text in this locale's encoding")
    return password
