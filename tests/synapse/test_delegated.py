"""Tests for the module in a real Synapse that delegates authentication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.http import ask
from tests.support.ports import free_port
from tests.support.response import Response
from tests.support.synapse.profile import BCRYPT, Profile, user
from tests.support.synapse.server import SynapseServer
from tests.support.waiting import until
from tests.synapse.case import HomeserverCase, fresh, user_id
from tests.synapse.introspecting import SECRET, SECRET_FILE, LoginService, delegating

PATH = "/_synapse/client/synapse_login/forget_tokens"

_PORT = free_port()
_PROVIDERS = [{"module": BCRYPT, "config": {"users": {"alice": user()}}}]


class DelegatedCase(HomeserverCase):
    """A test case with a Synapse that delegates to a service of the test."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.service = LoginService()
        self.service.listen(_PORT)
        self.addCleanup(self.service.stop)
        await super().setUp()
        self.client.secrets.add(SECRET)

    async def new_account(self) -> str:
        """Make an account in Synapse; return its local part."""
        name = fresh("user")
        await self.mas("provision_user", {"localpart": name}, 201)
        return name

    async def new_token(self, name: str, device: str) -> str:
        """Make a device in Synapse, and an active token of it."""
        await self.mas("upsert_device", {"localpart": name, "device_id": device})
        token = f"access-token-of-{name}-on-{fresh(device)}"
        self.client.secrets.add(token)
        self.service.activate(token, name, device)
        return token

    async def mas(self, call: str, body: Mapping[str, Any], status: int | None = None) -> None:
        """Call Synapse as the service does."""
        url = f"{self.client.own}/_synapse/mas/{call}"
        answer = await self.client.send("POST", url, body, token=SECRET)
        self.assertIn(answer.status, (200, 201) if status is None else (status,), str(answer))

    async def forget(
        self,
        body: object,
        base: str | None = None,
        token: str | None = SECRET,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Call the module's path."""
        url = f"{base or self.client.own}{PATH}"
        return await self.client.send(method, url, body, headers, token=token)

    async def assert_forgets(self, name: str, device: str | None, base: str | None = None) -> None:
        """The module's path takes a call."""
        answer = await self.forget({"localpart": name, "device_id": device}, base)
        self.assertEqual((answer.status, answer.json), (200, {}), str(answer))
        self.assertEqual(answer.media_type, "application/json")

    async def assert_accepted(
        self, token: str, name: str, device: str, base: str | None = None
    ) -> None:
        """Synapse takes a token for that of a device."""
        answer = await self.client.whoami(token, base)
        self.assertEqual(answer.status, 200, str(answer))
        found = answer.json
        self.assertEqual((found["user_id"], found["device_id"]), (user_id(name), device))

    async def assert_refused(self, token: str, base: str | None = None) -> None:
        """Synapse refuses a token."""
        answer = await self.client.whoami(token, base)
        self.assert_error(answer, 401, "M_UNKNOWN_TOKEN", soft_logout=False)


class ForgetTests(DelegatedCase):
    """``POST /_synapse/client/synapse_login/forget_tokens``."""

    profile = delegating("delegated", _PORT, module={"delegated": True})

    async def test_start(self) -> None:
        """One line at the start says where the path is, on every HTTP listener."""
        ports = (self.server.client_port, self.server.module_port)
        places = ", ".join(f"127.0.0.1:{port}" for port in ports)
        self.assertIn(f"the main process serves {PATH} at {places}", self.server.log())

    async def test_old_token(self) -> None:
        """A token that the service no longer accepts is accepted from the cache until Synapse is
        told to forget it, and refused at once then.
        """
        name = await self.new_account()
        token = await self.new_token(name, "PHONE")
        await self.assert_accepted(token, name, "PHONE")
        self.service.deactivate(token)
        await self.assert_accepted(token, name, "PHONE")
        self.assertEqual(self.service.asked[token], 1)
        await self.assert_forgets(name, "PHONE")
        await self.assert_refused(token)
        self.assertEqual(self.service.asked[token], 2)

    async def test_other_devices(self) -> None:
        """What is cached of other devices and of other users stays."""
        first, second = await self.new_account(), await self.new_account()
        kept = {
            await self.new_token(first, "LAPTOP"): (first, "LAPTOP"),
            await self.new_token(second, "PHONE"): (second, "PHONE"),
        }
        dropped = await self.new_token(first, "PHONE")
        for token, (name, device) in ({dropped: (first, "PHONE")} | kept).items():
            await self.assert_accepted(token, name, device)
        await self.assert_forgets(first, "PHONE")
        for token, (name, device) in ({dropped: (first, "PHONE")} | kept).items():
            await self.assert_accepted(token, name, device)
        self.assertEqual(self.service.asked[dropped], 2)
        self.assertEqual([self.service.asked[token] for token in kept], [1, 1])

    async def test_all_devices(self) -> None:
        """``null`` drops what is cached of all devices of the user, and of no other user."""
        first, second = await self.new_account(), await self.new_account()
        tokens = [await self.new_token(first, device) for device in ("PHONE", "LAPTOP", "PHONE")]
        other = await self.new_token(second, "PHONE")
        for token, device in zip(tokens, ("PHONE", "LAPTOP", "PHONE"), strict=True):
            await self.assert_accepted(token, first, device)
            self.service.deactivate(token)
        await self.assert_accepted(other, second, "PHONE")
        await self.assert_forgets(first, None)
        for token in tokens:
            await self.assert_refused(token)
        await self.assert_accepted(other, second, "PHONE")
        self.assertEqual(self.service.asked[other], 1)

    async def test_nothing_cached(self) -> None:
        """A user or a device of which nothing is cached is no error."""
        await self.assert_forgets(await self.new_account(), "PHONE")
        await self.assert_forgets("nobody", None)

    async def test_introspection_under_way(self) -> None:
        """The answer to an introspection that had begun before is used for the requests that wait
        for it, and neither cached nor used for later ones.
        """
        name = await self.new_account()
        token = await self.new_token(name, "PHONE")
        held = self.service.hold(token)
        waiting = Deferred.fromCoroutine(self.client.whoami(token))
        await until(lambda: self.service.asked[token], "the introspection")
        self.service.deactivate(token)
        await self.assert_forgets(name, "PHONE")
        await self.assert_refused(token)
        held.set()
        self.assertEqual((await waiting).status, 200)
        await self.assert_refused(token)
        self.assertEqual(self.service.asked[token], 2)

    async def test_answer_after_forgetting(self) -> None:
        """Such an answer is not cached either when no request came in between."""
        name = await self.new_account()
        token = await self.new_token(name, "PHONE")
        held = self.service.hold(token)
        waiting = Deferred.fromCoroutine(self.client.whoami(token))
        await until(lambda: self.service.asked[token], "the introspection")
        self.service.deactivate(token)
        await self.assert_forgets(name, None)
        held.set()
        self.assertEqual((await waiting).status, 200)
        await self.assert_refused(token)

    async def test_secret(self) -> None:
        """Only the secret of the login service opens it, in the header. Nothing is forgotten
        otherwise.
        """
        name = await self.new_account()
        token = await self.new_token(name, "PHONE")
        await self.assert_accepted(token, name, "PHONE")
        body = {"localpart": name, "device_id": "PHONE"}
        for wrong in ("wrong", SECRET[:-1], f"{SECRET}x", SECRET.upper(), token):
            answer = await self.forget(body, token=wrong)
            self.assert_error(answer, 403, "M_FORBIDDEN")
        self.assert_error(await self.forget(body, token=None), 401, "M_MISSING_TOKEN")
        for header in ("", "Bearer", "Bearer  ", f"Basic {SECRET}", SECRET):
            answer = await self.forget(body, token=None, headers={"Authorization": header})
            self.assert_error(answer, 401, "M_MISSING_TOKEN")
        url = f"{self.client.own}{PATH}"
        query = await self.client.send("POST", url, body, query={"access_token": "wrong"})
        self.assert_error(query, 401, "M_MISSING_TOKEN")
        await self.assert_accepted(token, name, "PHONE")
        self.assertEqual(self.service.asked[token], 1)
        lower = await self.forget(body, token=None, headers={"Authorization": f"bearer {SECRET}"})
        self.assertEqual(lower.status, 200, str(lower))

    async def test_bodies(self) -> None:
        """A wrong body is 400, with the field; an unknown key is none of it."""
        for body, errcode, problem in (
            (b"", "M_NOT_JSON", ""),
            (b"{", "M_NOT_JSON", ""),
            (b"\xff", "M_NOT_JSON", ""),
            (b"[]", "M_BAD_JSON", "not an object"),
            ({}, "M_BAD_JSON", "localpart"),
            ({"localpart": "alice"}, "M_BAD_JSON", "device_id"),
            ({"device_id": None}, "M_BAD_JSON", "localpart"),
            ({"localpart": None, "device_id": None}, "M_BAD_JSON", "localpart"),
            ({"localpart": "", "device_id": None}, "M_BAD_JSON", "localpart"),
            ({"localpart": 5, "device_id": None}, "M_BAD_JSON", "localpart"),
            ({"localpart": "alice", "device_id": 5}, "M_BAD_JSON", "device_id"),
            ({"localpart": "alice", "device_id": ["A"]}, "M_BAD_JSON", "device_id"),
            (b'{"localpart": "\\ud800", "device_id": null}', "M_BAD_JSON", "localpart"),
        ):
            answer = await self.forget(body)
            self.assert_error(answer, 400, errcode)
            self.assertIn(problem, answer.json["error"])
        large = await self.forget({"localpart": "x" * 70_000, "device_id": None})
        self.assert_error(large, 413, "M_TOO_LARGE")
        more = await self.forget({"localpart": "alice", "device_id": None, "more": 1})
        self.assertEqual(more.status, 200, str(more))

    async def test_secret_before_body(self) -> None:
        """Without the secret, nothing is said of the body."""
        self.assert_error(await self.forget(b"{", token="wrong"), 403, "M_FORBIDDEN")

    async def test_methods_and_paths(self) -> None:
        """It is one path and one method, on every HTTP listener."""
        for method in ("GET", "PUT", "DELETE"):
            answer = await self.forget(None, method=method)
            self.assert_error(answer, 405, "M_UNRECOGNIZED")
        for below in ("/", "/x"):
            url = f"{self.client.own}{PATH}{below}"
            answer = await self.client.send("POST", url, {}, token=SECRET)
            self.assert_error(answer, 404, "M_UNRECOGNIZED")
        await self.assert_forgets("alice", None, self.server.module_url)

    async def test_other_spellings(self) -> None:
        """Synapse resolves neither dots nor double slashes within a path, so a proxy need not do
        so to keep clients from this path and from those at ``/_synapse/mas``. At the start of a
        path it may take several slashes for one.
        """
        for path in (
            f"/_synapse/client/..{PATH.removeprefix('/_synapse')}",
            f"/_synapse/./{PATH.removeprefix('/_synapse/')}",
            f"/x/..{PATH}",
            PATH.replace("/synapse_login", "//synapse_login"),
            "/_synapse/client/../mas/query_user?localpart=alice",
            "/_synapse/./mas/query_user?localpart=alice",
            "/_synapse//mas/query_user?localpart=alice",
        ):
            body = None if "mas" in path else {"localpart": "alice", "device_id": None}
            method = "GET" if "mas" in path else "POST"
            status, content = await deferToThread(
                ask, self.server.client_port, method, path, body, SECRET
            )
            self.assertEqual(status, 404, path)
            self.assertNotIn(b"User not found", content, path)

    async def test_nothing_else(self) -> None:
        """There is no login of the module's, and none of its tables."""
        for path in ("login", "tokenrefresh", "refresh"):
            url = f"{self.server.module_url}/_matrix/client/v3/{path}"
            self.assertEqual((await self.client.send("POST", url, {})).status, 404)
        tables = self.server.query(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'synapse_login%'"
        )
        self.assertEqual(tables, [])


class WithoutModuleTests(DelegatedCase):
    """A Synapse that delegates, and does not load the module."""

    profile = delegating("delegating", _PORT, module=None)

    async def test_path(self) -> None:
        """It does not know the path."""
        answer = await self.forget({"localpart": "alice", "device_id": None})
        self.assertEqual(answer.status, 404, str(answer))


class WorkerTests(DelegatedCase):
    """A main process and a worker, each with a cache of its own."""

    profile = delegating("delegated-worker", _PORT, module={"delegated": True}, worker=True)

    async def test_start(self) -> None:
        """The worker says where it serves the path."""
        worker = self.server.worker_client_url.removeprefix("http://")
        self.assertIn(f"worker1 serves {PATH} at {worker}, ", self.server.worker_log())

    async def test_each_process(self) -> None:
        """Each process has to be told, at a URL of its own, and forgets only what it has cached."""
        bases = (self.client.own, self.server.worker_client_url)
        for told, other in (bases, bases[::-1]):
            name = await self.new_account()
            token = await self.new_token(name, "PHONE")
            for base in bases:
                await self.assert_accepted(token, name, "PHONE", base)
            self.assertEqual(self.service.asked[token], 2)
            self.service.deactivate(token)
            await self.assert_forgets(name, "PHONE", told)
            await self.assert_refused(token, told)
            await self.assert_accepted(token, name, "PHONE", other)
            await self.assert_forgets(name, "PHONE", other)
            await self.assert_refused(token, other)

    async def test_listener_without_resources(self) -> None:
        """A listener of the worker without resources serves the path too, so it can be one that no
        proxy leads to.
        """
        name = await self.new_account()
        token = await self.new_token(name, "PHONE")
        await self.assert_accepted(token, name, "PHONE", self.server.worker_client_url)
        self.service.deactivate(token)
        await self.assert_forgets(name, "PHONE", self.server.worker_module_url)
        await self.assert_refused(token, self.server.worker_client_url)


class StartTests(TestCase):
    """A Synapse that does not start."""

    timeout = 180

    async def fail_to_start(self, profile: Profile, **files: str) -> str:
        """Return the line by which Synapse says why it does not start.

        :param files: the content of files in its folder.
        """
        server = SynapseServer(profile)
        self.addCleanup(server.remove)
        for name, content in files.items():
            (server.folder / name).write_text(content)
        status, output = await server.start_in_vain()
        self.assertEqual(status, 1, output)
        said = {line for line in output.splitlines() if "ConfigError: " in line}
        self.assertEqual(len(said), 1, output)
        return said.pop()

    async def test_not_delegated(self) -> None:
        """The module of a Synapse that logs users in itself names the setting for one that
        delegates.
        """
        profile = delegating("not-delegated", _PORT, module={"password_providers": _PROVIDERS})
        line = await self.fail_to_start(profile)
        self.assertIn("matrix_authentication_service is enabled", line)
        self.assertIn("give synapse_login_module config: {delegated: true}", line)

    async def test_delegates_not(self) -> None:
        """With that setting, a Synapse that does not delegate says so."""
        ours = {
            "module": "synapse_login_module.SynapseLoginModule",
            "config": {"delegated": True},
        }
        profile = Profile("delegates-not", module=None, synapse={"modules": [ours]})
        line = await self.fail_to_start(profile)
        self.assertIn("but this Synapse does not delegate authentication", line)
        self.assertIn("enable matrix_authentication_service", line)

    async def test_empty_secret(self) -> None:
        """An empty secret would open the path to everybody."""
        profile = delegating("empty-secret", _PORT, module={"delegated": True})
        line = await self.fail_to_start(profile, **{SECRET_FILE: "\n"})
        self.assertIn("needs the secret of matrix_authentication_service, and it is empty", line)
