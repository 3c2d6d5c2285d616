"""Rules that say which accounts of the homeserver a login may link. They are pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

ExistingAccounts = Literal["passwordless", "all", "none"]


class ExistingAccount(NamedTuple):
    """An account of the homeserver that has no link.

    :param has_password: whether it has a local password.
    :param has_sso_id: whether it was logged in to by single sign-on.
    :param is_bridged: whether an application service made it.
    :param is_special: whether it has a ``user_type``, which ordinary accounts do not have.
    :param is_guest: whether it is a guest.
    :param is_admin: whether it is a server administrator.
    :param is_deactivated: whether it is deactivated.
    :param is_reserved: whether its name is in an exclusive namespace of an application service, or
        is the name of an application service or of server notices.
    :param created_at: when it was made, in milliseconds since the epoch, to the second.
    """

    user_id: str
    has_password: bool = False
    has_sso_id: bool = False
    is_bridged: bool = False
    is_special: bool = False
    is_guest: bool = False
    is_admin: bool = False
    is_deactivated: bool = False
    is_reserved: bool = False
    created_at: int = 0


class Refusal(NamedTuple):
    """Why an account is not linked.

    :param problem: the reason, as a clause such as "it is deactivated".
    :param setting: the setting or command that would allow it.
    """

    problem: str
    setting: str


class LinkRules:
    """The rules of ``existing_accounts`` and ``link_accounts``.

    :param existing_accounts: which accounts may be linked.
    :param exceptions: provider's name and user ID of accounts that may always be linked; ``None``
        stands for any provider.
    """

    def __init__(
        self, existing_accounts: ExistingAccounts, exceptions: Iterable[tuple[str | None, str]] = ()
    ) -> None:
        self.existing_accounts = existing_accounts
        self._exceptions = frozenset((provider, user_id) for provider, user_id in exceptions)

    def is_exception(self, user_id: str, providers: Iterable[str]) -> bool:
        """Say whether ``link_accounts`` names an account.

        :param providers: the provider's name and its former names.
        """
        return any((name, user_id) in self._exceptions for name in (None, *providers))

    def refusal(self, account: ExistingAccount, providers: tuple[str, ...]) -> Refusal | None:
        """Return why an account may not be linked, or ``None`` when it may.

        :param providers: the provider's name and its former names.
        """
        if self.is_exception(account.user_id, providers):
            return None
        by_name = naming(account.user_id)
        for applies, problem in (
            (account.is_reserved, "it is reserved for an application service or for notices"),
            (account.is_admin, "it is a server administrator's"),
            (account.is_guest, "it is a guest's"),
            (account.is_special, "it has a user_type"),
            (account.is_bridged, "an application service made it"),
            (account.is_deactivated, "it is deactivated"),
        ):
            if applies:
                return Refusal(problem, by_name)
        if self.existing_accounts == "all":
            return None
        if self.existing_accounts == "none":
            return Refusal(
                "it was there before, and existing_accounts is none",
                f"existing_accounts: passwordless, or {by_name}",
            )
        for applies, problem in (
            (account.has_password, "it has a local password"),
            (account.has_sso_id, "it has a single sign-on id"),
        ):
            if applies:
                return Refusal(problem, f"existing_accounts: all, or {by_name}")
        return None


def naming(user_id: str) -> str:
    """Return the setting that names an account, and the command that links it without one."""
    return f'link_accounts: ["{user_id}"], or links link'
