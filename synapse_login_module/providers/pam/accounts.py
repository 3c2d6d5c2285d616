"""Unix accounts: whose they are, whether a password is right, and their status. All calls block."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from synapse_login_module.errors import ProviderUnavailable, UnusableAccount
from synapse_login_module.model import AccountStatus, fold
from synapse_login_module.providers.pam.codes import (
    Code,
    Password,
    name_of,
    password_by,
    status_by,
)
from synapse_login_module.providers.pam.libpam import Checked
from synapse_login_module.providers.pam.nss import UnixUser, has_locked_password
from synapse_login_module.providers.pam.users import UnixUsers

_PLAIN = re.compile(r"[a-z0-9_][a-z0-9._=+-]*")
"""The names that PAM is asked about where the name service is not. Some modules use the name as one
of a file, or as an argument of a program."""

_MAX_PASSWORD = 511
"""The longest password, in bytes, that a conversation of PAM can hold (``PAM_MAX_RESP_SIZE``)."""


class PAMLibrary(Protocol):
    """The calls of :class:`~synapse_login_module.providers.pam.libpam.LibPAM`."""

    def authenticate(self, user: bytes, password: bytes) -> Checked:
        """Check a password, and if it is right the account."""

    def account(self, user: bytes) -> int:
        """Look at an account without a password."""


class Answer(NamedTuple):
    """The answer to a login.

    :param verdict: accepted, refused or unknown user.
    :param code: the result of ``pam_authenticate``.
    :param name: the name of the account; empty if there is none.
    :param user: the user of the system; ``None`` where the name service is not asked.
    :param status: the status of an account whose password is right; ``None`` if it is gone.
    """

    verdict: Password
    code: int
    name: str = ""
    user: UnixUser | None = None
    status: AccountStatus | None = None


_UNKNOWN = Answer(Password.UNKNOWN_USER, Code.USER_UNKNOWN)


class UnixAccounts:
    """Asks PAM, and the name service if there are users of it.

    :param pam: the calls of PAM.
    :param users: the users that may be accounts; ``None`` where the name service is not asked.
    :param checks_accounts: whether PAM is asked about accounts without a password.
    """

    def __init__(self, pam: PAMLibrary, users: UnixUsers | None, checks_accounts: bool) -> None:
        self._pam = pam
        self._users = users
        self.checks_accounts = checks_accounts

    def log_in(self, typed: str, password: str) -> Answer:
        """Check a password of the user whose name was typed.

        :raise ProviderUnavailable: when the name service or PAM cannot tell.
        """
        user = self.find(typed)
        # Without the name service in lower case, as the user ID has it. Two users whose names
        # differ in case alone would otherwise be one account.
        name = fold(typed) if self._users is None else "" if user is None else user.name
        if not name or (user is None and not _PLAIN.fullmatch(name)):
            return _UNKNOWN
        given = password.encode("utf-8", "surrogatepass")
        if not given or b"\0" in given or len(given) > _MAX_PASSWORD:
            return Answer(Password.REFUSED, Code.AUTH_ERR, name, user)
        checked = self._pam.authenticate(_encoded(name), given)
        verdict = password_by(checked.code)
        if verdict is Password.UNANSWERED:
            raise UnusableAccount("a module asks for more than a password (PAM_CONV_ERR)")
        if verdict is Password.UNDECIDED:
            raise ProviderUnavailable(f"pam_authenticate answered {name_of(checked.code)}")
        if verdict is Password.UNKNOWN_USER:
            self._require_name_service(user)
        if verdict is not Password.ACCEPTED:
            return Answer(verdict, checked.code, name, user)
        if checked.user != _encoded(name):  # a module has made another user of the name
            name = checked.user.decode("utf-8", "surrogateescape")
            user = None if self._users is None else self._users.named(name)
            if self._users is not None and user is None:
                return _UNKNOWN
        status = self._judge(checked.account, user)
        return Answer(verdict, checked.code, name if user is None else user.name, user, status)

    def find(self, typed: str) -> UnixUser | None:
        """Find the user of a name, by the name service alone."""
        return None if self._users is None else self._users.typed(typed)

    def status(self, subject: str, name: str | None) -> AccountStatus | None:
        """Look at an account.

        :param subject: its subject, unless that is a full user ID.
        :param name: its name, where the subject is a name.
        :raise ProviderUnavailable: when the name service or PAM cannot tell.
        """
        if self._users is not None:
            user = self._users.of_subject(subject if name is None else name)
            return None if user is None else self.status_of_user(user)
        if name is None or not _PLAIN.fullmatch(fold(name)):
            return None
        return self._judge(self._pam.account(_encoded(name)))

    def status_of_user(self, user: UnixUser) -> AccountStatus | None:
        """Look at the account of a user of the system."""
        code = self._pam.account(_encoded(user.name)) if self.checks_accounts else Code.SUCCESS
        if code == Code.USER_UNKNOWN:
            self._require_name_service(user)
        return self._judge(code, user)

    def _require_name_service(self, user: UnixUser | None) -> None:
        """Ask the name service again about a user whom PAM does not know: it may be down by now,
        and modules such as ``pam_unix`` do not tell that from an unknown user.

        :raise ProviderUnavailable: when it is down.
        """
        if self._users is not None and user is not None:
            self._users.named(user.name)

    @staticmethod
    def _judge(code: int, user: UnixUser | None = None) -> AccountStatus | None:
        """Return the status that account management and the password's lock make together.

        :param code: the result of ``pam_acct_mgmt``.
        """
        try:
            status = status_by(code)
        except LookupError:
            raise ProviderUnavailable(f"pam_acct_mgmt answered {name_of(code)}") from None
        if status is AccountStatus.ACTIVE and user is not None and has_locked_password(user):
            return AccountStatus.LOCKED
        return status


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
