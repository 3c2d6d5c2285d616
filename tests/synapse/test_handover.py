"""What logs in without the module logs in with it, at its own ``/login`` too."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from ipaddress import ip_address

from twisted.trial.unittest import SkipTest

from tests.support.synapse.profile import PASSWORD, Profile
from tests.synapse.case import fresh, user_id
from tests.synapse.handover import (
    AFTER,
    AS_TOKEN,
    BEFORE,
    OTHER,
    OTHER_ADDRESS,
    OTHER_PASSWORD,
    OTHER_USER,
    HandoverCase,
    named,
)
from tests.synapse.logins import by_email

_PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha")


class OtherPasswordTests(HandoverCase):
    """Passwords that a module after this one checks."""

    profile = AFTER

    async def test_right(self) -> None:
        """They are good, and that module adds to the answer what it does at Synapse's own."""
        for name in (OTHER_USER, user_id(OTHER_USER)):
            answer = await self.assert_same(200, self.password(user=name))
            self.assertEqual(answer.json["com.example.more"], answer.json["device_id"])

    async def test_wrong(self) -> None:
        """Wrong ones, and unknown users, are refused as they are without that module."""
        for user in (OTHER_USER, "alice", fresh("nobody")):
            for password in ("wrong", OTHER_PASSWORD if user != OTHER_USER else ""):
                await self.assert_same(403, self.password(password, user))

    async def test_by_address(self) -> None:
        """So are they by an address that only that module knows."""
        for password, status in ((OTHER_PASSWORD, 200), ("wrong", 403)):
            body = {**self.password(password), "identifier": by_email(OTHER_ADDRESS)}
            await self.assert_same(status, body)

    async def test_by_bound_address(self) -> None:
        """And by one that the homeserver knows."""
        await self.client.post(self.client.module, "/login", self.password())
        address = await self.bind_email(OTHER_USER)
        for password, status in ((OTHER_PASSWORD, 200), ("wrong", 403)):
            body = {**self.password(password), "identifier": by_email(address)}
            await self.assert_same(status, body)

    async def test_asked_once(self) -> None:
        """That module is asked once, for the name as it was typed; the login has one line."""
        for user in ("Kermit9", OTHER_USER, user_id(OTHER_USER)):
            await self.client.login(self.client.module, user, "wrong")
        asked = re.findall("other asked for (.*)", self.logged())
        self.assertEqual(asked, ["Kermit9", OTHER_USER, user_id(OTHER_USER)])
        self.assertEqual(len(self.lines()), 3, self.lines())

    async def test_not_asked(self) -> None:
        """It is not asked for what a provider of this module accepts, or refuses for good."""
        for user in ("alice", "lock"):
            await self.client.login(self.client.module, user)
        self.assertNotIn("other asked", self.logged())

    async def test_outage(self) -> None:
        """While this module's provider cannot be reached, that module's users log in."""
        self.server.set_fault("unavailable")
        answer = await self.client.post(self.client.module, "/login", self.password())
        self.assertEqual(answer.status, 200, str(answer))
        down = await self.client.login(self.client.module)
        self.assert_error(down, 503, "M_UNKNOWN")

    async def test_device(self) -> None:
        """Sessions are this module's: one a device, refreshed by ``/tokenrefresh``."""
        device = fresh("DEVICE")
        first = await self.client.pair_with(OTHER_USER, OTHER_PASSWORD, device_id=device)
        second = await self.client.pair_with(OTHER_USER, OTHER_PASSWORD, device_id=device)
        self.assertEqual((await self.client.whoami(first.access)).status, 401)
        await self.assert_live(await self.client.rotate(second))

    async def test_locked(self) -> None:
        """An account that Synapse has locked is refused, in spite of the right password."""
        admin = await self.administrator()
        await self.client.post(self.client.module, "/login", self.password())
        await self.client.change_user(admin, OTHER_USER, locked=True)
        answers = [*await self.at_both(self.password()), *await self.at_both(self.secret())]
        await self.client.change_user(admin, OTHER_USER, locked=False)
        for answer in answers:
            self.assert_error(answer, 401, "M_USER_LOCKED", soft_logout=True)
        await self.assert_same(200, self.password())


class OtherPasswordBeforeTests(HandoverCase):
    """Passwords that a module before this one checks."""

    profile = BEFORE

    async def test_passwords(self) -> None:
        """Both modules' passwords are good; a wrong one is neither's."""
        await self.assert_same(200, self.password())
        await self.assert_same(200, self.password(PASSWORD, "alice"))
        await self.assert_same(403, self.password("wrong"))

    async def test_by_address(self) -> None:
        """So are they by address."""
        body = {**self.password(), "identifier": by_email(OTHER_ADDRESS)}
        await self.assert_same(200, body)

    async def test_asked_first(self) -> None:
        """That module is asked first, as it is at Synapse's own listener."""
        await self.assert_same(200, self.password(PASSWORD, "alice"))
        self.assertEqual(re.findall("other asked for (.*)", self.logged()), ["alice"] * 2)


class NoFallBackTests(HandoverCase):
    """``fall_back_to_local: false`` is about Synapse's own passwords."""

    profile = replace(AFTER, name="other-no-fall-back", module={"fall_back_to_local": False})

    async def test_other_passwords(self) -> None:
        """A later module's password is still accepted, and a local one is not."""
        name, password = await self.local_user()
        for listener in (self.client.own, self.client.module):
            answer = await self.client.post(listener, "/login", self.password())
            self.assertEqual(answer.status, 200, str(answer))
            refused = await self.client.login(listener, name, password)
            self.assert_error(refused, 403, "M_FORBIDDEN")


class OutageTests(HandoverCase):
    """A provider that cannot be reached is in no other module's way."""

    profile = AFTER

    async def test_other_passwords(self) -> None:
        """A later module's password is still accepted; if no module accepts, the outage is answered
        and not a wrong password.
        """
        self.server.set_fault("unavailable")
        self.addCleanup(self.server.set_fault, "")
        for listener in (self.client.own, self.client.module):
            answer = await self.client.post(listener, "/login", self.password())
            self.assertEqual(answer.status, 200, str(answer))
            down = await self.client.login(listener, "bob", "wrong")
            self.assertEqual(down.status, 503, str(down))

    async def test_local_passwords(self) -> None:
        """So is the local password of an account that is not linked; a wrong one is an outage."""
        name, password = await self.local_user()
        self.server.set_fault("unavailable")
        self.addCleanup(self.server.set_fault, "")
        for listener in (self.client.own, self.client.module):
            answer = await self.client.login(listener, name, password)
            self.assertEqual(answer.status, 200, str(answer))
            down = await self.client.login(listener, name, "wrong")
            self.assertEqual(down.status, 503, str(down))


class LineTests(HandoverCase):
    """What is logged of other types, at a server of its own: a network's lines are bounded."""

    profile = replace(AFTER, name="lines")

    async def test_lines(self) -> None:
        """Each has one line, with what is known, and the client's type is not in it."""
        device = fresh("DEVICE")
        base = self.client.module
        await self.client.post(base, "/login", self.secret(device_id=device))
        await self.client.post(base, "/login", self.secret("wrong"))
        await self.client.post(base, "/login", {**self.secret(), "identifier": {}})
        user = user_id(OTHER_USER)
        good, wrong, odd = self.lines()
        self.assertEqual(
            good,
            "login outcome=ok reason=homeserver address=127.0.0.1 provider=synapse"
            f' user="{user}" device="{device}"',
        )
        self.assertIn("login outcome=refused reason=wrong_password address=127.0.0.1", wrong)
        self.assertIn(f'user="{user}"', wrong)
        self.assertIn("login outcome=refused reason=homeserver address=127.0.0.1", odd)
        self.assertNotIn("com.example", "".join(self.lines()))


class OtherTypeTests(HandoverCase):
    """Login types that are not this module's."""

    profile = AFTER

    async def test_type_of_a_module(self) -> None:
        """Another module's type is answered as at Synapse's own listener, right or wrong."""
        answer = await self.assert_same(200, self.secret())
        self.assertEqual(answer.json["com.example.more"], answer.json["device_id"])
        refreshing = await self.assert_same(200, self.secret(refresh_token=True))
        self.assertIn("refresh_token", refreshing.json)
        await self.assert_same(403, self.secret("wrong"))
        incomplete = self.secret()
        del incomplete["secret"]
        await self.assert_same(400, incomplete)
        await self.assert_same(400, {**self.secret(), "identifier": {}})

    async def test_every_prefix(self) -> None:
        """It is taken under every prefix, those that Synapse does not have included."""
        for prefix in _PREFIXES:
            answer = await self.client.post(
                self.client.module, "/login", self.secret(), prefix=prefix
            )
            self.assertEqual(answer.status, 200, str(answer))

    async def test_device_id(self) -> None:
        """An empty device ID is as good as none, and one of a wrong type is refused."""
        answers = [
            await self.client.post(self.client.module, "/login", body)
            for body in [self.secret(device_id="")] * 2 + [{**self.password(), "device_id": ""}] * 2
        ]
        devices = {answer.json["device_id"] for answer in answers}
        self.assertEqual(len(devices - {""}), 4, devices)
        odd = await self.client.post(self.client.module, "/login", self.secret(device_id=5))
        self.assert_error(odd, 400, "M_BAD_JSON")

    async def test_names_that_are_no_text(self) -> None:
        """A name of a wrong type is refused, and breaks nothing."""
        for more in (
            {"identifier": {"type": "m.id.user", "user": 5}},
            {"identifier": "kermit9"},
            {"identifier": None, "user": ["x"]},
            {"identifier": {"type": "m.id.phone", "country": "GB", "phone": 7}},
        ):
            body = {**self.secret(), **more}
            answer = await self.client.post(self.client.module, "/login", body)
            self.assert_error(answer, 400, "M_BAD_JSON")

    async def test_application_service(self) -> None:
        """A bridge logs in its own users and no others."""
        puppet = fresh("irc_x")
        body = {"type": "m.login.application_service", "username": puppet}
        made = await self.client.post(self.client.own, "/register", body, AS_TOKEN)
        self.assertEqual(made.status, 200, str(made))
        login = {"type": "m.login.application_service", "identifier": named(puppet)}
        answer = await self.assert_same(200, login, AS_TOKEN)
        self.assertEqual(answer.json["user_id"], user_id(puppet))
        await self.assert_same(403, {**login, "identifier": named("alice")}, AS_TOKEN)
        await self.assert_same(401, login)
        user = await self.client.login(self.client.own)
        await self.assert_same(401, login, user.json["access_token"])

    async def test_unknown_type(self) -> None:
        """An unknown type is rejected as such, and so is JWT where it is switched off."""
        for kind in ("m.login.nothing", "", "org.matrix.login.jwt", "m.login.sso"):
            answer = await self.client.post(
                self.client.module, "/login", {**self.secret(), "type": kind}
            )
            self.assert_error(answer, 400, "M_UNKNOWN")
            self.assertEqual(answer.json["error"], "Bad login type.")

    async def test_address(self) -> None:
        """Synapse and its modules are told the client's address, as the proxy gives it."""
        url = f"{self.client.module}/_matrix/client/v3/login"
        for address in ("198.51.100.66", "2001:db8::66"):
            headers = {"X-Forwarded-For": address, "User-Agent": "Client/1.0"}
            answer = await self.client.send("POST", url, self.secret(), headers=headers)
            self.assertEqual(answer.status, 200, str(answer))
            guarded = re.findall("guard: .*", self.logged())[-1]
            self.assertIn(f"[('Client/1.0', '{address}')]", guarded)
            self.assertRegex(self.logged(), rf"{address} - \d+ - .* Processed request: .*POST")
            self.assertIn(f"address={address}", self.lines()[-1])

    async def test_metrics(self) -> None:
        """Synapse's metrics have what is handed over under the name of its own login."""
        name = 'synapse_http_server_requests_received_total{method="POST",'

        async def count() -> float:
            answer = await self.client.send("GET", f"{self.client.own}/_synapse/metrics")
            return sum(
                float(line.rpartition(" ")[2])
                for line in answer.body.decode().splitlines()
                if line.startswith(name.partition("{")[0])
                and 'servlet="LoginRestServlet"' in line
                and 'method="POST"' in line
            )

        before = await count()
        await self.client.post(self.client.module, "/login", self.secret())
        self.assertEqual(await count(), before + 1)


class LoginTokenTests(HandoverCase):
    """Login tokens of single sign-on, redeemed at the module's listener."""

    profile = AFTER
    provider = "oidc-of-the-tests"

    async def redeemed(self, session: str) -> tuple[str, str]:
        """Log in with such a token at the module's listener; access token and device."""
        made = await self.client.post(
            self.client.own,
            "/login",
            {
                "type": "com.example.sso",
                "identifier": named(),
                "provider": self.provider,
                "session": session,
            },
        )
        self.assertEqual(made.status, 200, str(made))
        answer = await self.client.post(
            self.client.module,
            "/login",
            {"type": "m.login.token", "token": made.json["login_token"]},
        )
        self.assertEqual(answer.status, 200, str(answer))
        return answer.json["access_token"], answer.json["device_id"]

    async def test_kept(self) -> None:
        """The session keeps the provider and its session, and other modules are told."""
        session = fresh("session")
        _, device = await self.redeemed(session)
        rows = self.server.query(
            "SELECT auth_provider_id, auth_provider_session_id FROM device_auth_providers"
            " WHERE user_id = ? AND device_id = ?",
            user_id(OTHER_USER),
            device,
        )
        self.assertEqual(rows, [(self.provider, session)])
        self.assertIn(f"'{self.provider}')", re.findall("guard: .*", self.logged())[-1])
        told = f"other told: {user_id(OTHER_USER)} m.login.token {self.provider}"
        self.assertEqual(self.logged().count(told), 1)

    async def test_not_of_others(self) -> None:
        """A login with a password has neither, though a token was redeemed before it."""
        await self.redeemed(fresh("session"))
        answer = await self.client.post(self.client.module, "/login", self.password())
        rows = self.server.query(
            "SELECT 1 FROM device_auth_providers WHERE device_id = ?", answer.json["device_id"]
        )
        self.assertEqual(rows, [])
        self.assertIn(", None)", re.findall("guard: .*", self.logged())[-1])

    async def test_logout_there(self) -> None:
        """When the provider's session ends, so does this one, and no other."""
        session = fresh("session")
        access, _ = await self.redeemed(session)
        other, _ = await self.redeemed(fresh("session"))
        body = {"type": "com.example.sso_logout", "identifier": named()}
        await self.client.post(
            self.client.own, "/login", {**body, "provider": self.provider, "session": session}
        )
        await self.assert_dead(access, soft_logout=False)
        self.assertEqual((await self.client.whoami(other)).status, 200)


class FlowTests(HandoverCase):
    """``GET /login``."""

    profile = AFTER

    async def test_flows(self) -> None:
        """It lists what Synapse's own does: other modules' types, bridges, and login tokens."""
        flows = await self.assert_same_flows()
        for flow in (
            {"type": "m.login.password"},
            {"type": "m.login.token", "get_login_token": True},
            {"type": "com.example.secret"},
            {"type": "m.login.application_service"},
        ):
            self.assertIn(flow, flows)

    async def test_settings(self) -> None:
        """Login tokens are listed only where Synapse lists them, and single sign-on where it is."""
        await self.server.restart({"login_via_existing_session": {"enabled": False}})
        kinds = {flow["type"] for flow in await self.assert_same_flows()}
        self.assertNotIn("m.login.token", kinds)
        cas = {"enabled": True, "server_url": "https://cas.example.test"}
        await self.server.restart(
            {"cas_config": cas, "login_via_existing_session": {"enabled": False}}
        )
        flows = {flow["type"]: flow for flow in await self.assert_same_flows()}
        self.assertEqual(flows["m.login.token"], {"type": "m.login.token"})
        (provider,) = flows["m.login.sso"]["identity_providers"]
        self.assertEqual(provider["id"], "cas")
        await self.server.restart({})


class CompletionTests(HandoverCase):
    """What Synapse does at the end of a login."""

    profile = replace(
        AFTER,
        name="well-known",
        synapse={
            **AFTER.synapse,
            "serve_client_wellknown": True,
            "public_baseurl": "https://matrix.hs.example/",
            "extra_well_known_client_content": {"com.example.key": 5},
        },
    )

    async def test_well_known(self) -> None:
        """Every answer to a login has ``well_known``, where Synapse's own has it."""
        for body in (self.password(), self.secret(), self.password(PASSWORD, "alice")):
            answer = await self.assert_same(200, body)
            self.assertEqual(
                answer.json["well_known"],
                {
                    "m.homeserver": {"base_url": "https://matrix.hs.example/"},
                    "com.example.key": 5,
                },
            )

    async def test_on_user_login(self) -> None:
        """Other modules are told of each login once."""
        base = self.client.module
        for kind, body in (
            ("m.login.password", self.password()),
            ("m.login.password", self.password(PASSWORD, "alice")),
            ("com.example.secret", self.secret()),
        ):
            answer = await self.client.post(base, "/login", body)
            told = re.findall("other told: (.*)", self.logged())
            self.assertEqual(told[-1], f"{answer.json['user_id']} {kind} None")
        await self.client.post(base, "/login", self.password("wrong"))
        self.assertEqual(len(re.findall("other told: ", self.logged())), 3)


class JwtTests(HandoverCase):
    """JSON Web Tokens."""

    profile = Profile(
        "jwt",
        synapse={"jwt_config": {"enabled": True, "secret": "x" * 32, "algorithm": "HS256"}},
    )

    async def setUp(self) -> None:  # type: ignore[override]
        if find_spec("authlib") is None:
            raise SkipTest("not installed: authlib")
        await super().setUp()

    async def test_jwt(self) -> None:
        """They log users in, and make accounts, as at Synapse's own listener."""
        from authlib.jose import jwt  # type: ignore[import-untyped]

        kind = "org.matrix.login.jwt"
        self.assertIn({"type": kind}, await self.assert_same_flows())
        token = jwt.encode({"alg": "HS256"}, {"sub": fresh("frog")}, "x" * 32).decode("ascii")
        await self.assert_same(200, {"type": kind, "token": token})
        await self.assert_same(403, {"type": kind, "token": f"{token}x"})
        await self.assert_same(403, {"type": kind})


class LimitTests(HandoverCase):
    """One set of limits for both listeners, and for what is handed over."""

    profile = Profile(
        "one-set",
        module={
            "rate_limits": {
                "address": {"per_second": 1000, "burst_count": 1000},
                "account": None,
                "failed_attempts": {"per_second": 0.001, "burst_count": 3},
            },
        },
        more_modules=[OTHER],
        client_listener={"x_forwarded": True},
        module_listener={"x_forwarded": True},
    )

    async def statuses(self, *logins: tuple[str, object], address: str = "") -> list[int]:
        """Log in, from a network of its own unless an address is given; return the responses."""
        address = address or str(ip_address("10.0.0.0") + 256 * int(fresh("")))
        headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
        return [
            (
                await self.client.send(
                    "POST", f"{base}/_matrix/client/v3/login", body, headers=headers
                )
            ).status
            for base, body in logins
        ]

    async def test_other_passwords(self) -> None:
        """A wrong password counts once, though several modules are asked; a right one never."""
        wrong, right = self.password("wrong"), self.password()
        ours = self.client.module
        found = await self.statuses(*[(ours, wrong)] * 4)
        self.assertEqual(found, [403, 403, 403, 429])
        found = await self.statuses(*[(ours, right), (ours, wrong)] * 3)
        self.assertEqual(found, [200, 403] * 3)

    async def test_handed_over(self) -> None:
        """What another module rejects counts as a wrong password does, and with it."""
        ours = self.client.module
        found = await self.statuses(*[(ours, self.secret("wrong"))] * 4)
        self.assertEqual(found, [403, 403, 403, 429])
        mixed = [(ours, self.secret("wrong")), (ours, self.password("wrong"))] * 2
        self.assertEqual(await self.statuses(*mixed), [403, 403, 403, 429])
        incomplete: object = {"type": "com.example.secret", "identifier": named()}
        found = await self.statuses(*[(ours, incomplete)] * 5, (ours, self.secret()))
        self.assertEqual(found, [400] * 5 + [200])

    async def test_both_listeners(self) -> None:
        """Guessing at both listeners gives no more attempts than at one."""
        wrong = self.password("wrong", "alice")
        logins = [(self.client.own, wrong), (self.client.module, wrong)] * 2
        self.assertEqual(await self.statuses(*logins), [403, 403, 403, 429])

    async def test_names_of_one_account(self) -> None:
        """Nor has who guesses by several names of one account, at either; and the right password is
        as good as a wrong one then, also that of a locked account.
        """
        for base, locked, code in (
            (self.client.own, False, 200),
            (self.client.module, False, 200),
            (self.client.own, True, 401),
            (self.client.module, True, 401),
        ):
            addresses = [f"{fresh('address')}@example.com" for _ in range(4)]
            name = self.new_user(emails=addresses, locked=locked)
            guesses: list[tuple[str, object]] = [
                (base, {**self.password("wrong"), "identifier": by_email(address)})
                for address in addresses[:3]
            ]
            address = str(ip_address("10.0.0.0") + int(fresh("")))
            self.assertEqual(await self.statuses(*guesses, address=address), [403] * 3)
            right = [
                (base, self.password(PASSWORD, name)),
                (base, {**self.password(PASSWORD), "identifier": by_email(addresses[3])}),
            ]
            self.assertEqual(await self.statuses(*right, address=address), [403] * 2)
            self.assertEqual(await self.statuses(*right), [code] * 2)

    async def test_own_listener(self) -> None:
        """At Synapse's own a right password is refused then, with when to try again."""
        name = self.new_user()
        own = self.client.own
        login = [(own, self.password("wrong", name))] * 3 + [(own, self.password(PASSWORD, name))]
        self.assertEqual(await self.statuses(*login), [403, 403, 403, 429])
        # Elsewhere the user is not locked out.
        self.assertEqual(await self.statuses(login[-1]), [200])

    async def test_many_addresses(self) -> None:
        """Guessing from many addresses is limited, too; users still log in from known networks."""
        name = self.new_user()
        own, home = self.client.own, "192.0.2.1"
        right, wrong = (own, self.password(PASSWORD, name)), (own, self.password("wrong", name))
        self.assertEqual(await self.statuses(right, address=home), [200])
        for _ in range(10):
            self.assertEqual(await self.statuses(*[wrong] * 3), [403] * 3)
        self.assertEqual(await self.statuses(wrong, right), [429, 429])
        self.assertEqual(await self.statuses(right, address=home), [200])


class InheritedLimitTests(HandoverCase):
    """``rate_limits`` that are left out."""

    profile = Profile(
        "inherited-limits",
        module={"rate_limits": {"account": None}},
        synapse={
            "rc_login": {
                "address": {"per_second": 0.001, "burst_count": 7},
                "account": {"per_second": 0.001, "burst_count": 1},
                "failed_attempts": {"per_second": 0.001, "burst_count": 1},
            },
        },
        more_modules=[OTHER],
    )

    async def test_rates(self) -> None:
        """They are those of ``rc_login``, except those that are configured."""
        ours = self.client.module
        statuses = [
            (await self.client.post(ours, "/login", body)).status
            for body in (
                self.password("wrong", "bob"),
                self.password("wrong", "bob"),
                self.password(PASSWORD, "alice"),
                self.password(PASSWORD, "alice"),
                self.secret("open sesame"),
                self.secret("open sesame"),
                self.password(PASSWORD, "alice"),
                self.secret("open sesame"),
                self.secret("open sesame"),
            )
        ]
        self.assertEqual(statuses, [403, 429, 200, 200, 200, 200, 200, 200, 429])


class StartTests(HandoverCase):
    """What the log says at the start, and where its lines stand."""

    profile = replace(AFTER, name="start")

    async def test_line(self) -> None:
        """One line says where the paths are."""
        line = (
            r" - synapse_login_module - .* - the main process serves /login, /tokenrefresh and"
            f" /refresh at 127.0.0.1:{self.server.module_port}\n"
        )
        self.assertEqual(len(re.findall(line, self.server.log())), 1)
        self.assertNotIn("no listener serves", self.server.log())

    async def test_once(self) -> None:
        """The version and the providers are each in one line."""
        from synapse_login_module import __version__

        lines = re.findall(" - synapse_login_module - .*", self.server.log())
        for each in (f"synapse_login_module {__version__}", "faulty.*bcrypt"):
            found = [line for line in lines if re.search(each, line)]
            self.assertEqual(len(found), 1, found)

    async def test_facts(self) -> None:
        """It also says its versions, the database, the numbers of accounts, and the homeserver."""
        log = self.server.log()
        for fact in (
            r"synapse_login_module \S+, Python \S+, Twisted \S+",
            "sessions are kept in Synapse's database, SQLite, /.*",
            r"passwords are checked by faulty \(\w+\), bcrypt \(BcryptProvider, \d+ accounts\)",
            r"the homeserver is \S+ at http\S+",
        ):
            found = re.findall(f" - synapse_login_module - .* - start: {fact}\n", log)
            self.assertEqual(len(found), 1, fact)

    async def test_outcomes(self) -> None:
        """The outcomes at both listeners are the module's lines, in their requests' contexts."""
        pair = await self.client.pair()
        await self.client.rotate(pair)
        await self.client.login(self.client.module, password="wrong")
        await self.client.login(self.client.own)
        await self.client.post(self.client.module, "/login", self.secret())
        heads = re.findall(
            r" - (\S+) - \d+ - INFO - (\S+) - (?:login|refresh) outcome=", self.logged()
        )
        self.assertEqual([name for name, _ in heads], ["synapse_login_module"] * 5)
        for _, context in heads:
            self.assertRegex(context, r"^POST-\d+$")
        self.assertEqual(len({context for _, context in heads}), 5)


class NoListenerTests(HandoverCase):
    """No listener for the module's paths."""

    profile = Profile("no-listener", module_listener={"resources": [{"names": ["client"]}]})

    async def test_warning(self) -> None:
        """The log says that there is none, and what to do."""
        self.assertRegex(
            self.server.log(),
            r"WARNING - \S+ - no listener serves the module's paths: add one of type http without",
        )
