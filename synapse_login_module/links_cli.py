"""The commands ``links …``: their options, what they print, and what they do to links.

Where the links are, and how sessions end there, is for the caller to say.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from synapse_login_module.console import printable
from synapse_login_module.errors import ConfigError, LinkTaken
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, Link

Run = Callable[["LinkCommand", argparse.Namespace], None]
"""Runs a command on the links that its options lead to."""


class RefusedLink(NamedTuple):
    """An account that a login of the same name would not be linked to.

    :param provider: who knows the name; with ``?`` behind it where that cannot be told without a
        password.
    :param problem: why it would not be linked.
    :param setting: what would change that.
    """

    user_id: str
    provider: str
    problem: str
    setting: str


@dataclass(frozen=True)
class LinkPlace:
    """Where links are.

    :param providers: the names of each configured provider, by its name today: that, and those it
        had before.
    :param revoke_all: ends all sessions of a user ID, and says what came of it, for printing.
    :param would_refuse: finds the accounts of the homeserver that a login would not be linked to;
        ``None`` where there is no homeserver.
    """

    links: ILinks
    providers: Mapping[str, tuple[str, ...]]
    revoke_all: Callable[[str], Awaitable[str]]
    would_refuse: Callable[[], Awaitable[list[RefusedLink]]] | None = None

    def claim(self, provider: str, subject: str) -> Claim:
        """What a configured provider's account is linked by.

        :raise ConfigError: when no such provider is configured.
        """
        if provider not in self.providers:
            known = ", ".join(self.providers)
            raise ConfigError("", f"no password provider is called {provider}; there is {known}")
        return Claim(self.providers[provider], subject)


LinkCommand = Callable[[LinkPlace, str | None, argparse.Namespace], Awaitable[None]]
"""A command, with the full ID of the user that its options name, if they name one."""


def add_commands(
    commands: Any, options: Callable[[argparse.ArgumentParser], None], run: Run
) -> None:
    """Add ``links`` and the commands below it.

    :param commands: the subparsers of the program.
    :param options: adds the options that say which configuration.
    :param run: runs one of the commands.
    """
    summary = "Show and change which account of a provider logs in as which user."
    links = commands.add_parser("links", help=summary, description=summary).add_subparsers(
        title="commands", metavar="COMMAND", required=True, help="each has a --help of its own"
    )

    def add(name: str, work: LinkCommand, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = links.add_parser(name, help=text, description=text)
        command.set_defaults(run=lambda given: run(work, given))
        options(command)
        return command

    command = add("list", _list, "List links: the user ID, the provider and the subject.")
    command.add_argument("user", metavar="USER", nargs="?", help="only this user's")
    command.add_argument(
        "--would-refuse",
        action="store_true",
        help="list the accounts of Synapse's whose name a provider knows, and to which a login"
        " would not be linked: why, and which setting would change that; a ? behind the provider"
        " says that it cannot tell whether it knows the name",
    )
    command.epilog = "One line a link, with tabs between its parts."
    command = add("link", _link, "Link a user and an account that are both free.")
    _add_user(command)
    _add_account(command)
    command = add("relink", _relink, "Give a linked user to another account.")
    _add_user(command)
    _add_account(command)
    command.epilog = (
        "All sessions of the user end. If another user is linked to that account, that user is not"
        " any more, and those sessions end too, with its local password inside Synapse."
    )
    command = add("unlink", _unlink, "Drop a user's link; all sessions end.")
    _add_user(command)
    command.add_argument(
        "--keep-password",
        action="store_true",
        help="inside Synapse: leave the account its local password, which counts again from then"
        " on; without this it is removed, since it may have been set while the account was linked",
    )
    command.epilog = "The next login of that name is linked as a first one is."


def _add_user(command: argparse.ArgumentParser) -> None:
    command.add_argument("user", metavar="USER", help="a user ID, or its local part")


def _add_account(command: argparse.ArgumentParser) -> None:
    command.add_argument("provider", metavar="PROVIDER", help="a provider's name")
    command.add_argument(
        "subject", metavar="SUBJECT", help="what the provider knows the account by, exactly"
    )


async def _list(place: LinkPlace, user_id: str | None, options: argparse.Namespace) -> None:
    if options.would_refuse:
        if place.would_refuse is None:
            raise ConfigError("", "without a homeserver there are no accounts before their login")
        for refused in await place.would_refuse():
            if user_id in (None, refused.user_id):
                _print(refused)
        return
    if user_id is None:
        for link in await place.links.links():
            _print(link)
        return
    _print(await _require_link(place, user_id))


async def _link(place: LinkPlace, user_id: str | None, options: argparse.Namespace) -> None:
    assert user_id is not None
    claim = place.claim(options.provider, options.subject)
    link = Link(user_id, claim.provider, claim.subject)
    owner = await place.links.linked_user(claim)
    if owner is not None:
        raise ConfigError("", f"that account is linked to {printable(owner)} already")
    try:
        await place.links.link(link, False)
    except LinkTaken:
        raise ConfigError(
            "", f"{user_id} is linked to another account already: see links relink"
        ) from None
    _print(link)


async def _relink(place: LinkPlace, user_id: str | None, options: argparse.Namespace) -> None:
    """Sessions end after the link has changed: none begins any more for the account before."""
    assert user_id is not None
    claim = place.claim(options.provider, options.subject)
    await _require_link(place, user_id)
    link = Link(user_id, claim.provider, claim.subject)
    owner = await place.links.linked_user(claim)
    await place.links.link(link, True)
    _print(link)
    print(await place.revoke_all(user_id))
    if owner is not None and owner != user_id:
        # Its link is of this account too, perhaps under a former name of the provider.
        await place.links.unlink(owner)
        print(f"{printable(owner)} is not linked any more")
        print(await place.revoke_all(owner))


async def _unlink(place: LinkPlace, user_id: str | None, options: argparse.Namespace) -> None:
    assert user_id is not None
    if options.keep_password and place.would_refuse is None:
        raise ConfigError("", "without a homeserver there are no local passwords to be kept")
    await _require_link(place, user_id)
    await place.links.unlink(user_id)
    print(await place.revoke_all(user_id))


async def _require_link(place: LinkPlace, user_id: str) -> Link:
    link = await place.links.link_of(user_id)
    if link is None:
        raise ConfigError("", f"{user_id} is not linked")
    return link


def _print(row: Link | RefusedLink) -> None:
    print(*map(printable, row), sep="\t")
