"""``sessions list``: prints sessions page by page, so that any number fits in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click
from twisted.python.reflect import namedAny

from synapse_login_module.accounts.listing import session_pages
from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.options import config_option, homeserver_option
from synapse_login_module.commands.program import Command, about, argument
from synapse_login_module.commands.progress import progress, shows_progress
from synapse_login_module.commands.report import (
    Table,
    for_people,
    json_option,
    print_json,
    print_lines,
    row,
)
from synapse_login_module.commands.users import find_users, nothing_found
from synapse_login_module.common.console import moment, printable
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IHousekeeping
from synapse_login_module.model import SeenSession, SessionInfo

PAGE = 1000


class DeviceSource(Protocol):
    """What Synapse's database knows of devices."""

    server_name: str

    def find_users(self, given: str) -> list[str]:
        """Find the users that an operator means."""

    def pages(self, user_id: str | None, page: int) -> Iterator[list[SeenSession]]:
        """List the devices that are logged in at Synapse, of a user or of all users."""

    def seen(self, sessions: Sequence[SessionInfo]) -> list[SeenSession]:
        """Add to sessions when and from where their devices were last used."""

    def close(self) -> None:
        """Close the database."""


@click.command(
    "list",
    cls=Command,
    epilog="Prints a table to a terminal. Otherwise it prints one line for each session, with tabs"
    " between its parts: user ID, device ID, since=TIME, refreshed=TIME (or -), display name; with"
    " --homeserver-config also seen=TIME and address=ADDRESS. The keys of --json are user_id,"
    " device_id, display_name (or null), created_ts, refreshed_ts and last_seen_ts (milliseconds"
    " since the epoch, or null) and last_seen_ip (or null). Only Synapse knows when and from where"
    " a device was last used. With both options, the sessions are the standalone server's, and"
    " Synapse's database is asked for that.",
    examples=(
        "sessions list -c config.yaml alice",
        "sessions list -c config.yaml --homeserver-config homeserver.yaml --limit 20",
        "sessions list --homeserver-config homeserver.yaml --json > sessions.json",
    ),
)
@config_option(required=False)
@homeserver_option(required=False)
@argument(
    "user",
    "list only this user's sessions: a user ID, its local part, or an e-mail address",
    required=False,
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="List N sessions at most. The default is all.",
)
@json_option
def list_sessions(
    config: Path | None,
    homeserver_config: tuple[str, ...],
    user: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List sessions.

    Those of the standalone server are listed oldest first, those of Synapse by user and device.
    """
    if config is None and not homeserver_config:
        raise click.UsageError("Give --config, --homeserver-config, or both.")
    printer = _Printer(as_json, limit, bool(homeserver_config))
    with _devices(homeserver_config) as devices:
        if config is not None:
            with_store(
                config,
                lambda opened: _list_store(opened, user, printer, devices),
                read_only=True,
            )
        elif devices is not None:
            with about(*homeserver_config):
                _list_devices(devices, user, printer)


class _Printer:
    """Prints pages of sessions.

    :param as_json: whether to print JSON.
    :param limit: the most sessions to print; ``None`` for all.
    :param with_seen: whether it is known when and from where devices were last used.
    """

    def __init__(self, as_json: bool, limit: int | None, with_seen: bool) -> None:
        self._as_json = as_json
        self._limit = limit
        self._with_seen = with_seen
        last = ("SEEN", "ADDRESS") if with_seen else ()
        headings = ("USER", "DEVICE", "SINCE", "REFRESHED", *last, "NAME")
        self._table = Table(headings) if for_people() and not as_json else None
        self.printed = 0

    @property
    def is_full(self) -> bool:
        """Return whether the limit is reached."""
        return self._limit is not None and self.printed >= self._limit

    def most(self, total: int) -> int:
        """Return how many of a number of sessions are printed."""
        return total if self._limit is None else min(total, self._limit)

    def print(self, page: Sequence[SeenSession]) -> None:
        """Print the sessions of a page, up to the limit."""
        page = page[: self.most(self.printed + len(page)) - self.printed]
        self.printed += len(page)
        if self._as_json:
            print_json([_as_json(each) for each in page])
        elif self._table is not None:
            self._table.print([self._columns(each) for each in page])
        else:
            print_lines([self._line(each) for each in page])

    def end(self) -> None:
        """Print the headings if there was no session."""
        if self._table is not None and not self.printed:
            self._table.print([])

    def _columns(self, seen: SeenSession) -> Sequence[str]:
        session = seen.session
        times = (moment(session.created_at), moment(session.issued_at))
        last = (moment(seen.last_seen_at), seen.last_seen_ip or "-") if self._with_seen else ()
        return (session.user_id, session.device_id, *times, *last, session.display_name or "")

    def _line(self, seen: SeenSession) -> str:
        session = seen.session
        times = (f"since={moment(session.created_at)}", f"refreshed={moment(session.issued_at)}")
        last: tuple[str, ...] = ()
        if self._with_seen:
            last = (f"seen={moment(seen.last_seen_at)}", f"address={seen.last_seen_ip or '-'}")
        return row(session.user_id, session.device_id, *times, session.display_name or "", *last)


async def _list_store(
    opened: Opened, user: str | None, printer: _Printer, devices: DeviceSource | None
) -> None:
    """Print the sessions of a token store."""
    if devices is not None and devices.server_name != opened.server_name:
        raise ConfigError(
            "server_name",
            f"it is {opened.server_name}, and {devices.server_name} in Synapse's configuration",
        )
    store = opened.store
    users: list[str | None] = [None]
    total = 0
    if user is not None:
        users = [*await find_users(opened, user)]
    elif shows_progress(prints=True) and IHousekeeping.providedBy(store):
        total = printer.most((await IHousekeeping(store).count_sessions()).living)
    with progress("listing sessions", total, prints=True) as update:
        for user_id in users:
            async for page in session_pages(store, user_id, PAGE):
                printer.print(
                    [SeenSession(each) for each in page] if devices is None else devices.seen(page)
                )
                update(len(page))
                if printer.is_full:
                    return
    if user is not None and not printer.printed:
        raise nothing_found(user, [each for each in users if each is not None])
    printer.end()


def _list_devices(devices: DeviceSource, user: str | None, printer: _Printer) -> None:
    """Print the sessions of Synapse."""
    users: list[str | None] = [None]
    if user is not None:
        users = [*devices.find_users(user)]
    for user_id in users:
        for page in devices.pages(user_id, PAGE):
            printer.print(page)
            if printer.is_full:
                return
    if user is not None and not printer.printed:
        raise ConfigError("", f"{printable(user)}: no user of that name is logged in")
    printer.end()


def _as_json(seen: SeenSession) -> dict[str, object]:
    session = seen.session
    return {
        "user_id": session.user_id,
        "device_id": session.device_id,
        "display_name": session.display_name,
        "created_ts": session.created_at,
        "refreshed_ts": session.issued_at,
        "last_seen_ts": seen.last_seen_at,
        "last_seen_ip": seen.last_seen_ip,
    }


@contextmanager
def _devices(files: Sequence[str]) -> Iterator[DeviceSource | None]:
    if not files:
        yield None
        return
    with about(*files):
        # By name, because only synapse/ knows Synapse's tables.
        source: DeviceSource = namedAny("synapse_login_module.synapse.device_list.SynapseDevices")(
            files
        )
    try:
        yield source
    finally:
        source.close()
