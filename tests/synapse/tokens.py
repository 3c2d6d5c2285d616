"""What the tokens must do whatever the database: mixed into the tests on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.support.client import password_login
from tests.support.response import Response
from tests.support.synapse.profile import PASSWORD
from tests.support.waiting import together
from tests.synapse.case import HomeserverCase, fresh, user_id
from tests.synapse.client import Pair

_LONG = 3_600_000


class TokenCase(HomeserverCase):
    """Helpers for tests of tokens."""

    def age(self, pair: Pair) -> None:
        """Have the last rotation of a session be long ago."""
        self.server.query(
            "UPDATE access_tokens SET last_validated = last_validated - ?"
            " WHERE user_id = ? AND device_id = ?",
            _LONG,
            pair.user_id,
            pair.device_id,
        )

    def chained_tokens(self, pair: Pair) -> int:
        """How many access tokens of a device can still be refreshed, and are not expired."""
        ((count,),) = self.server.query(
            "SELECT COUNT(*) FROM access_tokens AS a JOIN refresh_tokens AS r"
            " ON r.id = a.refresh_token_id WHERE a.user_id = ? AND a.device_id = ?"
            " AND r.next_token_id IS NULL",
            pair.user_id,
            pair.device_id,
        )
        return int(count)

    async def rotate_often(self, pair: Pair, times: int) -> list[Pair]:
        """Refresh strictly, again and again; all the pairs, the given one first."""
        pairs = [pair]
        for _ in range(times):
            pairs.append(await self.client.rotate(pairs[-1]))
        return pairs

    async def delete_interactively(self, access: str, path: str, user: str) -> Response:
        """Do what needs the password again, with the first and the second request."""
        url = f"{self.client.own}/_matrix/client/v3{path}"
        method = "POST" if path.startswith("/account") else "DELETE"
        first = await self.client.send(method, url, {}, token=access)
        self.assertEqual(first.status, 401, str(first))
        auth = password_login(user, PASSWORD, session=first.json["session"])
        return await self.client.send(method, url, {"auth": auth}, token=access)

    async def assert_ends(
        self, act: Callable[[Pair, str], Awaitable[Response]], expected: int = 200
    ) -> None:
        """An action ends a session that has been refreshed, and forgets it.

        :param act: takes the pair and an administrator's access token.
        """
        admin = await self.administrator()
        name = self.new_user()
        pair = await self.client.rotate(await self.client.pair(name, device_id=fresh("DEVICE")))
        await self.assert_live(pair)
        answer = await act(pair, admin)
        self.assertEqual(answer.status, expected, str(answer))
        await self.assert_dead(pair.access, soft_logout=False)
        await self.assert_not_refreshable(pair)
        left = self.server.query(
            "SELECT session_id FROM synapse_login_sessions WHERE user_id = ?", pair.user_id
        )
        self.assertEqual(left, [])


class TokenTests(TokenCase):
    """The rules of the token table, in a real Synapse."""

    # /tokenrefresh.

    async def test_strict_refresh(self) -> None:
        """After /tokenrefresh the old pair is dead everywhere, and the new one works everywhere."""
        for base in (self.client.module, self.client.own):
            old = await self.client.pair(base=base)
            await self.assert_live(old)
            answer = await self.client.tokenrefresh(old)
            new = old.then(answer)
            self.assertEqual(set(answer.json), {"access_token", "refresh_token", "expires_in_ms"})
            self.assertEqual(answer.header("Cache-Control"), "no-store")
            self.assertNotEqual((old.access, old.refresh), (new.access, new.refresh))
            await self.assert_dead(old.access, soft_logout=True)
            own = await self.client.own_refresh(old)
            self.assert_error(own, 403, "M_FORBIDDEN")
            again = await self.client.tokenrefresh(old, new.access)
            self.assert_error(again, 403, "M_FORBIDDEN")
            await self.assert_live(new)
            await self.assert_live(await self.client.rotate(new))

    async def test_new_pair_at_the_own_refresh(self) -> None:
        """Synapse's own /refresh takes what /tokenrefresh gave."""
        new = await self.client.rotate(await self.client.pair())
        await self.assert_live(new.then(await self.client.own_refresh(new)))

    async def test_chain_through_all_endpoints(self) -> None:
        """A session goes on through all three handlers, in any order of two."""
        pair = await self.client.pair()
        strict, lenient, own = (
            self.client.tokenrefresh,
            self.client.refresh,
            self.client.own_refresh,
        )
        for step in (strict, strict, own, own, strict, lenient, lenient, own, lenient, strict):
            pair = pair.then(await step(pair))
            await self.assert_live(pair)
        self.assertEqual(self.chained_tokens(pair), 1)

    async def test_expired_access_token(self) -> None:
        """The superseded access token is good enough to name the session for /tokenrefresh."""
        old = await self.client.pair()
        new = await self.client.rotate(old)
        answer = await self.client.tokenrefresh(new, access=old.access)
        await self.assert_live(new.then(answer))

    async def test_access_token_of_another_session(self) -> None:
        """With the access token of another session nothing is refreshed and nothing consumed."""
        pair, other = await self.client.pair(), await self.client.pair()
        self.assert_error(await self.client.tokenrefresh(pair, other.access), 403, "M_FORBIDDEN")
        strange = await self.client.tokenrefresh(pair, "syt_Zm9v_xxxxxxxxxxxxxxxxxxxx_1BcDeF")
        self.assert_error(strange, 401, "M_UNKNOWN_TOKEN")
        await self.assert_live(pair)
        await self.assert_live(await self.client.rotate(pair))

    async def test_no_access_token(self) -> None:
        """Without an access token /tokenrefresh answers 401 and consumes nothing."""
        pair = await self.client.pair()
        body = {"refresh_token": pair.refresh}
        answer = await self.client.post(self.client.module, "/tokenrefresh", body)
        self.assert_error(answer, 401, "M_MISSING_TOKEN")
        await self.client.rotate(pair)

    # What ends a session.

    async def test_logout(self) -> None:
        """Logging out at Synapse kills the refresh token."""

        async def log_out(pair: Pair, admin: str) -> Response:
            return await self.client.post(self.client.own, "/logout", {}, pair.access)

        await self.assert_ends(log_out)

    async def test_logout_all(self) -> None:
        """Logging out everywhere kills the refresh token."""

        async def log_out(pair: Pair, admin: str) -> Response:
            return await self.client.post(self.client.own, "/logout/all", {}, pair.access)

        await self.assert_ends(log_out)

    async def test_device_deleted(self) -> None:
        """Deleting the device kills the refresh token."""

        async def delete(pair: Pair, admin: str) -> Response:
            path = f"/devices/{pair.device_id}"
            return await self.delete_interactively(pair.access, path, pair.user_id)

        await self.assert_ends(delete)

    async def test_deactivated(self) -> None:
        """Deactivating one's account kills the refresh token."""

        async def deactivate(pair: Pair, admin: str) -> Response:
            return await self.delete_interactively(pair.access, "/account/deactivate", pair.user_id)

        await self.assert_ends(deactivate)

    async def test_deactivated_by_admin(self) -> None:
        """Deactivating an account by the admin API kills the refresh token."""

        async def deactivate(pair: Pair, admin: str) -> Response:
            return await self.client.admin("POST", f"/v1/deactivate/{pair.user_id}", {}, admin)

        await self.assert_ends(deactivate)

    async def test_device_deleted_by_admin(self) -> None:
        """Deleting the device by the admin API kills the refresh token."""

        async def delete(pair: Pair, admin: str) -> Response:
            path = f"/v2/users/{pair.user_id}/devices/{pair.device_id}"
            return await self.client.admin("DELETE", path, None, admin)

        await self.assert_ends(delete)

    async def test_devices_deleted_by_admin(self) -> None:
        """Deleting several devices by the admin API kills the refresh token."""

        async def delete(pair: Pair, admin: str) -> Response:
            path = f"/v2/users/{pair.user_id}/delete_devices"
            return await self.client.admin("POST", path, {"devices": [pair.device_id]}, admin)

        await self.assert_ends(delete)

    async def test_password_reset_by_admin(self) -> None:
        """Resetting the password by the admin API kills the refresh token."""

        async def reset(pair: Pair, admin: str) -> Response:
            body = {"new_password": fresh("another-password-"), "logout_devices": True}
            return await self.client.admin(
                "POST", f"/v1/reset_password/{pair.user_id}", body, admin
            )

        await self.assert_ends(reset)

    async def test_same_device(self) -> None:
        """Logging in on a device ends the device's earlier session, and no other."""
        first = await self.client.pair(device_id=fresh("DEVICE"))
        other = await self.client.pair(device_id=fresh("DEVICE"))
        second = await self.client.pair(device_id=first.device_id)
        self.assertEqual((await self.client.whoami(first.access)).status, 401)
        await self.assert_not_refreshable(first, second.access)
        for pair in (second, other):
            await self.assert_live(pair)
            await self.assert_live(await self.client.rotate(pair))

    async def test_same_device_after_refresh(self) -> None:
        """It ends an earlier session that was refreshed, too; a replay then ends no session."""
        first = await self.rotate_often(await self.client.pair(device_id=fresh("DEVICE")), 3)
        second = await self.client.pair(device_id=first[-1].device_id)
        self.assertEqual((await self.client.whoami(first[-1].access)).status, 401)
        for old in first:
            self.assert_error(
                await self.client.tokenrefresh(old, second.access), 403, "M_FORBIDDEN"
            )
        await self.assert_live(second)
        await self.assert_live(await self.client.rotate(second))

    # Reuse.

    async def test_reuse_within_the_interval(self) -> None:
        """A second use soon after the first is refused, and the session lives."""
        old, new = await self.rotate_often(await self.client.pair(), 1)
        self.assert_error(await self.client.tokenrefresh(old), 403, "M_FORBIDDEN")
        answer = await self.client.refresh(old)
        self.assert_error(answer, 401, "M_UNKNOWN_TOKEN", soft_logout=True)
        await self.assert_live(new)
        await self.assert_live(await self.client.rotate(new))

    async def test_reuse_after_the_interval(self) -> None:
        """A second use later revokes the session, at either endpoint; the device stays."""
        watcher = await self.client.pair()
        for replay in (self.client.tokenrefresh, self.client.refresh):
            old, new = await self.rotate_often(await self.client.pair(), 1)
            self.age(new)
            self.assertIn((await replay(old)).status, (401, 403))
            await self.assert_revoked(new)
            self.assertIn(new.device_id, await self.client.devices(watcher.access))
            self.assertIn("outcome=refused reason=reused_token", self.logged())

    async def test_reuse_of_any_age(self) -> None:
        """Any earlier refresh token, the login's own included, revokes the session."""
        watcher = await self.client.pair()
        for base in (self.client.module, self.client.own):
            for index in (0, 1, 3):
                pairs = await self.rotate_often(await self.client.pair(base=base), 5)
                answer = await self.client.tokenrefresh(pairs[index], pairs[-1].access)
                self.assert_error(answer, 403, "M_FORBIDDEN")
                await self.assert_revoked(pairs[-1])
                self.assertIn(pairs[-1].device_id, await self.client.devices(watcher.access))

    async def test_reuse_of_an_old_one_leniently(self) -> None:
        """So it does at /refresh."""
        pairs = await self.rotate_often(await self.client.pair(), 3)
        # The pairs after it too: each client may keep its keys.
        for pair in pairs:
            answer = await self.client.refresh(pair)
            self.assert_error(answer, 401, "M_UNKNOWN_TOKEN", soft_logout=True)
        await self.assert_revoked(pairs[-1])
        self.assert_error(await self.client.tokenrefresh(pairs[-1]), 403, "M_FORBIDDEN")

    async def test_reuse_after_revocation(self) -> None:
        """A replay after the revocation is refused like any; a new login on the device lives."""
        pairs = await self.rotate_often(await self.client.pair(device_id=fresh("DEVICE")), 3)
        await self.client.refresh(pairs[0])
        again = await self.client.pair(device_id=pairs[0].device_id)
        for old in pairs:
            self.assert_error(await self.client.tokenrefresh(old, again.access), 403, "M_FORBIDDEN")
        await self.assert_live(again)
        await self.client.rotate(again)

    async def test_forged_mark(self) -> None:
        """A token that was never issued revokes nothing, however much it looks like an old one."""
        pairs = await self.rotate_often(await self.client.pair(), 2)
        prefix, name, random, checksum = pairs[1].refresh.split("_")
        changed = ("a" if random[-1] != "a" else "b").join((random[:-1], ""))
        forged = "_".join((prefix, name, changed, checksum))
        answer = await self.client.post(self.client.module, "/refresh", {"refresh_token": forged})
        self.assert_error(answer, 401, "M_UNKNOWN_TOKEN")
        await self.assert_live(pairs[-1])
        await self.client.rotate(pairs[-1])

    async def test_mistyped(self) -> None:
        """A refresh token that is mistyped or cut off is refused, and its session lives."""
        pair = await self.client.rotate(await self.client.pair())
        prefix, name, random, checksum = pair.refresh.split("_")
        swapped = checksum[:-1] + ("0" if checksum[-1] != "0" else "1")
        for token in (
            pair.refresh[:-1],
            f"{pair.refresh}0",
            "_".join((prefix, name, random, swapped)),
            "_".join((prefix, name, f"0{random}", checksum)),
            "_".join(("syt", name, random, checksum)),
        ):
            body = {"refresh_token": token}
            answer = await self.client.post(self.client.module, "/refresh", body)
            self.assert_error(answer, 401, "M_UNKNOWN_TOKEN")
        await self.assert_live(pair)
        await self.client.rotate(pair)

    async def test_token_of_no_device(self) -> None:
        """The end of an administrator's access as the user leaves the user's sessions known."""
        admin = await self.administrator()
        pairs = await self.rotate_often(await self.client.pair(self.new_user()), 3)
        path = f"/v1/users/{pairs[0].user_id}/login"
        puppet = await self.client.admin("POST", path, {}, admin)
        token = puppet.json["access_token"]
        out = await self.client.post(self.client.own, "/logout", {}, token)
        self.assertEqual(out.status, 200, str(out))
        await self.assert_live(pairs[-1])
        await self.client.refresh(pairs[0])
        await self.assert_revoked(pairs[-1])

    # Races.

    async def test_race(self) -> None:
        """Of eight refreshes at once one wins, and its pair lives."""
        for _ in range(3):
            pair = await self.client.pair()
            answers = await together(*(self.client.tokenrefresh(pair) for _ in range(8)))
            won = [answer for answer in answers if answer.status == 200]
            self.assertEqual(len(won), 1, [str(answer) for answer in answers])
            for answer in answers:
                if answer is not won[0]:
                    self.assert_error(answer, 403, "M_FORBIDDEN")
            new = pair.then(won[0])
            await self.assert_live(new)
            self.assertEqual(self.chained_tokens(new), 1)
            await self.assert_live(await self.client.rotate(new))

    async def test_lenient_race(self) -> None:
        """Many lenient refreshes at once get one and the same pair."""
        for _ in range(4):
            pair = await self.client.pair()
            answers = await together(*(self.client.refresh(pair) for _ in range(16)))
            self.assertEqual({answer.status for answer in answers}, {200})
            pairs = {pair.then(answer) for answer in answers}
            self.assertEqual(len(pairs), 1)
            (new,) = pairs
            self.assertEqual(self.chained_tokens(new), 1)
            await self.assert_live(await self.client.rotate(new))

    async def test_race_with_the_own_refresh(self) -> None:
        """Strict refreshes against Synapse's own never leave two chains that go on."""
        outcomes = set()
        for round_ in range(16):
            pair = await self.client.pair()
            steps = [self.client.tokenrefresh, self.client.own_refresh]
            if round_ % 2:
                steps.reverse()
            answers = await together(*(step(pair) for step in steps))
            won = {
                (answer.json["access_token"], answer.json["refresh_token"])
                for answer in answers
                if answer.status == 200
            }
            self.assertTrue(won, [str(answer) for answer in answers])
            outcomes.add(tuple(answer.status for answer in answers))
            going_on = 0
            for access, refresh in won:
                each = Pair(pair.user_id, pair.device_id, access, refresh)
                answer = await self.client.tokenrefresh(each)
                going_on += answer.status == 200
            self.assertEqual(going_on, 1, f"{outcomes} {[str(answer) for answer in answers]}")
            self.assertLess((await self.client.own_refresh(pair)).status, 500)

    # /refresh.

    async def test_lenient_again(self) -> None:
        """The same refresh again gives the very same pair, until that is used."""
        old = await self.client.pair()
        first = old.then(await self.client.refresh(old))
        self.assertEqual(old.then(await self.client.refresh(old)), first)
        await self.assert_live(old)
        await self.assert_live(first)
        self.assert_error(await self.client.refresh(old), 401, "M_UNKNOWN_TOKEN")
        self.assert_error(await self.client.own_refresh(old), 403, "M_FORBIDDEN")
        await self.assert_live(first)
        self.age(first)
        self.assert_error(await self.client.refresh(old), 401, "M_UNKNOWN_TOKEN")
        await self.assert_revoked(first)

    async def test_lenient_then_strict(self) -> None:
        """After a lost lenient answer /tokenrefresh gives the same pair, and ends the old one."""
        old = await self.client.pair()
        first = old.then(await self.client.refresh(old))
        again = old.then(await self.client.tokenrefresh(old))
        self.assertEqual(again, first)
        await self.assert_dead(old.access, soft_logout=True)
        self.assert_error(await self.client.own_refresh(old), 403, "M_FORBIDDEN")
        self.assert_error(await self.client.tokenrefresh(old, again.access), 403, "M_FORBIDDEN")
        await self.assert_live(again)
        await self.client.rotate(again)

    async def test_own_then_strict(self) -> None:
        """After a lost answer of Synapse's own /refresh, /tokenrefresh gives the same pair."""
        old = await self.client.pair()
        first = old.then(await self.client.own_refresh(old))
        self.assertEqual(old.then(await self.client.tokenrefresh(old)), first)
        await self.assert_dead(old.access, soft_logout=True)
        await self.assert_live(await self.client.rotate(first))

    async def test_authorization_is_ignored(self) -> None:
        """/refresh looks at no Authorization header."""
        pair = await self.client.pair()
        body = {"refresh_token": pair.refresh}
        answer = await self.client.post(self.client.module, "/refresh", body, "rubbish")
        await self.assert_live(pair.then(answer))

    # The account, looked at again.

    async def test_locked_and_unlocked(self) -> None:
        """A locked account gets no new tokens, and cannot use those it has until it is unlocked."""
        name = self.new_user()
        pair = await self.client.rotate(await self.client.pair(name))
        self.change_user(name, locked=True)
        for refuse in (self.client.tokenrefresh, self.client.refresh):
            self.assert_error(await refuse(pair), 401, "M_USER_LOCKED", soft_logout=True)
        answer = await self.client.whoami(pair.access)
        self.assert_error(answer, 401, "M_USER_LOCKED", soft_logout=True)
        self.change_user(name, locked=False)
        await self.assert_live(await self.client.rotate(pair))

    async def test_locked_in_synapse(self) -> None:
        """So it is when the homeserver's administrator locks the account."""
        name = self.new_user()
        admin = await self.administrator()
        pair = await self.client.rotate(await self.client.pair(name))
        locked = await self.client.change_user(admin, name, locked=True)
        self.assertEqual(locked.status, 200, str(locked))
        for refuse in (self.client.tokenrefresh, self.client.refresh):
            self.assert_error(await refuse(pair), 401, "M_USER_LOCKED", soft_logout=True)
        await self.client.change_user(admin, name, locked=False)
        await self.assert_live(await self.client.rotate(pair))

    async def test_removed(self) -> None:
        """An account that is gone from the users file loses its session at the next refresh."""
        for replay, status in ((self.client.tokenrefresh, 403), (self.client.refresh, 401)):
            name = self.new_user()
            pair = await self.client.rotate(await self.client.pair(name))
            self.remove_user(name)
            self.assertEqual((await replay(pair)).status, status)
            await self.assert_revoked(pair)

    async def test_removed_with_a_local_password(self) -> None:
        """A linked account that is gone from the file has nothing of its local password."""
        name = self.new_user()
        theirs = await self.client.rotate(await self.client.pair(name))
        password = f"{name}-has-this-password"
        self.client.secrets.add(password)
        changed = await self.client.change_user(
            await self.administrator(), name, password=password, logout_devices=False
        )
        self.assertEqual(changed.status, 200, str(changed))
        self.remove_user(name)
        for base in (self.client.module, self.client.own):
            answer = await self.client.login(base, name, password)
            self.assert_error(answer, 403, "M_FORBIDDEN")
        self.assert_error(await self.client.tokenrefresh(theirs), 403, "M_FORBIDDEN")
        await self.assert_revoked(theirs)

    async def test_removed_before_it_was_linked(self) -> None:
        """One that an earlier version marked, and that has a local password, goes on with that.

        Its sessions end, as those of any account that is gone. A login with the local password, at
        either listener, makes it an account of the homeserver's own, whose sessions last.
        """
        for base in (self.client.module, self.client.own):
            name, password = await self.local_user()
            self.users = {**self.users, name: self.users["bob"]}
            self.write_users()
            self.server.query(
                "INSERT INTO user_external_ids (auth_provider, external_id, user_id)"
                " VALUES ('synapse_login_module', ?, ?)",
                name,
                user_id(name),
            )
            theirs = await self.client.rotate(await self.client.pair_with(name, password))
            self.remove_user(name)
            ours = await self.client.pair_with(name, password, base)
            await self.assert_revoked(theirs)
            for _ in range(2):
                ours = await self.client.rotate(ours)
                await self.assert_live(ours)
            second = await self.client.pair_with(name, password, base)
            await self.assert_live(await self.client.rotate(ours))
            await self.assert_live(await self.client.rotate(second))

    async def test_back_again(self) -> None:
        """A provider that knows the account once more has to go on knowing it."""
        name = self.new_user()
        await self.client.pair(name)
        self.remove_user(name)
        self.assert_error(await self.client.login(self.client.own, name), 403, "M_FORBIDDEN")
        self.users = {**self.users, name: self.users["bob"]}
        self.write_users()
        theirs = await self.client.rotate(await self.client.pair(name))
        self.remove_user(name)
        self.assert_error(await self.client.tokenrefresh(theirs), 403, "M_FORBIDDEN")
        await self.assert_revoked(theirs)

    async def test_deactivated_in_the_file(self) -> None:
        """So does one that is deactivated there."""
        name = self.new_user()
        pair = await self.client.rotate(await self.client.pair(name))
        self.change_user(name, deactivated=True)
        self.assert_error(await self.client.tokenrefresh(pair), 403, "M_FORBIDDEN")
        await self.assert_revoked(pair)

    async def test_local_user(self) -> None:
        """A local user who is unknown to all providers keeps the session."""
        name, password = await self.local_user()
        pair = await self.client.pair_with(name, password)
        self.assertEqual(pair.user_id, user_id(name))
        pairs = await self.rotate_often(pair, 3)
        await self.assert_live(pairs[-1])
        await self.assert_live(pairs[-1].then(await self.client.refresh(pairs[-1])))

    # Rubbish.

    async def test_rubbish(self) -> None:
        """Whatever stands in the place of a token, the answer is never a 5xx."""
        pair = await self.client.pair()
        rubbish = [
            *("", " ", "x", "_", "___", "syr___", "syr_YWxpY2U_x_y", "\0", f"{pair.refresh}\0"),
            *(
                f"\0{pair.refresh}",
                "\ud800",
                "\u00e9" * 40,
                "\U0001f600",
                "\u2028",
                "syr_" + "A" * 60_000,
            ),
            *("'; DROP TABLE refresh_tokens; --", "%", "%s", "%(a)s", "?", pair.access),
            pair.refresh.replace("_", "__"),
            "syr_////_zzzzzzzzzzzzzzzzzzzz_AAAAAA",
            f"{pair.refresh[:-1]}{'x' if pair.refresh[-1] != 'x' else 'y'}",
        ]
        for token in rubbish:
            body = {"refresh_token": token}
            strict = await self.client.post(self.client.module, "/tokenrefresh", body, pair.access)
            self.assert_error(strict, 403, "M_FORBIDDEN")
            lenient = await self.client.post(self.client.module, "/refresh", body)
            self.assert_error(lenient, 401, "M_UNKNOWN_TOKEN")
        shapes: list[object] = [1, None, ["x"], {}]
        for shape in shapes:
            wrong = {"refresh_token": shape}
            answer = await self.client.post(self.client.module, "/refresh", wrong)
            self.assert_error(answer, 400, "M_BAD_JSON")
        for query in ("%00", "%F0", "", "%E2%80%A8", "a" * 8000):
            url = f"{self.client.module}/_matrix/client/v3/tokenrefresh?access_token={query}"
            answer = await self.client.send("POST", url, {"refresh_token": pair.refresh})
            self.assert_error(answer, 401, "M_UNKNOWN_TOKEN" if query else "M_MISSING_TOKEN")
        await self.assert_live(pair)
        await self.client.rotate(pair)
