"""``show-keys``, ``rotate-key``, ``activate-key`` and ``retire-key``.

A key is added in two steps, so that every server has it before one signs with it. Otherwise a
server whose key file is not copied in time would get tokens that it cannot verify.
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
    examples=("show-keys -c config.yaml",),
    epilog="Prints one line for each key, with tabs between its parts: id, state and fingerprint."
    " The states are: signs (signs new tokens), good (verifies older tokens), new (not activated"
    " yet), missing (in use, but not in the key file of this machine), different (another key of"
    " this id is in use) and retired.",
)
@config_option()
def show(config: Path) -> None:
    """List the token keys of this machine and of the store."""
    with about(config):
        path = existing_key_file(load(config))
        ring = keyfile.load(path)
    found: list[TokenKey] = _on_keys(config, lambda keys: keys.token_keys(), [], read_only=True)
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
    examples=("rotate-key -c config.yaml",),
    epilog="The new key signs nothing until you run activate-key. Before that, copy the key file to"
    " every machine that shares the sessions. Running servers reload it by themselves.",
)
@config_option()
@click.option(
    "--now",
    is_flag=True,
    help="Sign with the new key at once, without activate-key: on a single machine, or when the"
    " old key has leaked.",
)
def rotate(config: Path, now: bool) -> None:
    """Add a new token key to the key file."""
    with about(config):
        path = existing_key_file(load(config))
        keyfile.load(path)
    known: list[TokenKey] = _on_keys(config, lambda keys: keys.token_keys(), [], read_only=True)
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
    examples=("activate-key -c config.yaml",),
    epilog="Run this when every machine that shares the sessions has the key: on each of them, in"
    " any order. No server needs a restart.",
)
@config_option()
def activate(config: Path) -> None:
    """Sign new tokens with the newest key from now on."""
    with about(config):
        path = existing_key_file(load(config))
        click.echo(f"key {keyfile.activate(path)} of {path} signs from now on")


@click.command(
    "retire-key",
    cls=Command,
    examples=("retire-key -c config.yaml 1",),
    epilog="The command removes the key's line from the key file. Within seconds, all machines"
    " reject the key's tokens. Clients that hold one log in again and keep their encryption keys."
    " Run the command on each machine, or copy the key file, so that the line is gone there too."
    " Retire a key that is lost as well: until then, servers answer 503 to its tokens.",
)
@config_option()
@argument("key", "the id of the key, as show-keys lists it", type=_KeyId(0, MAX_KEY_ID))
@yes_option
def retire(config: Path, key: int, yes: bool) -> None:
    """Revoke the tokens that were made with an old key."""
    with about(config):
        path = existing_key_file(load(config))
        if keyfile.load(path).newest == key:
            raise ConfigError(
                "", f"key {key} signs new tokens: activate another key before you retire it"
            )
    confirm(f"Retire key {key}? All machines will reject its tokens.", yes)

    async def work(keys: Any) -> tuple[bool, bool]:
        before = [each.key_id for each in await keys.token_keys() if each.retired]
        return await keys.retire_token_key(key), key in before

    retired, already = _on_keys(config, work, (False, False), read_only=False)
    with about(config):
        removed = keyfile.remove(path, key)
        if not (retired or removed):
            raise ConfigError("", f"there is no key {key}, neither in {path} nor in the store")
    if already:
        done = "was retired already" + (f", and is now removed from {path}" if removed else "")
    else:
        done = "is retired" + (f", and removed from {path}" if removed else "")
    click.echo(f"key {key} {done}")


def _on_keys(
    config: Path, ask: Callable[[Any], Awaitable[T]], otherwise: T, *, read_only: bool
) -> T:
    """Call the store's ``ITokenKeys``, and return the result.

    :param otherwise: returned for a store that provides no ``ITokenKeys`` or is in memory.
    :param read_only: whether it only asks; see :func:`.with_store`.
    """
    store = load(config).store[0]
    if getattr(store, "one_process", False) or not ITokenKeys.implementedBy(store):
        return otherwise

    async def work(opened: Opened) -> T:
        return await ask(opened.store)

    return with_store(config, work, read_only=read_only)


def _state(ring: KeyRing, key_id: int, known: TokenKey | None) -> str:
    """Return the state of a key in one word; see the epilog of ``show-keys``."""
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
