"""The contract of token stores that hold the fingerprints of their keys."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from synapse_login_module.errors import ExpiredToken, KeyUnavailable
from synapse_login_module.interfaces import ITokenKeys
from synapse_login_module.testing.sessions import refresh
from synapse_login_module.testing.stores import StoreContract


class TokenKeysContract(StoreContract):
    """The contract of :class:`~synapse_login_module.interfaces.ITokenKeys`, for a token store.

    The store under test needs exactly one key.
    """

    async def test_keys_interface(self) -> None:
        """It provides the interface, and its methods return Deferreds."""
        store: Any = (await self._store())[0]
        verifyObject(ITokenKeys, store)
        listing = store.token_keys()
        self.assertIsInstance(listing, Deferred)
        self.assertEqual(await listing, [])

    async def test_require_key(self) -> None:
        """To check whether the key can sign shares no key."""
        store: Any = (await self._store())[0]
        await store.require_token_key()
        self.assertEqual(await store.token_keys(), [])
        await store.share_token_keys()
        await store.require_token_key()

    async def test_shared(self) -> None:
        """The store knows a key once it has been shared or has signed, and does not change it."""
        for signs in (True, False):
            store: Any = (await self._store())[0]
            if signs:
                await store.issue("@alice:example.com", None, None, True, True)
            else:
                await store.share_token_keys()
            (key,) = await store.token_keys()
            self.assertTrue(key.fingerprint)
            self.assertIs(key.retired, False)
            await store.share_token_keys()
            await store.issue("@alice:example.com", None, None, True, True)
            self.assertEqual(await store.token_keys(), [key])

    async def test_retired(self) -> None:
        """A retired key signs nothing, and its tokens are invalid. The sessions live on."""
        store, clock = await self._store()
        keys: Any = store
        login = await store.issue("@alice:example.com", "PHONE", None, True, True)
        (key,) = await keys.token_keys()
        self.assertIs(await keys.retire_token_key(key.key_id + 1), False)
        for _ in range(2):
            self.assertIs(await keys.retire_token_key(key.key_id), True)
        self.assertEqual(await keys.token_keys(), [key._replace(retired=True)])
        clock.advance(60)
        await keys.share_token_keys()
        self.assertEqual(await keys.token_keys(), [key._replace(retired=True)])
        with self.assertRaises(KeyUnavailable):
            await store.issue("@alice:example.com", None, None, True, True)
        with self.assertRaises(KeyUnavailable):
            await keys.require_token_key()
        with self.assertRaises(KeyUnavailable):
            await store.make_login_token("@alice:example.com")
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(login.tokens.access_token, True)
        with self.assertRaises(ExpiredToken):
            await refresh(store, login.tokens.refresh_token or "", None, False)
        (session,) = await store.sessions(None)
        self.assertEqual(session.device_id, "PHONE")
