"""``hash-password``."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import NamedTuple, get_args

import click
from twisted.python.reflect import namedAny

from synapse_login_module.commands.options import FILE, config_option
from synapse_login_module.commands.program import Command, Failure, about
from synapse_login_module.config import yaml_loader
from synapse_login_module.config.files import read_bytes, read_secret
from synapse_login_module.config.homeserver_yaml import MODULE, own_entries
from synapse_login_module.config.settings import (
    HashFormat,
    Hashing,
    SharedConfig,
    parse,
    parse_module,
)
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError
from synapse_login_module.hashes.bcrypt import MOST_COST
from synapse_login_module.passwords import make_hash
from synapse_login_module.standalone.plan import is_homeserver_config

_HASHES = (".BcryptProvider", ".PasswdProvider", ".SQLProvider")
"""Class names of providers that check hashes, with or without a pepper."""


class _Rule(NamedTuple):
    """What a provider adds to passwords, whether it applies NFKC, and how hashes are made."""

    pepper: str
    normalize: bool | None
    hashing: Hashing


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
    "--format",
    "format_",
    type=click.Choice(get_args(HashFormat)),
    metavar="FORMAT",
    help="The format of the hash, bcrypt or argon2id. The default is hashing.format of the"
    " configuration, or bcrypt without --config.",
)
@click.option(
    "--rounds",
    type=click.IntRange(4, MOST_COST),
    metavar="N",
    help="The cost of bcrypt. The default is hashing.rounds of the configuration, or"
    f" {Hashing().rounds} without --config.",
)
@click.option(
    "--pepper-file",
    metavar="FILE",
    type=FILE,
    help="A file with one line: the pepper of the provider's configuration.",
)
@config_option(
    required=False,
    help_text="Take the pepper and the hashing block from this configuration file: the standalone"
    " server's, or Synapse's.",
)
@click.option(
    "--provider",
    metavar="NAME",
    help="The password provider that the hash is for, if providers have different peppers.",
)
@click.option("--pepper", hidden=True, expose_value=False, callback=_refuse_pepper)
def command(
    format_: str | None,
    rounds: int | None,
    pepper_file: Path | None,
    config: Path | None,
    provider: str | None,
) -> None:
    """Make a hash for users.yaml."""
    if pepper_file is not None and config is not None:
        raise click.UsageError("Give one of --pepper-file and --config.")
    if provider is not None and config is None:
        raise click.UsageError("--provider needs --config.")
    if rounds is not None and format_ == "argon2id":
        raise click.UsageError("--rounds is for bcrypt.")
    rule = _Rule("", None, Hashing())
    if config is not None:
        rule = _rule_of(config, provider)
    elif pepper_file is not None:
        rule = rule._replace(pepper=_read_pepper(pepper_file))
    asked = {"format": format_ or ("bcrypt" if rounds else None), "rounds": rounds}
    update = {key: value for key, value in asked.items() if value is not None}
    try:
        new = rule.hashing.model_copy(update=update).new_hashes()
    except ValueError as error:
        raise Failure(str(error)) from None
    configured = rule.hashing.new_hashes().kind
    if config is not None and new.kind.is_weaker_than(configured):
        click.echo(f"{config}: hashing says {configured}: this hash is weaker", err=True)
    click.echo(make_hash(_ask(), rule.pepper, new, rule.normalize))


def _rule_of(config: Path, name: str | None) -> _Rule:
    """Return how the passwords of a provider are hashed.

    The providers' own configuration is not checked, because their files may not exist yet.

    :param name: the provider's name; ``None`` if all providers have the same rule.
    """
    with about(config):
        settings = _settings(config)
        rules: dict[str, _Rule] = {}
        for index, plugin in enumerate(settings.password_providers):
            if "pepper" in plugin.config or plugin.module.endswith(_HASHES):
                path = f"password_providers.{index}.config"
                pepper = plugin.config.get("pepper", "")
                if not isinstance(pepper, str):
                    raise ConfigError(f"{path}.pepper", "must be text")
                normalize = plugin.config.get("normalize")
                if normalize not in (None, True, False):
                    raise ConfigError(f"{path}.normalize", "must be true or false")
                rule = _Rule(pepper, normalize, settings.hashing)
                rules[plugin.name or _name_of(plugin.module)] = rule
        if name is None and len({rule[:2] for rule in rules.values()}) == 1:
            name = next(iter(rules))
        if name not in rules:
            asked = "give --provider" if name is None else f"{name} is not among them"
            known = ", ".join(rules) or "none"
            raise ConfigError("", f"password providers that take hashes: {known}; {asked}")
    return rules[name]


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
