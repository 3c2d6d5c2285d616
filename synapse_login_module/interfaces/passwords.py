"""Password providers, and the hashing that they are given."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from synapse_login_module.hashes import Kind
from synapse_login_module.model import (
    Account,
    AccountStatus,
    Identifier,
)


class IPasswordProvider(Interface):
    """Checks passwords against accounts, and says whether an account is still there.

    A provider that can never report an account's status without a password has an attribute
    ``verifiable`` that is false. A provider without the attribute counts as verifiable. Accounts
    that are removed from a provider that is not verifiable keep their sessions, and the log says so
    at the start.
    """

    name: str = Attribute("A short name for the log, without spaces.")

    def authenticate(identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password.

        :param identifier: the user that the client claims to be. A user identifier may name another
            server; a provider that knows no such user fires with ``None``. An e-mail address is in
            the form of :func:`~synapse_login_module.model.canonical_email`.
        :param password: as the client sent it, any text.
        :return: fires with the account, or with ``None`` when this provider does not know the user,
            and the next provider is asked. Fails with
            :class:`~synapse_login_module.errors.InvalidCredentials` (final: no other provider is
            asked; where the error names the account, all names of the account share one rate
            limit), :class:`~synapse_login_module.errors.ProviderUnavailable`, or
            :class:`~synapse_login_module.errors.Overloaded`. Where the password is right and the
            account may not log in, fires with the account; its ``status`` says that it is locked or
            deactivated, that its password has expired, or that it is not permitted now. Where the
            status is not set, ``account_status`` is asked. All later calls name the account by its
            ``subject``.
        """

    def account_status(subject: str) -> Deferred[AccountStatus | None]:
        """Check the status of an account, without a password.

        :param subject: the ``subject`` of an account that ``authenticate`` fired with. A full user
            ID stands for the account whose name at the provider is exactly its local part.
        :return: fires with the status, or with ``None`` when this provider knows no such account,
            or with ``UNVERIFIABLE`` when it can never report a status without a password.
            ``PASSWORD_EXPIRED`` and ``NOT_PERMITTED`` end no session. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """


class IWatchedAccounts(Interface):
    """A password provider that notices when its accounts may have changed."""

    def version() -> object:
        """Return a value that changes when the accounts may have changed.

        It is called at every refresh, so it has to be cheap. While it stays the same, an account
        that was active counts as active, until ``tokens.account_check_interval`` is over.

        :return: ``None`` when it is not known.
        """


class INamesAdministrators(Interface):
    """A password provider that may say which accounts are server administrators inside Synapse."""

    names_administrators: bool = Attribute("Whether it does, as its configuration says.")

    def is_administrator(subject: str) -> Deferred[bool | None]:
        """Say whether an account is to be a server administrator, without a password.

        :param subject: the ``subject`` of an account that ``authenticate`` fired with.
        :return: fires as ``Account.admin`` says, and with ``None`` too where the account is
            unknown, or the answer cannot be relied on. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """


class IFindsAccounts(Interface):
    """A password provider that can find an account without its password, for an operator."""

    def find(identifier: Identifier) -> Deferred[Account | None]:
        """Find an account.

        :return: fires with the account, or with ``None`` when there is none. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """


class IHashing(Interface):
    """A pool for slow password hashing, off the reactor thread.

    Each Deferred may fail with :class:`~synapse_login_module.errors.Overloaded`, at once or after
    it has waited too long. Cancelling a Deferred saves its work, unless that has begun.
    """

    kind: Kind = Attribute("The kind of new hashes.")

    def check(
        password: str, password_hash: str, pepper: str, normalize: bool | None = None
    ) -> Deferred[bool]:
        """Check a password against a hash of any format of :mod:`synapse_login_module.hashes`.

        :param normalize: whether to normalise the password to NFKC first. ``None`` is the rule of
            the format: bare bcrypt is Synapse's, which does; other programs do not.
        :return: fires with whether the password is right. A hash that cannot be used matches no
            password, and takes as long as a decoy.
        """

    def hash(password: str, pepper: str, normalize: bool | None = None) -> Deferred[str]:
        """Make a hash of the kind ``kind``.

        :param normalize: whether to normalise the password first. ``None`` is the rule of the kind.
        """

    def decoy(password: str) -> Deferred[None]:
        """Take as long as a check of a wrong password."""

    def report_kind(kind: Kind, source: object = None) -> None:
        """Report the kind of most hashes in use, so that a decoy takes as long.

        :param kind: what :func:`synapse_login_module.hashes.parse_hash` says of such a hash.
        :param source: the owner of these hashes. Its latest report counts. Of several sources, the
            slowest kind counts.
        """
