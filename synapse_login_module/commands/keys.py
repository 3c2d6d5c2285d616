"""``show-keys``, ``rotate-key``, ``activate-key`` and ``retire-key``.

A key is added in two steps, so that every server knows it before one signs with it: where the file
is copied late, or forgotten, nothing has been signed yet that is missing somewhere.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from synapse_login_module.commands.backends import Opened, existing_key_file, load, with_store
from synapse_login_module.commands.options import config_option, confirm, yes_option
from synapse_login_module.commands.program import Command, about, argument
from synapse_login_module.commands.report import row
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import ITokenKeys
from synapse_login_module.model import TokenKey
from synapse_login_module.tokens import keyfile
from synapse_login_module.tokens.format import MAX_KEY_ID, KeyRing

T = TypeVar("T")


class _KeyId(click.IntRange):
    name = "number that show-keys lists"


@click.command(
    "show-keys",
    cls=Command,
    epilog="One line a key: its id, what becomes of it here, and its fingerprint. It signs new"
    " tokens, is good for older ones, or new; or it is missing here, another than the one in use,"
    " or retired.",
)
@config_option()
def show(config: Path) -> None:
    """List the token keys of this machine and its store."""
    with about(config):
        path = existing_key_file(load(config))
        ring = keyfile.load(path)
    found: list[TokenKey] = _on_keys(config, lambda keys: keys.token_keys(), [])
    shared = {key.key_id: key for key in found}
    for key_id in sorted({*ring.fingerprints, *shared}):
        known = shared.get(key_id)
        mine = ring.fingerprints.get(key_id, "")
        click.echo(
            row(
                str(key_id),
                _state(ring, key_id, known),
                mine or (known.fingerprint if known else ""),
            )
        )


@click.command(
    "rotate-key",
    cls=Command,
    epilog="The key signs nothing until activate-key. Before that, copy the key file to every"
    " machine that shares the sessions; running servers take it up by themselves.",
)
@config_option()
@click.option("--now", is_flag=True, help="Have it sign at once: for a machine that is alone.")
def rotate(config: Path, now: bool) -> None:
    """Add a new key for tokens."""
    with about(config):
        path = existing_key_file(load(config))
        keyfile.load(path)
    known: list[TokenKey] = _on_keys(config, lambda keys: keys.token_keys(), [])
    with about(config):
        key_id = keyfile.rotate(path, os.urandom, [key.key_id for key in known], now)
    if now:
        click.echo(f"key {key_id} added to {path}; it signs from now on")
    else:
        click.echo(
            f"key {key_id} added to {path}; it signs nothing yet. Copy the file to every machine"
            " that shares the sessions, then run activate-key on each"
        )


@click.command(
    "activate-key",
    cls=Command,
    epilog="Do so once every machine that shares the sessions has the key, and then on each of"
    " them, in any order, without a restart.",
)
@config_option()
def activate(config: Path) -> None:
    """Have the newest key sign new tokens."""
    with about(config):
        path = existing_key_file(load(config))
        click.echo(f"key {keyfile.activate(path)} of {path} signs from now on")


@click.command(
    "retire-key",
    cls=Command,
    epilog="Its line goes from the key file, and its tokens are over on all machines within"
    " seconds; their clients log in again, and keep their encryption keys. Run it on each machine,"
    " or copy the key file, so that the line is gone there too. It also ends the waiting for a key"
    " that is lost.",
)
@config_option()
@argument("key", "the id of the key", type=_KeyId(0, MAX_KEY_ID))
@yes_option
def retire(config: Path, key: int, yes: bool) -> None:
    """End what was made under an old token key."""
    with about(config):
        path = existing_key_file(load(config))
        if keyfile.load(path).newest == key:
            raise ConfigError(
                "", f"key {key} signs new tokens: have another one sign before it is retired"
            )
    confirm(f"Retire key {key}? Its tokens are over on all machines then.", yes)
    retired = _on_keys(config, lambda keys: keys.retire_token_key(key), False)
    with about(config):
        removed = keyfile.remove(path, key)
        if not (retired or removed):
            raise ConfigError("", f"there is no key {key}, in {path} or among those in use")
    click.echo(f"key {key} is retired" + (f", and gone from {path}" if removed else ""))


def _on_keys(config: Path, ask: Callable[[Any], Awaitable[T]], otherwise: T) -> T:
    """Ask the store about its keys; where it knows none, or is in memory, say otherwise."""
    store = load(config).store[0]
    if getattr(store, "one_process", False) or not ITokenKeys.implementedBy(store):
        return otherwise

    async def work(opened: Opened) -> T:
        return await ask(opened.store)

    return with_store(config, work)


def _state(ring: KeyRing, key_id: int, known: TokenKey | None) -> str:
    """What becomes of a key, in one word."""
    mine = ring.fingerprints.get(key_id)
    if known is not None and known.retired:
        return "retired"
    if mine is None:
        return "missing"
    if known is not None and known.fingerprint != mine:
        return "different"
    if key_id == ring.newest:
        return "signs"
    return "good" if key_id in ring.in_use else "new"
