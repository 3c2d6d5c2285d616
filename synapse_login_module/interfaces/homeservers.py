"""The homeserver that accepts this server's tokens, and what a token store keeps for it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from synapse_login_module.model import (
    Claim,
    DeviceDeletion,
    HomeserverAccount,
    HomeserverPolicy,
    NameStatus,
    OwedDeletions,
)


class IHomeserver(Interface):
    """A homeserver that delegates authentication to this server.

    It has the accounts and the devices that sessions are of. Every method may fail with
    :class:`~synapse_login_module.errors.HomeserverUnavailable`, within a timeout; then the request
    may have been carried out or not. Every method may be repeated without harm. User IDs are full
    user IDs of the homeserver.
    """

    policy: HomeserverPolicy = Attribute("What the server does for this homeserver.")

    def has_secret(given: bytes) -> bool:
        """Return whether a secret is that with which the homeserver asks about tokens.

        It takes the same time whatever part of the secret is right.
        """

    def find_account(user_id: str) -> Deferred[HomeserverAccount | None]:
        """Find an account; fires with ``None`` when there is none."""

    def name_status(user_id: str) -> Deferred[NameStatus]:
        """Find out whether an account of this user ID can be made."""

    def make_account(user_id: str, display_name: str | None) -> Deferred[bool]:
        """Make an account without a password, unless it exists.

        :param display_name: the display name of a new account, or ``None`` for the homeserver's
            own choice.
        :return: fires with whether the account is new. Fails with
            :class:`~synapse_login_module.errors.AccountRefused` when the homeserver makes no
            account of this name.
        """

    def set_display_name(user_id: str, display_name: str) -> Deferred[None]:
        """Set the display name of an account. A name that is too long there is cut."""

    def make_device(user_id: str, device_id: str, display_name: str | None) -> Deferred[bool]:
        """Make a device, or rename the existing device of this identifier, which keeps its keys.

        :param display_name: cut if it is too long there; ``None`` leaves an existing name as it
            is.
        :return: fires with whether the device is new. Fails with
            :class:`~synapse_login_module.errors.AccountRefused` when the homeserver takes no such
            ``device_id``.
        """

    def delete_device(user_id: str, device_id: str) -> Deferred[None]:
        """Delete a device with its keys, if it exists. Its tokens are refused from then on."""

    def allow_cross_signing_reset(user_id: str) -> Deferred[None]:
        """Let a user replace the keys of cross-signing, once and within a short time."""

    def owns_user(as_token: str, user_id: str) -> Deferred[bool]:
        """Check whether a token is that of an application service that may act as a user.

        :return: fires with whether it is, and the user exists.
        """

    def forget_tokens(user_id: str, device_id: str | None) -> Deferred[None]:
        """Make the homeserver ask about the tokens of a device again at their next use.

        Without this, a homeserver may accept a token for some time after it was replaced. Where
        the homeserver offers no way to do this, it fires at once.

        :param device_id: ``None`` for all devices of the user.
        """

    def check() -> Deferred[str | None]:
        """Check that the homeserver is there and delegates to this server, with the same secret.

        :return: fires with what is wrong, as one line for the log, or with ``None``.
        """


class IDelegatedStore(Interface):
    """What a token store keeps for a homeserver that delegates to this server.

    A token store that provides this notes, in the transaction that ends a session for good, that
    the session's device has to be deleted at the homeserver. A session ends for good when it is
    revoked, and when the row of a session that ended otherwise is pruned. A note is removed in the
    transaction that begins a newer session on that device.

    ``ITokenStore.issue`` then needs a device that is reserved and has not been leased since.
    Otherwise it fails with :class:`~synapse_login_module.errors.HomeserverUnavailable`, and nothing
    is changed. So a session never begins on a device that a server may have deleted. This goes by
    the clocks of the servers that share the store, and by calls to the homeserver that take less
    than the half minute of a claim.

    Every method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def reserve_name(user_id: str, claim: Claim) -> Deferred[None]:
        """Reserve a user ID whose account is about to be made, for the account of a claim.

        A reservation lasts ten minutes, and is renewed by the same account. It outlives a server
        that dies between the two steps. It ends with the link of the user ID. The link that an
        application service's login made is removed: an application service may act as people who
        have not logged in yet.

        :return: fails with :class:`~synapse_login_module.errors.AccountNotLinked` when the user ID
            or the claim has another link, or the user ID is reserved for another account.
        """

    def require_name(user_id: str, claim: Claim) -> Deferred[None]:
        """Check that a user ID could be reserved for the account of a claim, changing nothing.

        :return: fails as :meth:`reserve_name` would.
        """

    def has_reserved_name(user_id: str, claim: Claim) -> Deferred[bool]:
        """Find out whether a user ID is reserved for an account, under any name of its provider."""

    def withdraw_name(user_id: str, claim: Claim) -> Deferred[None]:
        """End the reservation of a user ID, if it is for the account of this claim."""

    def reserve_device(user_id: str, device_id: str, owed: bool) -> Deferred[bool]:
        """Note that a device is about to be made, for a session that begins within a minute.

        Until then the device is not deleted. If no session begins on it, it is deleted afterwards
        if ``owed``, or if its deletion was owed before.

        :param owed: whether the device is surely new, as its identifier has just been generated.
        :return: fires with ``True``. Fires with ``False``, and nothing noted, while the device is
            leased to be deleted.
        """

    def withdraw_device(user_id: str, device_id: str, made: bool) -> Deferred[None]:
        """End the reservation of a device, on which no session began.

        :param made: whether the homeserver has said that the device is new. It is then to be
            deleted now. Otherwise it may be made a little later still, so a device that is ``owed``
            is deleted after the minute. If it is leased meanwhile, it may have been made after its
            deletion, so it is deleted once more when that lease has ended.
        """

    def delete_device(user_id: str, device_id: str) -> Deferred[None]:
        """End the session of a device, if there is one, and note that the device is to be deleted.

        It is noted even if there is no session. It is deleted now, unless it is reserved: then when
        its reservation ends without a session.
        """

    def lease_deletions(limit: int) -> Deferred[list[DeviceDeletion]]:
        """Lease devices whose deletion is due, for half a minute; those due longest come first.

        No other server gets them in that time, and no session begins on them. Notes of devices that
        have a session are removed instead.

        :param limit: the most devices to lease.
        :return: fires with the leased devices.
        """

    def finish_deletion(deletion: DeviceDeletion) -> Deferred[None]:
        """Remove the note of a leased deletion, which has been carried out.

        It has no effect after the lease has ended and the device was leased or reserved again, or
        after the device was withdrawn.
        """

    def postpone_deletion(deletion: DeviceDeletion, seconds: float) -> Deferred[None]:
        """Give back a leased deletion, to be leased again after some seconds at the earliest.

        It has no effect where :meth:`finish_deletion` has none. The device can be reserved at once.
        """

    def owed_deletions() -> Deferred[OwedDeletions]:
        """Count the deletions that are due, also those that are leased or postponed."""
