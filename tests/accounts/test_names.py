"""Tests for finding the users that an operator means."""

from __future__ import annotations

from itertools import combinations, product

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.accounts.names import address_in, alike, meant, the_one, user_id_of
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import fold

_NAMES = ("@a:x", "@A:x", "@\u00e4:x", "@\u00c4:x", "@k:x", "@\u212a:x")


class NameTests(SynchronousTestCase):
    """Names as they are typed."""

    def test_user_ids(self) -> None:
        """A bare name is of this server; a user of another one is refused."""
        for typed in ("Alice", "@Alice:here.example"):
            self.assertEqual(user_id_of(typed, "here.example"), "@Alice:here.example")
        for typed in ("@alice:there.example", "@alice"):
            self.assertRaises(ConfigError, user_id_of, typed, "here.example")

    def test_addresses(self) -> None:
        """What has an "@" elsewhere than in front is an address, folded as logins fold it."""
        self.assertEqual(address_in("Alice@Here.example"), "alice@here.example")
        for typed in ("alice", "@alice:here.example", "@a@b"):
            self.assertIsNone(address_in(typed))

    def test_alike(self) -> None:
        """Found are those, and only those, that differ in the case of ASCII letters; the one that
        is spelled alike comes first, and is alone when it was typed in full.
        """
        subsets = (names for size in range(len(_NAMES) + 1) for names in combinations(_NAMES, size))
        for known, typed in product(subsets, _NAMES):
            found = alike(typed, [*known, *known])
            self.assertEqual(set(found), {each for each in known if fold(each) == fold(typed)})
            self.assertEqual(len(found), len(set(found)))
            if typed in known:
                self.assertEqual(found[0], typed)
            self.assertEqual(meant(typed, typed, known), [typed] if typed in known else found)
            self.assertEqual(meant(typed[1:-2], typed, known), found)

    def test_the_one(self) -> None:
        """Of several the one is meant that is spelled as it was typed, and else none is."""
        found = ["@A:x", "@a:x"]
        self.assertEqual(the_one("A", found, "x"), "@A:x")
        self.assertEqual(the_one("b", ["@c:x"], "x"), "@c:x")
        self.assertIsNone(the_one("b", [], "x"))
        self.assertRaises(ConfigError, the_one, "b", found, "x")
