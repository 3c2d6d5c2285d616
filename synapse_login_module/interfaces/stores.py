"""Token stores, and what a store may do besides."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from synapse_login_module.model import (
    Bucket,
    Claim,
    EndedBatch,
    ImportedSession,
    ImportOutcome,
    Login,
    LoginToken,
    PresentedToken,
    Pruned,
    SessionCounts,
    SessionInfo,
    TokenKey,
    TokenPair,
)


class ITokenStore(Interface):
    """Issues, refreshes and revokes tokens.

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

        :param user_id: the user. Where the claim is linked already, the linked user ID is used
            instead.
        :param device_id: the device, or ``None`` to generate an identifier.
        :param refreshable: whether the client said that it refreshes tokens. This decides the
            lifetime of the access token.
        :param with_refresh_token: whether the pair has a refresh token.
        :param login_token: a login token of this user, to be consumed by the login. Of several
            logins with one login token, one succeeds.
        :param claim: the account to link the user ID to, unless it is linked already; ``None``
            links nothing.
        :return: fires with the :class:`~synapse_login_module.model.Login`. Fails with
            :class:`~synapse_login_module.errors.UnknownToken` when the login token is not valid,
            and with :class:`~synapse_login_module.errors.AccountNotLinked` when the user ID is
            linked to another account; then no session has begun.
        """

    def present(refresh_token: str) -> Deferred[PresentedToken]:
        """Check that a refresh token is authentic and find its session, changing nothing.

        :return: fires with the token for :meth:`refresh`. The token may be of any generation and
            its session may have ended; :meth:`refresh` checks both. The session's ``link`` is that
            of its user. Fails with :class:`~synapse_login_module.errors.UnknownToken`.
        """

    def refresh(
        presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Exchange a refresh token for a new pair, by the rules of ``rotation.py``.

        :param presented: what :meth:`present` of this store returned, in the same request.
        :param access_token: if not ``None``, it has to be an access token of the same session, of
            any age.
        :param strict: whether the old pair becomes invalid at once.
        :return: fires with the new pair. Fails, with no token consumed, with
            :class:`~synapse_login_module.errors.UnknownToken`,
            :class:`~synapse_login_module.errors.ReusedToken` (which has ended the session),
            :class:`~synapse_login_module.errors.ExpiredToken` or
            :class:`~synapse_login_module.errors.SessionMismatch`.
        """

    def session_for_access_token(access_token: str, allow_expired: bool) -> Deferred[SessionInfo]:
        """Find the session of an access token. The first use of an access token confirms its pair.

        :param allow_expired: whether to accept a token that has expired, but is not superseded.
        :return: fires with the session. Fails with
            :class:`~synapse_login_module.errors.UnknownToken` or
            :class:`~synapse_login_module.errors.ExpiredToken`.
        """

    def revoke(session: SessionInfo) -> Deferred[None]:
        """End one session. Succeeds too when the session has ended already."""

    def revoke_all(user_id: str, device_grace: int = 0) -> Deferred[int]:
        """End every session of a user, and delete the user's login tokens.

        :param device_grace: for how many milliseconds the devices at the homeserver are kept, in a
            store that provides ``IDelegatedStore``. Others ignore it.
        :return: fires with the number of sessions that this ended.
        """

    def sessions(
        user_id: str | None, after: SessionInfo | None = None, most: int = 1000
    ) -> Deferred[list[SessionInfo]]:
        """List one page of the sessions of a user, or of all users.

        The order is the store's, and stays the same. Between two pages, no transaction and no lock
        is held. A session that begins or ends in the meantime may be listed or not.

        :param after: the last session of the previous page; ``None`` for the first page. It may
            have ended since.
        :param most: the most sessions to list, at least 1.
        :return: fires with the sessions that are not over. If they are fewer than ``most``, this is
            the last page.
        """

    def make_login_token(user_id: str) -> Deferred[LoginToken]:
        """Issue a single-use login token."""

    def login_token_owner(token: str) -> Deferred[str]:
        """Find the user of a login token, without consuming it.

        :return: fires with the user ID that it was made for. Fails with
            :class:`~synapse_login_module.errors.UnknownToken`.
        """

    def ping() -> Deferred[None]:
        """Check that the store can be reached and, where the store can check that, written to."""


class ITokenKeys(Interface):
    """A token store that holds the fingerprints of the keys that its tokens are derived under.

    Servers that share a token store need the same keys. A store need not provide this interface;
    then it goes unnoticed when the keys of its servers differ. Every method may fail with
    :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def token_keys() -> Deferred[list[TokenKey]]:
        """List the keys that are in use or have been retired, ordered by id."""

    def require_token_key() -> Deferred[None]:
        """Check that this server's newest key can sign, changing nothing.

        :return: fails with :class:`~synapse_login_module.errors.KeyUnavailable` when a login here
            would.
        """

    def share_token_keys() -> Deferred[None]:
        """Put the fingerprints of this server's keys into the store, and log conflicts.

        A key id that the store already has under another fingerprint stays as it is. The store does
        this by itself before it signs with a key for the first time.
        """

    def retire_token_key(key_id: int) -> Deferred[bool]:
        """Invalidate the tokens made under a key, on all servers. The sessions live on.

        :return: fires with whether the store knows the key, whether or not it was retired before.
        """


class IHousekeeping(Interface):
    """The background work of a token store, done by one of the servers that share it.

    A token store that does not provide this prunes its rows itself, and its accounts are looked at
    only when their sessions are used. Every method may fail with
    :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    link_watch = Attribute("The links, for the sweep: an ``ILinkWatch``.")

    def prune(after: int | None, scan: int, most: int) -> Deferred[Pruned]:
        """Delete the rows of sessions and login tokens that ended at least ``keep_ended`` ago.

        One call deletes one batch, small enough that no request waits long for it.

        :param after: the ``after`` of the previous batch; ``None`` for the first.
        :param scan: the most session rows to look at.
        :param most: the most rows to delete, of sessions and of login tokens each.
        :return: fires with what was deleted, and where the next batch begins.
        """

    def expire(after: int | None, most: int) -> Deferred[EndedBatch]:
        """End the sessions of one batch and let the devices live on.

        All batches together end every session, for example after restoring a backup. A session that
        begins in the meantime may be ended or not.

        :param after: the ``after`` of the previous batch; ``None`` for the first.
        :param most: the most session rows to look at.
        :return: fires with how many sessions ended, and where the next batch begins.
        """

    def revoke_everybody(after: int | None, most: int) -> Deferred[EndedBatch]:
        """Revoke the sessions of one batch, as ``ITokenStore.revoke`` does, and all login tokens.

        All batches together revoke every session. A session that begins in the meantime may be
        revoked or not.

        :param after: the ``after`` of the previous batch; ``None`` for the first.
        :param most: the most session rows to look at.
        :return: fires with how many sessions ended, and where the next batch begins.
        """

    def count_sessions() -> Deferred[SessionCounts]:
        """Count the sessions, in short queries.

        :return: fires with how many are not over, and how many pruning would remove now.
        """

    def users_alike(user_id: str) -> Deferred[list[str]]:
        """List the users whose user IDs differ from this one in the case of ASCII letters at most.

        Only users with a link or a session row are listed. The memory that this takes does not grow
        with the number of sessions.
        """

    def hold(lease: str, holder: str, seconds: float) -> Deferred[bool]:
        """Take or renew a lease.

        :param lease: the name of the lease.
        :param holder: the name of the server that takes it, unique among the servers.
        :param seconds: the duration of the lease, from now.
        :return: fires with whether ``holder`` now has the lease. It has not while another holder's
            lease lasts.
        """

    def release(lease: str, holder: str) -> Deferred[None]:
        """Give up a lease, if the holder has it."""


class IImportsSessions(Interface):
    """A token store that takes over sessions of a homeserver, with the tokens of its clients.

    An imported session is a session like others. Its imported tokens count as its pair of
    generation 0, so they are good until the session is refreshed, by the rules of ``rotation.py``.
    Every method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def import_sessions(
        batch: Sequence[ImportedSession], write: bool = True
    ) -> Deferred[list[ImportOutcome]]:
        """Take over sessions, all in one transaction.

        A session that this server already has on a device is never replaced. Taking over the same
        sessions again changes nothing. Other servers that share the store accept the tokens within
        a second.

        :param batch: sessions of different devices.
        :param write: ``False`` to find out only what would be done.
        :return: fires with the outcome for each, in their order.
        """


class IRateLimits(Interface):
    """Counts attempts in token buckets.

    A token store that provides this too counts the logins of all servers that share it. Every
    method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def consume(
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> Deferred[None]:
        """Consume one token from each of the buckets, or change nothing.

        Where the buckets are in a database, one call costs one round trip.

        :param wanted: the buckets to consume from.
        :param required: buckets that have to hold a token too, which stays; they are checked first.
        :param refunded: buckets that get back the token that was consumed from them earlier.
        :return: fires when the change is made. Fails, with nothing changed, with
            :class:`~synapse_login_module.errors.RateLimited`, which names a bucket that is empty.
        """

    def waits(buckets: Sequence[Bucket]) -> Deferred[list[float]]:
        """Find out for how long each of the buckets would refuse an attempt, changing nothing.

        :return: fires with the seconds for each bucket, in their order; 0 for a bucket that holds a
            token.
        """

    def refund(consumed: Sequence[Bucket]) -> Deferred[None]:
        """Give one token back to each of the buckets, up to its burst."""
