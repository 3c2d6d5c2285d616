"""The result codes of Linux-PAM, and what they mean for a login and for an account."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum

from synapse_login_module.model import AccountStatus


class Code(IntEnum):
    """The result codes of Linux-PAM (``security/_pam_types.h``)."""

    SUCCESS = 0
    OPEN_ERR = 1
    SYMBOL_ERR = 2
    SERVICE_ERR = 3
    SYSTEM_ERR = 4
    BUF_ERR = 5
    PERM_DENIED = 6
    AUTH_ERR = 7
    CRED_INSUFFICIENT = 8
    AUTHINFO_UNAVAIL = 9
    USER_UNKNOWN = 10
    MAXTRIES = 11
    NEW_AUTHTOK_REQD = 12
    ACCT_EXPIRED = 13
    SESSION_ERR = 14
    CRED_UNAVAIL = 15
    CRED_EXPIRED = 16
    CRED_ERR = 17
    NO_MODULE_DATA = 18
    CONV_ERR = 19
    AUTHTOK_ERR = 20
    AUTHTOK_RECOVERY_ERR = 21
    AUTHTOK_LOCK_BUSY = 22
    AUTHTOK_DISABLE_AGING = 23
    TRY_AGAIN = 24
    IGNORE = 25
    ABORT = 26
    AUTHTOK_EXPIRED = 27
    MODULE_UNKNOWN = 28
    BAD_ITEM = 29
    CONV_AGAIN = 30
    INCOMPLETE = 31


def name_of(code: int) -> str:
    """Return the name of a code as PAM's manuals have it, such as ``PAM_AUTH_ERR``."""
    return f"PAM_{Code(code).name}" if code in list(Code) else f"result {code}"


class Password(Enum):
    """What ``pam_authenticate`` says about a password."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN_USER = "unknown user"
    UNANSWERED = "unanswered"
    """A module asked for more than a password."""
    UNDECIDED = "undecided"
    """PAM cannot tell: an outage, or a mistake in the service's file."""


_PASSWORDS: Mapping[int, Password] = {
    Code.SUCCESS: Password.ACCEPTED,
    Code.AUTH_ERR: Password.REFUSED,
    Code.MAXTRIES: Password.REFUSED,
    Code.PERM_DENIED: Password.REFUSED,
    # Whether the password was right is not known, since a module may say so before it has looked.
    Code.ACCT_EXPIRED: Password.REFUSED,
    Code.NEW_AUTHTOK_REQD: Password.REFUSED,
    Code.AUTHTOK_EXPIRED: Password.REFUSED,
    Code.CRED_EXPIRED: Password.REFUSED,
    Code.USER_UNKNOWN: Password.UNKNOWN_USER,
    Code.CONV_ERR: Password.UNANSWERED,
}

_STATUSES: Mapping[int, AccountStatus | None] = {
    Code.SUCCESS: AccountStatus.ACTIVE,
    Code.ACCT_EXPIRED: AccountStatus.DEACTIVATED,
    Code.USER_UNKNOWN: None,
    # All these pass: the password is changed, or the rule no longer holds.
    Code.AUTH_ERR: AccountStatus.LOCKED,
    Code.PERM_DENIED: AccountStatus.LOCKED,
    Code.MAXTRIES: AccountStatus.LOCKED,
    Code.NEW_AUTHTOK_REQD: AccountStatus.LOCKED,
    Code.AUTHTOK_EXPIRED: AccountStatus.LOCKED,
    Code.CRED_EXPIRED: AccountStatus.LOCKED,
}


def password_by(code: int) -> Password:
    """Return what a result of ``pam_authenticate`` means."""
    return _PASSWORDS.get(code, Password.UNDECIDED)


def status_by(code: int) -> AccountStatus | None:
    """Return the status that a result of ``pam_acct_mgmt`` means; ``None`` for an unknown user.

    :raise LookupError: when PAM cannot tell.
    """
    return _STATUSES[code]
