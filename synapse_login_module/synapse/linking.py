"""Which account of Synapse's a provider's account is, decided in one transaction.

An account that is to be made cannot be made in that transaction, since Synapse asks much before it
makes one. So its name is held by a pending link first, and the link counts when the account is
there. A login that dies in between leaves the pending link, which the next login of the same person
takes up: the other order would leave an account that nobody is linked to.
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

_HELD_FOR = 10 * 60_000
"""How long a name is held, in milliseconds, for a registration that never ended."""

_SLACK = 2_000
"""By how many milliseconds an account may seem to be older than the link that waits for it: Synapse
counts whole seconds."""

_AT_ONCE = 60_000
"""How long after the name was held, in milliseconds, a login of the same person holds it with."""

_NO_PASSWORD = LinkRules("passwordless")


class Linked(NamedTuple):
    """The account.

    :param is_new: whether it has been linked just now.
    """

    user_id: str
    is_new: bool = False


class ToRegister(NamedTuple):
    """An account is to be made.

    :param since: since when the name is held for it, or ``None`` where a link waits for it anyway.
    """

    user_id: str
    since: int | None


class NotLinked(NamedTuple):
    """The account exists, and may not be linked."""

    user_id: str
    problem: str
    setting: str


class Nobody(NamedTuple):
    """There is no account for this login.

    :param reason: one word for the log.
    """

    reason: str


class Outpaced(NamedTuple):
    """Another login was faster; all is to be decided again."""


Decision = Linked | ToRegister | NotLinked | Nobody | Outpaced


class Wanted(NamedTuple):
    """What a login asks for.

    :param claim: whose account it is to the provider.
    :param user_id: the account of that name.
    :param only: the one account that it may be; ``None`` for any.
    :param writes: whether it may link, and make, an account.
    """

    claim: Claim
    user_id: str
    only: str | None
    writes: bool


@dataclass(frozen=True, slots=True)
class Linker:
    """Decides.

    :param rules: which accounts that were there before may be linked.
    :param is_reserved: whether a user ID is an application service's, or for notices.
    :param default_user_type: the ``user_type`` that every new account gets.
    :param registers: whether accounts are made.
    """

    rules: LinkRules
    is_reserved: Callable[[str], bool]
    default_user_type: str | None
    registers: bool

    def decide(self, rows: SQLRows, wanted: Wanted, now: int) -> Decision:
        """Find the account, and link it or hold its name where that is to be done.

        To be run in a transaction, perhaps more than once; all that it does is in the rows.
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
            return Nobody("other_user")
        if mine is not None and not self._is_held_for(mine, user_id, account):
            if wanted.writes:
                link_rows.drop_pending(rows, mine.user_id, mine.linked_at)
            mine = None
        if account is None:
            return self._register(rows, wanted, mine, now)
        if mine is not None:
            if wanted.writes:
                link_rows.confirm(rows, user_id, wanted.claim, now)
            return Linked(user_id, is_new=wanted.writes)
        return self._link(rows, wanted, account, now)

    def _linked(self, rows: SQLRows, user_id: str, wanted: Wanted) -> Decision:
        """What is linked already, perhaps in another case or under an earlier name."""
        if wanted.only not in (None, user_id):
            return Nobody("other_user")
        account = self._find(rows, user_id)
        if account is not None and account.user_id == user_id:
            return Linked(user_id)
        # Linked by hand, ahead of its first login.
        if self.registers and wanted.writes:
            return ToRegister(user_id, None)
        return Nobody("not_registered")

    def _register(self, rows: SQLRows, wanted: Wanted, mine: LinkRow | None, now: int) -> Decision:
        user_id, claim = wanted.user_id, wanted.claim
        if self.is_reserved(user_id) and not self.rules.is_exception(user_id, claim.providers):
            return NotLinked(
                user_id, "it is reserved for an application service or for notices", naming(user_id)
            )
        if not (self.registers and wanted.writes):
            return Nobody("not_registered")
        if mine is not None and now - mine.linked_at < _AT_ONCE:
            # Another login of the same person is at it. To write the row again would only undo
            # that one's transaction, and those of all others that are under way.
            return ToRegister(user_id, mine.linked_at)
        if mine is not None:
            link_rows.reserve_again(rows, mine, now)
            return ToRegister(user_id, now)
        holder = link_rows.row_of_user(rows, user_id)
        if holder is not None:
            if not holder.pending or now - holder.linked_at < _HELD_FOR:
                return _taken(holder)
            link_rows.drop_pending(rows, user_id, holder.linked_at)
        link = Link(user_id, claim.provider, claim.subject)
        if not link_rows.insert_link(rows, link, now, pending=True):
            return Outpaced()
        return ToRegister(user_id, now)

    def _link(self, rows: SQLRows, wanted: Wanted, account: ExistingAccount, now: int) -> Decision:
        user_id, claim = account.user_id, wanted.claim
        holder = link_rows.row_of_user(rows, user_id)
        if holder is not None and self._is_held_for(holder, user_id, account):
            return _taken(holder)
        if holder is not None and not holder.pending:
            return _taken(holder)
        refusal = self.rules.refusal(account, claim.providers)
        if refusal is not None:
            return NotLinked(user_id, *refusal)
        if not wanted.writes:
            return Linked(user_id)
        if holder is not None:
            link_rows.drop_pending(rows, user_id, holder.linked_at)
        link = Link(user_id, claim.provider, claim.subject)
        if not link_rows.insert_link(rows, link, now, admin=account.is_admin):
            return Outpaced()
        return Linked(user_id, is_new=True)

    def _is_held_for(self, row: LinkRow, user_id: str, account: ExistingAccount | None) -> bool:
        """Whether a pending link is of an account as this module makes them, or of none yet.

        Somebody else may have registered the name since, with a password; or an administrator
        without one, long after the login that died.
        """
        if not row.pending or row.user_id != user_id:
            return False
        if account is None:
            return True
        age = account.created_at - row.linked_at
        return -_SLACK <= age <= _HELD_FOR and _NO_PASSWORD.refusal(account, ()) is None

    def _find(self, rows: SQLRows, user_id: str) -> ExistingAccount | None:
        account = user_tables.find_account(rows, user_id, self.default_user_type)
        if account is None or not self.is_reserved(account.user_id):
            return account
        return account._replace(is_reserved=True)


def _taken(row: LinkRow) -> NotLinked:
    return NotLinked(
        row.user_id, f"it is linked to {row.subject} of {row.provider}", "links relink"
    )
