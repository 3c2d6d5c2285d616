"""One account, however it is typed: a whole server, and the commands on its store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import yaml
from twisted.internet.utils import getProcessValue
from twisted.logger import LogLevel

from synapse_login_module.errors import ConfigError
from tests.providers.backends import HTTPBackend
from tests.providers.case import PASSWORD, WONDERLAND, lines, reactor
from tests.providers.http.test_http import MAPPED
from tests.providers.served import PROVIDERS, ComposedCase
from tests.support import REPOSITORY
from tests.support.accounts import ALICE
from tests.support.process import subprocess_environment

TYPED = ("alice", "Alice", "ALICE", "@aLiCe:example.com")


class OneUserIdTests(ComposedCase):
    """Two accounts of one file whose names differ in case alone."""

    def entries(self) -> dict[str, tuple[dict[str, Any], str, str]]:
        """For each kind of file: its provider, what stands in it, and what is wrong with that."""
        both = f"alice:{WONDERLAND}\nbob:{WONDERLAND}\nAlice:{WONDERLAND}\n"
        line = "line 3: Alice differs from alice in line 1 in case alone"
        account = {"password_hash": WONDERLAND}
        users = yaml.safe_dump({"users": {"Alice": account, "alice": account, "bob": account}})
        key = "users.alice: alice differs from Alice in case alone"
        return {
            module: ({"module": f"{PROVIDERS}.{module}", "config": {"path": "them"}}, *given)
            for module, given in {
                "HtpasswdProvider": (both, line),
                "PasswdProvider": (both, line),
                "BcryptProvider": (users, key),
            }.items()
        }

    def test_at_the_start(self) -> None:
        """The start, and so check-config, is refused, naming the file and both."""
        for entry, content, problem in self.entries().values():
            path = self.write("them", content)
            self.configure(entry)
            with self.assertRaises(ConfigError) as raised:
                self.load()
            expected = f"password_providers.0.config.path: {path}: {problem}"
            self.assertIn(expected, str(raised.exception))

    async def test_later(self) -> None:
        """A file that comes to be so is not taken, and the last good one goes on."""
        for entry, content, problem in self.entries().values():
            good = content.replace("Alice", "carol")
            path = self.write("them", good)
            self.serve(entry)
            events = self.catch_log()
            self.write("them", content + "\n")
            for name in ("alice", "ALICE", "carol"):
                code, _ = await self.log_in(name)
                self.assertEqual(code, 200, name)
            (line,) = lines(events, LogLevel.error)
            self.assertIn(f"{path} is not used as it stands now, but as it last was: ", line)
            self.assertIn(problem, line)


class SpellingTests(ComposedCase):
    """Backends that ignore case, and say nothing or what was typed."""

    timeout = 120.0

    async def assert_one_account(self, entry: dict[str, Any], names: Sequence[str] = TYPED) -> None:
        """Every spelling logs in as one user, whose sessions one command ends."""
        store = {"module": "synapse_login_module.stores.SQLiteTokenStore", "config": {"path": "db"}}
        self.serve(entry, token_store=store)
        tokens = []
        for name in names:
            body = {"type": "m.login.password", "user": name, "password": PASSWORD}
            code, answer = await self.post("login", body)
            self.assertEqual((code, answer.get("user_id")), (200, ALICE), name)
            tokens.append(answer["access_token"])
        command = ("sessions", "revoke", "--config", str(self.folder() / "login.yaml"), "alice")
        status = await getProcessValue(
            sys.executable,
            ["-m", "synapse_login_module.cli", *command],
            subprocess_environment(),
            str(REPOSITORY),
            reactor,
        )
        self.assertEqual(status, 0)
        for token in tokens:
            code, _ = await self.post("logout", {}, token)
            self.assertEqual(code, 401)

    def backend(self, **more: Any) -> HTTPBackend:
        """A service that ignores case."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        backend.service.ignores_case = True
        return backend

    def mapped(self, **answer: str) -> dict[str, Any]:
        """An entry for a service that is asked in its own words."""
        config = {
            "url": f"{self.backend().url}/login",
            "request": MAPPED["request"],
            "answer": {"success": "auth.success", **answer},
        }
        return {"module": f"{PROVIDERS}.HTTPProvider", "config": config}

    async def test_rest(self) -> None:
        """The REST password provider's protocol, where the service repeats the user ID."""
        await self.assert_one_account(self.http(self.backend().url))

    async def test_rest_without_mxid(self) -> None:
        """The same, where it leaves it out."""
        backend = self.backend()
        backend.service.answer = (200, b'{"auth": {"success": true}}')
        await self.assert_one_account(self.http(backend.url))

    async def test_code_alone(self) -> None:
        """A service that does not say whose password was right."""
        await self.assert_one_account(self.mapped())

    async def test_repeated(self) -> None:
        """A service that says it as it was typed."""
        await self.assert_one_account(self.mapped(user_id="auth.mxid"))

    async def test_cred(self) -> None:
        """A checker that returns the name as it was typed."""
        path = self.write("passwords", f"alice:{PASSWORD}\n")
        arguments = {"filename": str(path), "caseSensitive": False}
        config = {"checker": "twisted.cred.checkers.FilePasswordDB", "arguments": arguments}
        await self.assert_one_account({"module": f"{PROVIDERS}.CredProvider", "config": config})

    async def test_file(self) -> None:
        """A file of lines."""
        await self.assert_one_account(self.file())

    async def test_sql(self) -> None:
        """A statement that ignores case."""
        entry = self.sqlite("Alice")
        queries = entry["config"]["queries"]
        queries["by_user"] = queries["by_user"].replace("name =", "name COLLATE NOCASE =")
        await self.assert_one_account(entry)
