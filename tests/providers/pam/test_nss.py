"""Tests for the name service."""

from __future__ import annotations

import errno
import grp
import pwd
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.providers.pam import nss
from synapse_login_module.providers.pam.nss import (
    UnixUser,
    groups_of,
    has_locked_password,
    number_of_group,
    user_named,
    user_numbered,
)
from synapse_login_module.providers.pam.users import UnixUsers

ALICE = UnixUser("alice", 1001, 1001)


class RealTests(SynchronousTestCase):
    """The name service of this system."""

    def test_users(self) -> None:
        """It finds every user that Python finds, by name and by number, and no other."""
        for entry in pwd.getpwall():
            user = user_named(entry.pw_name)
            assert user is not None
            self.assertEqual(user[:3], (entry.pw_name, entry.pw_uid, entry.pw_gid))
            self.assertEqual(user_numbered(entry.pw_uid), user)
            self.assertIn(entry.pw_gid, groups_of(user))
        for name in ("no-such-user", "", "é", "\udcff", "x" * 5000):
            self.assertIsNone(user_named(name), name)
        self.assertIsNone(user_numbered(3_999_999_999))

    def test_groups(self) -> None:
        """It finds the groups, and no others."""
        for entry in grp.getgrall():
            self.assertEqual(number_of_group(entry.gr_name), entry.gr_gid)
        self.assertIsNone(number_of_group("no-such-group"))

    def test_superuser(self) -> None:
        """The superuser is never an account, whatever the lowest number is."""
        self.assertIsNone(UnixUsers(0).named("root"))
        self.assertIsNone(UnixUsers(0).of_subject("id:0"))


class LibraryTests(SynchronousTestCase):
    """What the C library may answer."""

    def answer(self, *codes: int) -> list[int]:
        """Have each call answer so, in turn; the sizes of the buffers that it gets."""
        given = list(codes)
        sizes: list[int] = []

        def function(key: Any, entry: Any, buffer: Any, size: Any, found: Any) -> int:
            sizes.append(size.value)
            return given.pop(0)

        names = ("getpwnam_r", "getpwuid_r", "getgrnam_r", "getspnam_r")
        self.patch(nss, "_LIBC", SimpleNamespace(**dict.fromkeys(names, function)))
        return sizes

    def test_outage(self) -> None:
        """A user who cannot be found since the name service is down is an outage, not unknown."""
        for look_up in (
            lambda: user_named("alice"),
            lambda: user_numbered(1001),
            lambda: number_of_group("matrix"),
            lambda: UnixUsers(1000, ["matrix"], lambda name: ALICE).named("alice"),
        ):
            # sssd and nslcd that do not run are ENOENT.
            for code in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
                self.answer(code)
                with self.assertRaises(ProviderUnavailable) as raised:
                    look_up()
                self.assertIn("the name service is down", str(raised.exception))

    def test_outage_of_groups(self) -> None:
        """A member whose groups are missing since the name service is down has not left them."""

        def number_of(name: str) -> int:
            if name != "matrix":  # sssd's library keeps what was found while sssd ran
                raise ProviderUnavailable("the name service is down")
            return 1005

        self.patch(nss, "number_of_group", number_of)
        self.patch(nss, "groups_of", lambda user: {user.gid})
        with self.assertRaises(ProviderUnavailable):
            UnixUsers(1000, ["matrix"], lambda name: ALICE).named("alice")

    def test_no_group(self) -> None:
        """If none of the groups exists, nothing follows about their members."""
        self.answer(0, 0)
        users = UnixUsers(1000, ["matriks", "chat"], lambda name: ALICE)
        with self.assertRaises(ProviderUnavailable) as raised:
            users.named("alice")
        self.assertEqual(str(raised.exception), "there is no group matriks or chat")

    def test_unknown(self) -> None:
        """No entry and no error is an unknown user."""
        self.answer(0, 0)
        self.assertIsNone(user_named("alice"))
        self.assertIsNone(number_of_group("matrix"))

    def test_long(self) -> None:
        """An entry that needs a longer buffer is asked for again, with an end."""
        sizes = self.answer(errno.ERANGE, errno.ERANGE, 0)
        self.assertIsNone(user_named("alice"))
        self.assertEqual(sizes, sorted(set(sizes)))
        self.answer(*[errno.ERANGE] * 5)
        with self.assertRaises(ProviderUnavailable):
            user_named("alice")

    def test_no_permission(self) -> None:
        """A password that may not be read counts as not locked."""
        self.answer(errno.EACCES)
        self.assertFalse(has_locked_password(ALICE))
