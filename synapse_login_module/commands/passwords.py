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
from synapse_login_module.config.settings import SharedConfig, parse, parse_module
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError
from synapse_login_module.passwords import hash_password
from synapse_login_module.standalone.plan import is_homeserver_config

_DEFAULT_ROUNDS = 12
_BCRYPT = (".BcryptProvider", ".PasswdProvider", ".SQLProvider")
"""What takes bcrypt hashes, with or without a pepper."""


class _Rule(NamedTuple):
    """How the passwords of a provider are hashed."""

    pepper: str
    rounds: int


def _refuse_pepper(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            "Everybody on this machine can read --pepper in the list of processes: write the pepper"
            " to a file and give --pepper-file FILE, or give --config FILE. Consider the pepper"
            " that was given to be known.",
            ctx,
        )


@click.command(
    "hash-password",
    cls=Command,
    epilog="Asks for the password twice; or reads it, one line, from a pipe.",
)
@click.option(
    "--rounds",
    type=click.IntRange(4, 31),
    metavar="N",
    help=f"bcrypt's cost, by default hashing.rounds of the configuration, or {_DEFAULT_ROUNDS}.",
)
@click.option(
    "--pepper-file",
    metavar="FILE",
    type=FILE,
    help="A file with the pepper of the provider's configuration on one line.",
)
@config_option(
    required=False,
    help_text="Take the pepper and the rounds from this configuration: the standalone"
    " server's, or Synapse's.",
)
@click.option(
    "--provider",
    metavar="NAME",
    help="The password provider whose pepper it is, where several of the configuration hash.",
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
    """How a provider of a configuration hashes.

    The configuration is only looked into: the file of accounts may be still to be made.
    """
    with about(config):
        settings = _settings(config)
        peppers: dict[str, str] = {}
        for index, plugin in enumerate(settings.password_providers):
            if "pepper" in plugin.config or plugin.module.endswith(_BCRYPT):
                pepper = plugin.config.get("pepper", "")
                if not isinstance(pepper, str):
                    raise ConfigError(f"password_providers.{index}.config.pepper", "it is no text")
                peppers[plugin.name or _name_of(plugin.module)] = pepper
        if name is None and len(set(peppers.values())) == 1:
            name = next(iter(peppers))
        if name not in peppers:
            asked = "give --provider" if name is None else f"{name} is not among them"
            known = ", ".join(peppers) or "there is none"
            raise ConfigError("", f"password providers that take bcrypt hashes: {known}; {asked}")
    return _Rule(peppers[name], settings.hashing.rounds)


def _settings(config: Path) -> SharedConfig:
    """The settings, of the standalone server or of the module in Synapse's configuration."""
    given = yaml_loader.parse(read_bytes(config))
    if not is_homeserver_config(given):
        return parse(given)
    for index, entry in enumerate(given.get("modules") or ()):
        if str(entry.get("module")).endswith(".SynapseLoginModule"):
            return config_path(f"modules.{index}.config", parse_module, entry.get("config") or {})
    raise ConfigError("modules", "synapse_login_module.SynapseLoginModule is not among them")


def _name_of(module: str) -> str:
    """The name that a provider has where the configuration gives it none."""
    try:
        return str(namedAny(module).name)
    except Exception as error:  # an import runs whatever stands in the module
        raise ConfigError("", f"cannot import {module}: {error}") from None


def _read_pepper(path: Path) -> str:
    with about(path):
        pepper = read_secret(path)
    if not pepper or "\n" in pepper:
        raise Failure(f"{path}: one line is wanted, with the pepper alone")
    return pepper


def _ask() -> str:
    """The password: typed twice, or the line that comes through a pipe."""
    if sys.stdin.isatty():
        try:
            password = getpass.getpass("Password: ")
            again = getpass.getpass("Again: ")
        except EOFError:
            click.echo(err=True)
            raise Failure("no password given: the input has ended") from None
        if again != password:
            raise Failure("the passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise Failure("no password given")
    if any("\ud800" <= letter <= "\udfff" for letter in password):
        raise Failure("the password is not text in this locale's encoding")
    return password
