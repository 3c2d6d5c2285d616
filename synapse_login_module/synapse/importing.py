"""A Synapse to take accounts and sessions over from, as its configuration files describe it.

Synapse does not have to be installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from synapse_login_module.model import DevicelessTokens, HomeserverDevice, HomeserverUser
from synapse_login_module.synapse import import_rows
from synapse_login_module.synapse.homeserver_files import read_homeserver_files
from synapse_login_module.synapse.reading import open_database


class SynapseSource:
    """Reads the accounts and sessions of a Synapse. It writes nothing.

    :param paths: Synapse's configuration files, or folders of files.
    :raise ConfigError: for a mistake in the files.
    :raise StoreUnavailable: when the database cannot be read; every method may raise it too.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._files = read_homeserver_files(paths)
        self._rows = open_database(self._files)
        self.close = self._rows.close

    @property
    def server_name(self) -> str:
        """Its server name."""
        return self._files.server_name

    @property
    def pepper(self) -> str:
        """The pepper of its local passwords."""
        return self._files.pepper

    def users(self, page: int) -> Iterator[list[HomeserverUser]]:
        """Read all accounts but the one that sends server notices, in pages.

        :param page: how many to read at once.
        """
        notices = f"@{self._files.notices_user}:{self.server_name}"
        for found in import_rows.accounts(self._rows, page, self._files.default_user_type):
            yield [each for each in found if each.user_id != notices]

    def devices(self, page: int, now: int) -> Iterator[list[HomeserverDevice]]:
        """Read the tokens of all devices, in pages, in the order of users and devices.

        :param page: how many access tokens to read at once.
        :param now: milliseconds since the epoch.
        """
        return import_rows.sessions(self._rows, page, now, self._files.default_user_type)

    def number_of_users(self) -> int:
        """Count the accounts."""
        return import_rows.number_of_users(self._rows)

    def number_of_tokens(self) -> int:
        """Count the access tokens of devices."""
        return import_rows.number_of_tokens(self._rows)

    def without_device(self) -> list[DevicelessTokens]:
        """Count the access tokens that are of no device, by user."""
        return import_rows.without_device(self._rows)
