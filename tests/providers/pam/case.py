"""What the tests of PAM share: a library that does what a test says, and users of the system."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from synapse_login_module.plugin import Environment
from synapse_login_module.providers.pam.codes import Code
from synapse_login_module.providers.pam.libpam import Checked, LibPAM
from synapse_login_module.providers.pam.nss import UnixUser
from synapse_login_module.providers.pam.provider import PAMProvider
from synapse_login_module.providers.pam.users import UnixUsers
from tests.providers.case import PASSWORD, ProviderCase
from tests.support.pam import SERVICE, PAMService

ALICE_USER = UnixUser("alice", 1001, 1001, "Alice Liddell")
USERS = (
    UnixUser("root", 0, 0),
    UnixUser("daemon", 1, 1),
    UnixUser("nobody", 65534, 65534),
    ALICE_USER,
)


def users_of(*users: UnixUser, min_uid: int = 1000, groups: tuple[str, ...] = ()) -> UnixUsers:
    """The name service that knows these users."""
    names = {user.name: user for user in users}
    numbers = {user.uid: user for user in users}
    return UnixUsers(min_uid, groups, names.get, numbers.get)


class ScriptedPAM:
    """A library that does what the test says.

    :ivar passwords: the right passwords, by name.
    :ivar code: in the place of what it would say about a password.
    :ivar account_code: what it says about an account.
    :ivar renames: the names that modules change.
    :ivar work: done at each call.
    """

    folder: str | None = None

    def __init__(self) -> None:
        self.passwords: dict[str, str] = {"alice": PASSWORD}
        self.code: int | None = None
        self.account_code: int = Code.SUCCESS
        self.renames: Mapping[str, str] = {}
        self.work: Callable[[], object] = lambda: None
        self.asked: list[tuple[bytes, bytes]] = []
        self.looked_at: list[bytes] = []

    def authenticate(self, user: bytes, password: bytes) -> Checked:
        """Check."""
        self.asked.append((user, password))
        self.work()
        name = user.decode()
        known = self.passwords.get(name)
        code: int = Code.USER_UNKNOWN if known is None else Code.AUTH_ERR
        if known is not None and known.encode() == password:
            code = Code.SUCCESS
        code = code if self.code is None else self.code
        if code != Code.SUCCESS:
            return Checked(code)
        return Checked(code, self.account_code, self.renames.get(name, name).encode())

    def account(self, user: bytes) -> int:
        """Look."""
        self.looked_at.append(user)
        self.work()
        return self.account_code if user.decode() in self.passwords else Code.USER_UNKNOWN


class PAMCase(ProviderCase):
    """Builds PAM providers."""

    def scripted(
        self,
        pam: Any = None,
        users: UnixUsers | None = None,
        environment: Environment | None = None,
        **keys: Any,
    ) -> PAMProvider:
        """A provider on a scripted library and these users."""
        pam = pam or ScriptedPAM()
        named: UnixUsers = users or users_of(*USERS)

        class Scripted(PAMProvider):
            """Its library and its name service are the test's."""

            @staticmethod
            def parse_config(config: Any, folder: Any) -> Any:
                """Replace them."""
                parsed = PAMProvider.parse_config(config, folder)
                keys = parsed.keys
                known = replace(named, min_uid=keys.min_uid, groups=keys.groups)
                return replace(parsed, pam=pam, users=known if keys.nss else None)

        config = {"failure_time": 1, **keys}
        provider: PAMProvider = self.build(Scripted, config, environment)
        return provider

    def service(self) -> PAMService:
        """A service of the test's own, with the module that knows alice."""
        if not hasattr(self, "_service"):
            self._service = PAMService(self.folder())
        return self._service

    def matrix(self, **keys: Any) -> PAMProvider:
        """A provider on the real library, and the service of the test's own."""
        library = LibPAM(SERVICE, str(self.service().services))
        return self.scripted(library, **keys)


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began
