"""A third party's password provider, which does what a file tells it to; runs inside the server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier

SECRET_DETAIL = "detail-that-no-client-may-see"


@implementer(IPasswordProvider)
class MoodyProvider:
    """A provider that accepts no password. Its mood decides how it answers: ``absent``,
    ``unreachable``, ``rejecting`` or ``broken``.
    """

    name = "moody"

    def __init__(self, mood_file: Path, environment: object) -> None:
        self._mood_file = mood_file

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        """Return the path of the file that holds the mood."""
        return folder / str(config["mood_file"])

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Return no account, or fail, according to the mood."""
        mood = self._mood_file.read_text().strip()
        if mood == "unreachable":
            return fail(ProviderUnavailable(SECRET_DETAIL))
        if mood == "rejecting":
            return fail(InvalidCredentials(SECRET_DETAIL))
        if mood == "broken":
            raise RuntimeError(SECRET_DETAIL)
        return succeed(None)

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Return no status, or fail."""
        if self._mood_file.read_text().strip() == "unreachable":
            return fail(ProviderUnavailable(SECRET_DETAIL))
        return succeed(None)
