"""Asks providers about accounts in the background: a few at a time, with each question counted."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed

from synapse_login_module.accounts.watch import Providers
from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model import APPLICATION_SERVICE, AccountStatus, Link

AT_ONCE = 4


class Questions:
    """Asks providers about accounts, with a limit on concurrent questions.

    :param providers: the providers.
    :param looked: called with the provider's name (``-`` for a user without a link) and the outcome
        of each question: the status, ``unknown``, ``unavailable`` or ``failed``.
    :param at_once: how many questions are asked concurrently at most.
    """

    def __init__(
        self,
        providers: Providers,
        looked: Callable[[str, str], None],
        at_once: int = AT_ONCE,
    ) -> None:
        self._providers = providers
        self._looked = looked
        self._turn = DeferredSemaphore(at_once)

    def ask(self, account: Link | str) -> Deferred[AccountStatus | None]:
        """Ask about the account of a link, or about a user without one.

        :param account: the link, or a full user ID.
        :return: fires and fails as the provider's answer does. A user of an application service is
            active, since no provider knows it.
        """
        if isinstance(account, Link) and account.provider == APPLICATION_SERVICE:
            return succeed(AccountStatus.ACTIVE)
        return Deferred.fromCoroutine(self._ask(account))

    async def _ask(self, account: Link | str) -> AccountStatus | None:
        name = account.provider if isinstance(account, Link) else "-"
        await self._turn.acquire()
        try:
            if isinstance(account, Link):
                status = await self._providers.account_status(account.provider, account.subject)
            else:
                status = await self._providers.status_by_name(account)
        except ProviderUnavailable:
            self._looked(name, "unavailable")
            raise
        except Exception:
            self._looked(name, "failed")
            raise
        finally:
            self._turn.release()
        self._looked(name, "unknown" if status is None else status.value)
        return status
