"""What the answer to a user's bind says about the password and the account."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.ldap.messages import Result
from synapse_login_module.providers.ldap.policies import PolicyError
from synapse_login_module.providers.ldap.result_codes import INVALID_CREDENTIALS, SUCCESS


class BindAnswer(NamedTuple):
    """What a directory has decided.

    :param status: the status of the account, which proves that the password is right; ``None``
        when the password is wrong, or was not looked at.
    :param was_checked: whether the password was looked at, which takes time.
    :param why: the reason, for the log; empty when there is none to tell.
    """

    status: AccountStatus | None
    was_checked: bool = True
    why: str = ""


_WRONG = BindAnswer(None)

_OF_POLICIES: Mapping[PolicyError, BindAnswer] = {
    PolicyError.EXPIRED: BindAnswer(
        AccountStatus.PASSWORD_EXPIRED, why="the password is right, and has expired"
    ),
    PolicyError.MUST_CHANGE: BindAnswer(
        AccountStatus.PASSWORD_EXPIRED, why="the password is right, and must be changed first"
    ),
    PolicyError.LOCKED: BindAnswer(None, was_checked=False, why="the account is locked"),
}

_DATA = re.compile(r"AcceptSecurityContext error, data ([0-9a-f]+)\b")

_OF_ACTIVE_DIRECTORY: Mapping[str, BindAnswer] = {
    "525": BindAnswer(None, was_checked=False),
    "52e": _WRONG,
    "530": BindAnswer(
        AccountStatus.NOT_PERMITTED, why="the password is right, and the time is not permitted"
    ),
    "531": BindAnswer(
        AccountStatus.NOT_PERMITTED,
        why="the password is right, and this computer is not permitted (userWorkstations)",
    ),
    "532": _OF_POLICIES[PolicyError.EXPIRED],
    "533": BindAnswer(
        AccountStatus.DEACTIVATED, why="the password is right, and the account is disabled"
    ),
    "701": BindAnswer(
        AccountStatus.DEACTIVATED, why="the password is right, and the account has expired"
    ),
    "773": _OF_POLICIES[PolicyError.MUST_CHANGE],
    "775": BindAnswer(None, was_checked=False, why="the account is locked out"),
}
"""Active Directory's reasons, Windows error codes in hexadecimal, in the diagnostic message.

"530" to "533", "701" and "773" are given only after a right password; for a wrong one of the same
account the reason is "52e". "775" is given whatever the password is. [MS-SAMR] 3.1.5.13.7.1 has
that order: the lockout, the password, then its age. For all of them, see
dotcms.com/docs/latest/active-directory-error-codes. Samba 4.17 does the same in the tests.
"""


def answer_of(result: Result) -> BindAnswer:
    """Read the result of a bind that the directory has decided on.

    :param result: a result that means ``ACCEPTED`` or ``REFUSED``.
    """
    if result.code == SUCCESS:
        # A password that has expired may be good for some more logins ("grace").
        if result.policy is PolicyError.MUST_CHANGE:
            return _OF_POLICIES[PolicyError.MUST_CHANGE]
        return BindAnswer(AccountStatus.ACTIVE)
    if result.policy is PolicyError.LOCKED:
        return _OF_POLICIES[PolicyError.LOCKED]
    if result.code != INVALID_CREDENTIALS:
        return BindAnswer(None, was_checked=False, why="the directory refuses the account")
    if result.policy is not None:
        return _OF_POLICIES[result.policy]
    found = _DATA.search(result.message)
    return _OF_ACTIVE_DIRECTORY.get(found[1], _WRONG) if found else _WRONG
