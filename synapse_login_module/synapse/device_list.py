"""The sessions and devices in Synapse's database, page by page, for commands.

Synapse does not have to be installed, and may be running. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from synapse_login_module.accounts.names import address_in, meant, user_id_of
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import SeenSession, SessionInfo
from synapse_login_module.synapse.homeserver_files import read_homeserver_files
from synapse_login_module.synapse.reading import open_database

_SLICE = 200
"""How many devices one query looks up: two values each, of which SQLite takes a limited number."""

# A session that has ended may keep its access token, expired, so that its client is told to log in
# again.
_SESSIONS = (
    "SELECT a.user_id, a.device_id, MAX(d.display_name), MAX(a.last_validated), MAX(d.last_seen),"
    " MAX(d.ip) FROM access_tokens AS a"
    " LEFT JOIN devices AS d ON d.user_id = a.user_id AND d.device_id = a.device_id"
    " WHERE a.device_id IS NOT NULL AND (a.user_id, a.device_id) > (?, ?) AND"
    " (a.valid_until_ms IS NULL OR a.valid_until_ms >= ? OR a.refresh_token_id IS NOT NULL)"
    "{whose} GROUP BY a.user_id, a.device_id ORDER BY a.user_id, a.device_id LIMIT ?"
)
_SEEN = (
    "WITH wanted (user_id, device_id) AS (VALUES {wanted})"
    " SELECT d.user_id, d.device_id, d.last_seen, d.ip FROM wanted"
    " JOIN devices AS d ON d.user_id = wanted.user_id AND d.device_id = wanted.device_id"
)


class SynapseDevices:
    """Reads who is logged in at a Synapse, and when and from where devices were last used.

    Synapse writes the last use of a device into its table ``devices`` within seconds, also while it
    delegates authentication.

    :param paths: Synapse's configuration files, or folders of files.
    :raise ConfigError: for a mistake in the files.
    :raise StoreUnavailable: when the database cannot be read; every method may raise it too.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        files = read_homeserver_files(paths)
        self.server_name = files.server_name
        self._rows = open_database(files)
        self.close = self._rows.close

    def find_users(self, given: str) -> list[str]:
        """Find the users that an operator means by a user ID, a local part or an e-mail address.

        :raise ConfigError: when there is none.
        """
        address = address_in(given)
        if address is not None:
            found = self._rows.fetch(
                "SELECT user_id FROM user_threepids WHERE medium = ? AND address = ?",
                "email",
                address,
            )
            if not found:
                raise ConfigError("", f"{address}: no account of Synapse has that address")
            return [user_id for (user_id,) in found]
        typed = user_id_of(given, self.server_name)
        known = self._rows.fetch("SELECT name FROM users WHERE lower(name) = lower(?)", typed)
        return meant(given, typed, [name for (name,) in known])

    def pages(self, user_id: str | None, page: int) -> Iterator[list[SeenSession]]:
        """List the devices that are logged in, in the order of users and devices.

        Synapse does not keep when a session began.

        :param user_id: the user; ``None`` for all users.
        :param page: the most devices of a page.
        """
        whose: tuple[str, ...] = () if user_id is None else (user_id,)
        sql = _SESSIONS.format(whose=" AND a.user_id = ?" if whose else "")
        after = ("", "")
        while True:
            now = int(time.time() * 1000)
            found = self._rows.fetch(sql, *after, now, *whose, page)
            if found:
                yield [_session(*each) for each in found]
                after = found[-1][:2]
            if len(found) < page:
                return

    def seen(self, sessions: Sequence[SessionInfo]) -> list[SeenSession]:
        """Add to sessions when and from where their devices were last used."""
        known: dict[tuple[str, str], tuple[int | None, str | None]] = {}
        for start in range(0, len(sessions), _SLICE):
            wanted = [(each.user_id, each.device_id) for each in sessions[start : start + _SLICE]]
            marks = ", ".join(["(?, ?)"] * len(wanted))
            values = (value for device in wanted for value in device)
            for *device, last_seen, ip in self._rows.fetch(_SEEN.format(wanted=marks), *values):
                known[device[0], device[1]] = last_seen, ip
        return [
            SeenSession(each, *known.get((each.user_id, each.device_id), (None, None)))
            for each in sessions
        ]


def _session(
    user_id: str,
    device_id: str,
    display_name: str | None,
    issued_at: int | None,
    last_seen: int | None,
    ip: str | None,
) -> SeenSession:
    session = SessionInfo(
        f"{user_id} {device_id}", user_id, device_id, display_name, issued_at=issued_at
    )
    return SeenSession(session, last_seen, ip)
