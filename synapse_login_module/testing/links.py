"""The contract of token stores that keep links, as every store of the standalone server does."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredList
from zope.interface.verify import verifyObject

from synapse_login_module.errors import AccountNotLinked, LinkTaken, UnknownToken
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, Link, Login
from synapse_login_module.testing.sessions import refresh
from synapse_login_module.testing.stores import StoreContract

_ALICE = "@alice:example.com"
_BOB = "@bob:example.com"
_CLAIM = Claim(("ldap",), "entryUUID:1")
_LINK = Link(_ALICE, "ldap", "entryUUID:1")


class LinksContract(StoreContract):
    """The contract of :class:`~synapse_login_module.interfaces.ILinks`, for a token store.

    It covers what logins and refreshes do with links too.
    """

    async def _links(self, **policy: int | None) -> Any:
        """Make a store, which provides both ``ITokenStore`` and ``ILinks``."""
        store, _ = await self._store(**policy)
        return store

    async def test_links_interface(self) -> None:
        """It provides the interface, and has no links at first."""
        store = await self._links()
        verifyObject(ILinks, store)
        self.assertEqual(await store.links(), [])
        self.assertIsNone(await store.link_of(_ALICE))
        self.assertIsNone(await store.linked_user(_CLAIM))

    async def test_first_login(self) -> None:
        """The first login of an account links it; later logins find the link."""
        store = await self._links()
        for _ in range(2):
            login = await _log_in(store, _ALICE, _CLAIM)
            self.assertEqual(login.user_id, _ALICE)
        self.assertEqual(await store.links(), [_LINK])
        self.assertEqual(await store.link_of(_ALICE), _LINK)
        self.assertEqual(await store.linked_user(_CLAIM), _ALICE)
        self.assertEqual(len(await store.sessions(_ALICE)), 2)

    async def test_other_accounts(self) -> None:
        """Another account gets no session of a linked user ID.

        Another account differs in its subject, in the case of its subject, or in its provider.
        """
        store = await self._links()
        await _log_in(store, _ALICE, _CLAIM)
        for other in (
            Claim(("ldap",), "entryUUID:2"),
            Claim(("ldap",), "entryuuid:1"),
            Claim(("sql",), "entryUUID:1"),
        ):
            with self.assertRaises(AccountNotLinked) as raised:
                await _log_in(store, _ALICE, other)
            self.assertEqual(raised.exception.user_id, _ALICE)
            self.assertIn("links relink", raised.exception.setting)
            self.assertTrue(raised.exception.problem)
        self.assertEqual(await store.links(), [_LINK])
        self.assertEqual(len(await store.sessions(None)), 1)

    async def test_linked_to_another_user_id(self) -> None:
        """A linked account logs in as the linked user, even after it was renamed."""
        store = await self._links()
        await _log_in(store, _ALICE, _CLAIM)
        login = await _log_in(store, "@alice-smith:example.com", _CLAIM, "PHONE")
        self.assertEqual(login.user_id, _ALICE)
        session = await store.session_for_access_token(login.tokens.access_token, False)
        self.assertEqual((session.user_id, session.device_id), (_ALICE, "PHONE"))
        self.assertEqual(await store.links(), [_LINK])

    async def test_linked_goes_before_its_new_name(self) -> None:
        """A linked account logs in as the linked user, even under another's name."""
        store = await self._links()
        await _log_in(store, _ALICE, _CLAIM)
        await _log_in(store, _BOB, Claim(("ldap",), "entryUUID:2"))
        self.assertEqual((await _log_in(store, _BOB, _CLAIM)).user_id, _ALICE)
        self.assertEqual(len(await store.links()), 2)

    async def test_former_names(self) -> None:
        """A provider's links are found under its former names."""
        store = await self._links()
        await _log_in(store, _ALICE, _CLAIM)
        renamed = Claim(("directory", "ad", "ldap"), "entryUUID:1")
        self.assertEqual(await store.linked_user(renamed), _ALICE)
        self.assertIsNone(await store.linked_user(Claim(("directory",), "entryUUID:1")))
        self.assertEqual((await _log_in(store, _BOB, renamed)).user_id, _ALICE)
        self.assertEqual(await store.links(), [_LINK])

    async def test_several_names(self) -> None:
        """Of links under several names of one provider, the link under the newest name counts."""
        store = await self._links()
        await store.link(_LINK, False)
        await store.link(Link(_BOB, "directory", "entryUUID:1"), False)
        for names, user_id in ((("directory", "ldap"), _BOB), (("ldap", "directory"), _ALICE)):
            claim = Claim(names, "entryUUID:1")
            self.assertEqual(await store.linked_user(claim), user_id)
            self.assertEqual((await _log_in(store, "@c:example.com", claim)).user_id, user_id)

    async def test_nothing_to_link(self) -> None:
        """A login without a claim links nothing, and a login with a login token links nothing."""
        store = await self._links()
        await store.issue(_ALICE, None, None, True, True)
        made = await store.make_login_token(_ALICE)
        await store.issue(_ALICE, None, None, True, True, made.token)
        made = await store.make_login_token(_ALICE)
        await store.issue(_ALICE, None, None, True, True, made.token, _CLAIM)
        self.assertEqual(await store.links(), [])
        self.assertEqual(len(await store.sessions(_ALICE)), 3)

    async def test_owners_link(self) -> None:
        """Presenting a refresh token returns the link of its user, or None without one."""
        store = await self._links()
        unlinked = await store.issue(_BOB, None, None, True, True)
        linked = await _log_in(store, _ALICE, _CLAIM)
        pair = linked.tokens
        for _ in range(3):
            for _ in range(2):
                self.assertEqual((await store.present(pair.refresh_token)).session.link, _LINK)
            pair = await refresh(store, pair.refresh_token, pair.access_token, True)
        self.assertIsNone((await store.present(unlinked.tokens.refresh_token)).session.link)

    async def test_two_at_once(self) -> None:
        """Of two accounts of one name that log in first at once, one is linked and logs in."""
        store = await self._links()
        claims = [Claim(("ldap",), f"entryUUID:{number % 2}") for number in range(8)]
        results = await _at_once([_log_in(store, _ALICE, claim) for claim in claims])
        won = {claim for claim, error in zip(claims, results, strict=True) if error is None}
        self.assertEqual(len(won), 1)
        self.assertEqual(results.count(AccountNotLinked), 4)
        self.assertEqual({link.subject for link in await store.links()}, {won.pop().subject})
        self.assertEqual(len(await store.sessions(_ALICE)), 4)

    async def test_one_under_two_names_at_once(self) -> None:
        """Concurrent first logins of one account under two names all log in as one user."""
        store = await self._links()
        logins = [_log_in(store, (_ALICE, _BOB)[number % 2], _CLAIM) for number in range(8)]
        self.assertEqual(await _at_once(logins), [None] * 8)
        (link,) = await store.links()
        self.assertEqual({each.user_id for each in await store.sessions(None)}, {link.user_id})

    async def test_link(self) -> None:
        """A link is inserted if neither the user ID nor the account has another link."""
        store = await self._links()
        for _ in range(2):
            await store.link(_LINK, False)
        other = Link(_BOB, "ldap", "entryUUID:2")
        await store.link(other, False)
        for taken in (
            Link(_ALICE, "ldap", "entryUUID:3"),
            Link("@carol:example.com", "ldap", "entryUUID:1"),
            Link(_ALICE, "ldap", "entryUUID:2"),
        ):
            with self.assertRaises(LinkTaken):
                await store.link(taken, False)
        self.assertEqual(await store.links(), [_LINK, other])
        await store.link(Link("@carol:example.com", "sql", "entryUUID:1"), False)
        self.assertEqual(len(await store.links()), 3)

    async def test_replace(self) -> None:
        """With ``replace``, other links of the user ID and of the account are replaced."""
        store = await self._links()
        await _log_in(store, _ALICE, _CLAIM)
        await _log_in(store, _BOB, Claim(("ldap",), "entryUUID:2"))
        changed = Link(_ALICE, "ldap", "entryUUID:2")
        await store.link(changed, True)
        self.assertEqual(await store.links(), [changed])
        with self.assertRaises(AccountNotLinked):
            await _log_in(store, _ALICE, _CLAIM)
        login = await _log_in(store, _BOB, Claim(("ldap",), "entryUUID:2"))
        self.assertEqual(login.user_id, _ALICE)

    async def test_unlink(self) -> None:
        """After a link was deleted, the user ID can be linked again. Its sessions stay."""
        store = await self._links()
        login = await _log_in(store, _ALICE, _CLAIM)
        self.assertEqual(await store.unlink(_ALICE), _LINK)
        self.assertIsNone(await store.unlink(_ALICE))
        self.assertEqual(await store.links(), [])
        await store.session_for_access_token(login.tokens.access_token, False)
        other = Claim(("sql",), "7")
        await _log_in(store, _ALICE, other)
        self.assertEqual(await store.linked_user(other), _ALICE)

    async def test_login_tokens_end_with_the_link(self) -> None:
        """The login tokens of a user ID become invalid when its link ends."""
        for change in ("unlink", "relink"):
            store = await self._links()
            await _log_in(store, _ALICE, _CLAIM)
            made = await store.make_login_token(_ALICE)
            bobs = await store.make_login_token(_BOB)
            if change == "unlink":
                await store.unlink(_ALICE)
            else:
                await store.link(Link(_ALICE, "ldap", "entryUUID:2"), True)
            with self.assertRaises(UnknownToken, msg=change):
                await store.login_token_owner(made.token)
            self.assertEqual(await store.login_token_owner(bobs.token), _BOB)

    async def test_order(self) -> None:
        """Links are listed in the order of their user IDs, and their text is unchanged."""
        store = await self._links()
        links = [
            Link("@a'b\"c:example.com", "a.b-c", 'cn=Ann "O\'Neil", ou=\\2b {x} % $1'),
            Link("@b:example.com", "NULL", "NULL"),
            Link("@c:example.com", "ldap", "é\U0001f916 "),
        ]
        for link in reversed(links):
            await store.link(link, False)
        self.assertEqual(await store.links(), links)
        for link in links:
            self.assertEqual(
                await store.linked_user(Claim((link.provider,), link.subject)), link[0]
            )


def _log_in(store: Any, user_id: str, claim: Claim, device_id: str | None = None) -> Any:
    login: Login = store.issue(user_id, device_id, None, True, True, claim=claim)
    return login


async def _at_once(asked: list[Any]) -> list[type | None]:
    """Wait for all; return ``None`` for each success, and the class of the error otherwise."""
    results = await DeferredList(asked, consumeErrors=True)
    return [None if good else result.type for good, result in results]
