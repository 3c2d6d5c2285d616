"""What is known and counted of an attempt that the rate limits have admitted."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import CancelledError

from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    Charge,
    LoginServiceError,
)
from synapse_login_module.limits.login import Attempt
from synapse_login_module.model import Account, PasswordLogin, TokenLogin, require_active


@dataclass(slots=True)
class AuditFields:
    """The fields of an attempt's line in the audit log, as far as they are known.

    :param user: the user ID; until the account is known, the identifier that the client sent.
    """

    user: str = ""
    device: str = ""
    provider: str = ""


@dataclass(slots=True)
class AdmittedAttempt:
    """An attempt that the rate limits have admitted.

    :param counted: the attempt in the rate limits.
    :param charged: the account that failures are charged to; set once its password was right.
    """

    counted: Attempt
    fields: AuditFields
    charged: str | None = None

    async def require_active(self, account: Account) -> None:
        """Reject an account that is deactivated or locked.

        Where too many passwords failed on the account, the error is that of a wrong password. It
        must not reveal that this password was right.
        """
        try:
            require_active(account.status)
        except (AccountDeactivated, AccountLocked):
            await self.counted.succeeded(self.charged)
            raise


_MAX_SUBJECT = 512


def counted_name(credentials: PasswordLogin | TokenLogin) -> str | None:
    """Return the name under which failures are counted before the account is known."""
    if isinstance(credentials, TokenLogin):
        return None
    return str(credentials.identifier).lower()[:_MAX_SUBJECT]


def settle(attempt: Attempt, error: Exception) -> None:
    """Refund what an error does not count, such as an attempt that failed for an outage."""
    if isinstance(error, CancelledError):
        return
    charge = error.charge if isinstance(error, LoginServiceError) else Charge.NOTHING
    if charge is not Charge.FAILURE:
        attempt.forgive(entirely=charge is Charge.NOTHING)
