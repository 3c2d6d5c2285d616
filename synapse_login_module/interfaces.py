"""The seams of the service: who vouches for a password, and who keeps the tokens and the links.

Beside them stand what a store may do besides, and what providers find here.

Every method returns a :class:`twisted.internet.defer.Deferred`, never a bare coroutine. Whoever
implements one of these can check the implementation with the mixins in
:mod:`synapse_login_module.testing`.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from synapse_login_module.model import (
    Account,
    AccountStatus,
    Bucket,
    Claim,
    Identifier,
    Link,
    Login,
    LoginToken,
    PresentedToken,
    Pruned,
    SessionInfo,
    TokenKey,
    TokenPair,
)


class IPasswordProvider(Interface):
    """Somebody who knows accounts and can tell a right password from a wrong one.

    A provider that can never say an account's status without a password has an attribute
    ``verifiable`` that is false. It may be left out, and is true then. Accounts that are removed
    behind such a provider keep their sessions, and the log says so at the start.
    """

    name: str = Attribute("A short name for the log, without spaces.")

    def authenticate(identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password.

        :param identifier: whom the client says to be. A user identifier may name another server; a
            provider that knows no such user fires with ``None``. An e-mail address is as
            :func:`~synapse_login_module.model.canonical_email` makes it.
        :param password: as the client sent it, any text.
        :return: fires with the account, or with ``None`` for "not mine, ask the next". Fails with
            :class:`~synapse_login_module.errors.InvalidCredentials` (final: nobody else is asked;
            naming the account where it is known has its names share one limit),
            :class:`~synapse_login_module.errors.ProviderUnavailable`, or
            :class:`~synapse_login_module.errors.Overloaded`. A locked or deactivated account with
            the right password fires with the account: its ``status`` or, where that is not set,
            ``account_status`` says the rest. The account's ``subject`` is what everything is asked
            by later.
        """

    def account_status(subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account again, without a password.

        :param subject: as ``authenticate`` gave it; or a full user ID, for the account whose name
            here is spelled exactly like its local part.
        :return: fires with the status, or with ``None`` when this provider knows no such account;
            with ``UNVERIFIABLE`` when it can never say without a password. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """


class IWatchedAccounts(Interface):
    """A password provider that can tell when its accounts may have changed."""

    def version() -> object:
        """Say what changes when the accounts may have changed. It is asked for every second, and
        so has to cost next to nothing.
        """


class IFindsAccounts(Interface):
    """A password provider that can find an account without its password, for an operator."""

    def find(identifier: Identifier) -> Deferred[Account | None]:
        """Find an account; fires with it, or with ``None`` when there is none. Fails with
        :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """


class IAccounts(Interface):
    """All accounts that may log in, whatever provider vouches for them."""

    def authenticate(identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; fires and fails as a provider's does, and with
        :class:`~synapse_login_module.errors.AccountNotLinked`.

        :return: fires with an account whose ``status`` is set, and whose ``claim`` is, unless it is
            the homeserver's own.
        """

    def account_status(user_id: str, link: Link | None) -> Deferred[AccountStatus | None]:
        """Look at the account of a session or a login token again, without a password.

        :param link: the user's link, where it is at hand; it is looked up otherwise.
        :return: fires with the status: of the provider that the account is linked to. ``None`` when
            that knows no such account any more. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """

    def user_id_of(account: Account) -> Deferred[str | None]:
        """Say which user ID an account logs in as, changing nothing.

        :return: fires with the user ID that it is linked to, or that its first login would link;
            with ``None`` when that belongs to another account.
        """


class ILinks(Interface):
    """Who is linked to what: of one user ID there is one link, and of one subject of a provider.

    Every method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def link_of(user_id: str) -> Deferred[Link | None]:
        """Find the link of a user ID."""

    def linked_user(claim: Claim) -> Deferred[str | None]:
        """Find the user ID that a provider's account is linked to, under any of its names."""

    def links() -> Deferred[list[Link]]:
        """List all links, in the order of their user IDs."""

    def link(link: Link, replace: bool) -> Deferred[None]:
        """Link a user ID.

        :param replace: whether a link of this user ID, or of this subject, gives way.
        :return: fails, with nothing changed, with
            :class:`~synapse_login_module.errors.LinkTaken`.
        """

    def unlink(user_id: str) -> Deferred[Link | None]:
        """Drop the link of a user ID; fires with what it was. Sessions are left to the caller."""


class ITokenKeys(Interface):
    """A token store that knows the keys that its tokens are made under, by their fingerprints.

    Servers that share it need the same keys. A store may do without this; then nobody notices when
    they differ. Every method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def token_keys() -> Deferred[list[TokenKey]]:
        """List the keys that are in use or have been retired, by id."""

    def share_token_keys() -> Deferred[None]:
        """Make the keys of this server known, before one signs, and log what is wrong with them.

        A key that is known already, and of another fingerprint, stays as it is. The store does
        this by itself before it signs with a key for the first time.
        """

    def retire_token_key(key_id: int) -> Deferred[bool]:
        """End the tokens made under a key, on all servers; sessions live on.

        :return: fires with whether the key is known, retired before or not.
        """


class ITokenStore(Interface):
    """Somebody who issues, rotates and revokes tokens.

    Every method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`; then nothing
    was changed, or the change was made but could not be acknowledged. What a method acknowledges
    is durable.
    """

    def issue(
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
        with_refresh_token: bool,
        login_token: str | None = None,
        claim: Claim | None = None,
    ) -> Deferred[Login]:
        """Begin a session. An earlier session of the same user and device ends.

        :param user_id: whose; where the claim is linked already, its user ID counts instead.
        :param device_id: the device, or ``None`` to have an identifier made.
        :param refreshable: whether the client said that it refreshes; decides the lifetime of the
            access token.
        :param with_refresh_token: whether a refresh token is given out.
        :param login_token: the login token of this user that the session is begun with. It is used
            up by that: of several logins with it one succeeds.
        :param claim: what the user ID is linked to with that, unless it is already; ``None`` where
            nothing is to be linked.
        :return: fires with the :class:`~synapse_login_module.model.Login`. Fails with
            :class:`~synapse_login_module.errors.UnknownToken` when the login token is no good any
            more, and with :class:`~synapse_login_module.errors.AccountNotLinked` when the user ID
            is linked to another; then no session has begun.
        """

    def present(refresh_token: str) -> Deferred[PresentedToken]:
        """Check a refresh token and find its session, changing nothing.

        :return: fires with the token for :meth:`refresh`. Its session may be of any generation and
            may have ended, which :meth:`refresh` says; its ``link`` is that of its user. Fails with
            :class:`~synapse_login_module.errors.UnknownToken`.
        """

    def refresh(
        presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Exchange a refresh token for a new pair, by the rules of ``rotation.py``.

        :param presented: as :meth:`present` of this store gave it, in the same request.
        :param access_token: where given, an access token of the same session, of any age.
        :param strict: whether the old pair must be dead at once.
        :return: fires with the new pair. Fails, with nothing consumed, with
            :class:`~synapse_login_module.errors.UnknownToken`,
            :class:`~synapse_login_module.errors.ReusedToken` (the session is revoked then),
            :class:`~synapse_login_module.errors.ExpiredToken` or
            :class:`~synapse_login_module.errors.SessionMismatch`.
        """

    def session_for_access_token(access_token: str, allow_expired: bool) -> Deferred[SessionInfo]:
        """Find the session of an access token. The first use of a token confirms its pair.

        :param allow_expired: whether a token that has merely run out is good enough.
        :return: fires with the session. Fails with
            :class:`~synapse_login_module.errors.UnknownToken` or
            :class:`~synapse_login_module.errors.ExpiredToken`.
        """

    def revoke(session: SessionInfo) -> Deferred[None]:
        """End one session. One that is over already is no error."""

    def revoke_all(user_id: str) -> Deferred[int]:
        """End every session of a user and their login tokens; fires with the sessions' number."""

    def sessions(user_id: str | None) -> Deferred[list[SessionInfo]]:
        """List the sessions of a user, or of everybody, oldest first."""

    def make_login_token(user_id: str) -> Deferred[LoginToken]:
        """Make a single-use login token."""

    def login_token_owner(token: str) -> Deferred[str]:
        """Say whom a login token is good for, and leave it so.

        :return: fires with the user ID it was made for. Fails with
            :class:`~synapse_login_module.errors.UnknownToken`.
        """

    def ping() -> Deferred[None]:
        """Fire when the store can be reached and, as far as that can be told, written to."""


class IHousekeeping(Interface):
    """What there is to be done in a token store beside answering requests, by one of the servers
    that share it. A token store that does not provide this looks after its rows itself, and its
    accounts are looked at only when their sessions are used.

    Every method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    link_watch = Attribute("The links, for the sweep: an ``ILinkWatch``.")

    def prune(after: int | None, scan: int, most: int) -> Deferred[Pruned]:
        """Remove rows of sessions and login tokens that have been over for ``keep_ended``.

        It takes so little of the store that no request waits for it.

        :param after: what the batch before said; ``None`` to begin.
        :param scan: how many rows of sessions are looked at at most.
        :param most: how many rows of each kind are removed at most.
        """

    def expire_all() -> Deferred[int]:
        """End every session, while its device lives on: as after a backup was put back.

        :return: fires with how many sessions ended.
        """

    def users_alike(user_id: str) -> Deferred[list[str]]:
        """List the users whose user IDs are this one but for the case of ASCII letters, and who
        have a link, or a session whose row is there.

        It takes no more memory where there are many sessions.
        """

    def hold(lease: str, holder: str, seconds: float) -> Deferred[bool]:
        """Take a lease, or renew one.

        :param lease: its name.
        :param holder: who takes it; no two have the same name.
        :param seconds: for how long.
        :return: fires with whether the holder has it; not while another one does.
        """

    def release(lease: str, holder: str) -> Deferred[None]:
        """Give a lease back, if the holder has it."""


class IRateLimits(Interface):
    """Somebody who counts attempts. A token store that provides this too counts the logins of all
    servers that have it in common.

    Every method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def consume(
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> Deferred[None]:
        """Consume one from each of the buckets, or change nothing. Where the buckets are elsewhere
        all of it costs one round trip.

        :param required: buckets that have to hold one too, and keep it; they are looked at first.
        :param refunded: what was consumed earlier and is refunded with this.
        :return: fires when that is done. Fails, with nothing changed, with
            :class:`~synapse_login_module.errors.RateLimited`, which names a bucket that is empty.
        """

    def refund(consumed: Sequence[Bucket]) -> Deferred[None]:
        """Refund one to each of the buckets, which never hold more than their burst."""


class IHashing(Interface):
    """Slow password hashing, done elsewhere than on the reactor thread.

    Each Deferred may fail with :class:`~synapse_login_module.errors.Overloaded`, at once or when
    its turn is long in coming; cancelling one spares its work.
    """

    cost: int = Attribute("What new hashes cost (bcrypt's logarithm).")

    def check(
        password: str, password_hash: str, pepper: str, normalize: bool = True
    ) -> Deferred[bool]:
        """Fire with whether the bcrypt hash is of this password. One that bcrypt does not take
        is of no password, and takes as long as a decoy.

        :param normalize: whether the password is put into NFKC first, as Synapse does and others
            do not.
        """

    def hash(password: str, pepper: str) -> Deferred[str]:
        """Fire with a new bcrypt hash of this password, by Synapse's rule, of the cost ``cost``."""

    def decoy(password: str) -> Deferred[None]:
        """Take as long as a check of a wrong password would."""

    def report_cost(cost: int, source: object = None) -> None:
        """Report what most hashes in use cost (bcrypt's logarithm), so that a decoy costs as much.

        :param source: what has these hashes. Its latest report counts; of several sources', the
            highest.
        """
