"""Attempts to prove who one is: each is counted against the rate limits and written to the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from twisted.internet.defer import CancelledError

from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import (
    Charge,
    LoginServiceError,
    RateLimited,
)
from synapse_login_module.limits.login import Attempt, LoginLimits
from synapse_login_module.model import (
    Account,
    Client,
    PasswordLogin,
    ServiceLogin,
    TokenLogin,
    require_active,
)


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
        """Reject an account that is deactivated or locked, or may not log in now.

        Where too many passwords failed on the account, the error is that of a wrong password. It
        must not reveal that this password was right.
        """
        try:
            require_active(account.status)
        except LoginServiceError:
            await self.counted.succeeded(self.charged)
            raise


@dataclass(frozen=True, slots=True)
class Attempts:
    """Counts attempts against the rate limits, and writes their outcomes to the audit log."""

    limits: LoginLimits
    audit: AuditLog

    @asynccontextmanager
    async def counted(
        self,
        event: str,
        credentials: PasswordLogin | TokenLogin,
        client: Client,
        fields: AuditFields | None = None,
    ) -> AsyncIterator[AdmittedAttempt]:
        """Count an attempt, and write its outcome.

        :param event: the event in the audit log.
        :param fields: what is known of the user so far; the body of the ``with`` adds to it.
        """
        subject = _subject(credentials)
        fields = fields or AuditFields()
        fields.user = fields.user or subject or ""
        async with self._written(event, credentials, client, fields):
            counted = await self.limits.attempt(client, subject)
            try:
                yield AdmittedAttempt(counted, fields)
            except Exception as error:
                _settle(counted, error)
                raise

    @asynccontextmanager
    async def of_service(
        self, event: str, credentials: ServiceLogin, client: Client
    ) -> AsyncIterator[AuditFields]:
        """Count an attempt of an application service if it fails, and write its outcome.

        Its token cannot be guessed, so a failed attempt costs only work. A valid attempt counts
        nothing: a bridge logs many users in, all from one address.
        """
        fields = AuditFields(str(credentials.user_id))
        async with self._written(event, credentials, client, fields):
            self.limits.require_service(client)
            try:
                yield fields
            except LoginServiceError as error:
                if error.charge is Charge.FAILURE and not isinstance(error, RateLimited):
                    self.limits.service_failed(client)
                raise

    @asynccontextmanager
    async def _written(
        self,
        event: str,
        credentials: PasswordLogin | TokenLogin | ServiceLogin,
        client: Client,
        fields: AuditFields,
    ) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            self.audit.failed(
                event,
                error,
                client,
                user=fields.user,
                device=fields.device,
                provider=fields.provider,
            )
            raise
        self.audit.record(
            event,
            "ok",
            credentials.kind,
            client,
            user=fields.user,
            device=fields.device,
            provider=fields.provider,
        )


_MAX_SUBJECT = 512


def _subject(credentials: PasswordLogin | TokenLogin) -> str | None:
    """Return the name under which failures are counted before the account is known."""
    if isinstance(credentials, TokenLogin):
        return None
    return str(credentials.identifier).lower()[:_MAX_SUBJECT]


def _settle(attempt: Attempt, error: Exception) -> None:
    """Refund what an error does not count, such as an attempt that failed for an outage."""
    if isinstance(error, CancelledError):
        return
    charge = error.charge if isinstance(error, LoginServiceError) else Charge.NOTHING
    if charge is not Charge.FAILURE:
        attempt.forgive(entirely=charge is Charge.NOTHING)
