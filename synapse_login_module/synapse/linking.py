"""Decides in one transaction which account of Synapse a provider's account is.

A new account cannot be registered in that transaction, since Synapse's registration has
transactions of its own. So a pending link reserves the name first, and is confirmed when the
account exists. A login that dies in between leaves the pending link, which the next login of the
same person takes up. The other order would leave an account without a link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.accounts.rules import ExistingAccount, LinkRules, naming
from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse import link_rows, user_tables
from synapse_login_module.synapse.link_rows import LinkRow
from synapse_login_module.synapse.user_tables import SQLRows

_RESERVED_FOR = 10 * 60_000
"""How long a pending link reserves its name, in milliseconds, if the registration never ends."""

_SLACK = 2_000
"""By how many milliseconds an account may seem older than its pending link, since Synapse stores
creation times in whole seconds."""

_SHARED_FOR = 60_000
"""For how many milliseconds a login uses the pending link of another login of the same person
without renewing it."""

_NO_PASSWORD = LinkRules("passwordless")


class Linked(NamedTuple):
    """The decision that the login is for an account that is linked.

    :param is_new: whether this decision has linked it.
    """

    user_id: str
    is_new: bool = False


class ToRegister(NamedTuple):
    """The decision that an account has to be registered.

    :param since: the time in the pending link that reserves its name; ``None`` where a confirmed
        link exists.
    """

    user_id: str
    since: int | None


class NotLinked(NamedTuple):
    """The decision that the account may not be linked.

    :param problem: the reason.
    :param setting: the setting or command that would allow it.
    """

    user_id: str
    problem: str
    setting: str


class NoAccount(NamedTuple):
    """The decision that there is no account for this login.

    :param reason: one word for the log.
    """

    reason: str


class Conflict(NamedTuple):
    """Another login was faster, so the decision has to be made again."""


Decision = Linked | ToRegister | NotLinked | NoAccount | Conflict


class Wanted(NamedTuple):
    """The account that a login asks for.

    :param claim: the claim of the provider's account.
    :param user_id: the user ID that the provider's account would have without a link.
    :param only: the only user ID that it may be; ``None`` for any.
    :param writes: whether the login may link and register an account.
    """

    claim: Claim
    user_id: str
    only: str | None
    writes: bool


@dataclass(frozen=True, slots=True)
class Linker:
    """Decides which account a login is for.

    :param rules: say which existing accounts may be linked.
    :param is_reserved: says whether a user ID is in an exclusive namespace of an application
        service, or is that of server notices.
    :param default_user_type: the ``user_type`` that every new account gets.
    :param registers: whether accounts are registered.
    """

    rules: LinkRules
    is_reserved: Callable[[str], bool]
    default_user_type: str | None
    registers: bool

    def decide(self, rows: SQLRows, wanted: Wanted, now: int) -> Decision:
        """Find the account; link it, or reserve its name, if needed.

        It may run more than once, since all its effects are in the transaction.

        :param now: milliseconds since the epoch.
        """
        mine = link_rows.row_of_claim(rows, wanted.claim)
        if mine is not None and not mine.pending:
            return self._linked(rows, mine.user_id, wanted)
        try:
            account = self._find(rows, wanted.user_id)
        except user_tables.AmbiguousName:
            return NotLinked(
                wanted.user_id,
                "there are several accounts of this name in upper and lower case",
                "links link",
            )
        user_id = wanted.user_id if account is None else account.user_id
        if wanted.only not in (None, user_id):
            return NoAccount("other_user")
        if mine is not None and not self._is_pending_for(mine, user_id, account):
            if wanted.writes:
                link_rows.delete_pending(rows, mine.user_id, mine.linked_at)
            mine = None
        if account is None:
            return self._register(rows, wanted, mine, now)
        if mine is not None:
            if wanted.writes:
                link_rows.confirm_link(rows, user_id, wanted.claim, now)
            return Linked(user_id, is_new=wanted.writes)
        return self._link(rows, wanted, account, now)

    def _linked(self, rows: SQLRows, user_id: str, wanted: Wanted) -> Decision:
        """Decide for a provider's account that has a link, which may name another user ID."""
        if wanted.only not in (None, user_id):
            return NoAccount("other_user")
        account = self._find(rows, user_id)
        if account is not None and account.user_id == user_id:
            return Linked(user_id)
        # An operator linked it before its first login.
        if self.registers and wanted.writes:
            return ToRegister(user_id, None)
        return NoAccount("not_registered")

    def _register(self, rows: SQLRows, wanted: Wanted, mine: LinkRow | None, now: int) -> Decision:
        user_id, claim = wanted.user_id, wanted.claim
        if self.is_reserved(user_id) and not self.rules.is_exception(user_id, claim.providers):
            return NotLinked(
                user_id, "it is reserved for an application service or for notices", naming(user_id)
            )
        if not (self.registers and wanted.writes):
            return NoAccount("not_registered")
        if mine is not None and now - mine.linked_at < _SHARED_FOR:
            # Another login of the same person is registering it. Writing the row again would only
            # make concurrent transactions fail.
            return ToRegister(user_id, mine.linked_at)
        if mine is not None:
            link_rows.renew_pending(rows, mine, now)
            return ToRegister(user_id, now)
        holder = link_rows.row_of_user(rows, user_id)
        if holder is not None:
            if not holder.pending or now - holder.linked_at < _RESERVED_FOR:
                return _taken(holder)
            link_rows.delete_pending(rows, user_id, holder.linked_at)
        link = Link(user_id, claim.provider, claim.subject)
        if not link_rows.insert_link(rows, link, now, pending=True):
            return Conflict()
        return ToRegister(user_id, now)

    def _link(self, rows: SQLRows, wanted: Wanted, account: ExistingAccount, now: int) -> Decision:
        user_id, claim = account.user_id, wanted.claim
        holder = link_rows.row_of_user(rows, user_id)
        if holder is not None and self._is_pending_for(holder, user_id, account):
            return _taken(holder)
        if holder is not None and not holder.pending:
            return _taken(holder)
        refusal = self.rules.refusal(account, claim.providers)
        if refusal is not None:
            return NotLinked(user_id, *refusal)
        if not wanted.writes:
            return Linked(user_id)
        if holder is not None:
            link_rows.delete_pending(rows, user_id, holder.linked_at)
        link = Link(user_id, claim.provider, claim.subject)
        if not link_rows.insert_link(rows, link, now, admin=account.is_admin):
            return Conflict()
        return Linked(user_id, is_new=True)

    def _is_pending_for(self, row: LinkRow, user_id: str, account: ExistingAccount | None) -> bool:
        """Say whether a pending link is for this account: one that this module has registered, or
        that does not exist yet.

        Another person may have registered the name since, with a password; or an administrator
        may have done so without one, long after the login that died.
        """
        if not row.pending or row.user_id != user_id:
            return False
        if account is None:
            return True
        age = account.created_at - row.linked_at
        return -_SLACK <= age <= _RESERVED_FOR and _NO_PASSWORD.refusal(account, ()) is None

    def _find(self, rows: SQLRows, user_id: str) -> ExistingAccount | None:
        account = user_tables.find_account(rows, user_id, self.default_user_type)
        if account is None or not self.is_reserved(account.user_id):
            return account
        return account._replace(is_reserved=True)


def _taken(row: LinkRow) -> NotLinked:
    return NotLinked(
        row.user_id, f"it is linked to {row.subject} of {row.provider}", "links relink"
    )
