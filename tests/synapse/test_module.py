"""Tests for how a real Synapse reads and starts the module, and for errors at the start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import TestCase

from tests.support import REPOSITORY
from tests.support.process import require
from tests.support.synapse.profile import BCRYPT, Profile, user
from tests.support.synapse.server import SynapseServer
from tests.support.waiting import TIMEOUT, until
from tests.synapse.case import HomeserverCase

_USERS = {"alice": user()}
_INLINE = [{"module": BCRYPT, "config": {"users": _USERS}}]


class ImportTests(TestCase):
    """What is imported when."""

    def test_synapse_is_not_imported(self) -> None:
        """The package and its providers are imported without Synapse."""
        script = (
            "import sys\n"
            "import synapse_login_module, synapse_login_module.providers\n"
            "from synapse_login_module.providers import BcryptProvider\n"
            "import synapse_login_module.compose\n"
            "print(sorted(name for name in sys.modules if name.split('.')[0] == 'synapse'))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        self.assertEqual((done.returncode, done.stdout), (0, "[]\n"), done.stderr)

    def test_named_by_homeserver_yaml(self) -> None:
        """Synapse finds the module by the name that the documentation gives."""
        require("synapse")
        import synapse_login_module

        module = synapse_login_module.SynapseLoginModule
        self.assertTrue(callable(module.parse_config))
        with self.assertRaises(AttributeError):
            synapse_login_module.Nothing  # noqa: B018

    def test_mistyped(self) -> None:
        """A name that is nearly the module's is a mistake in the configuration, as Synapse tells
        those: it would print a traceback else.
        """
        require("synapse")
        from synapse.config._base import ConfigError, format_config_error
        from synapse.util.module_loader import load_module

        for name in ("SynapseLoginModul", "SynapseLoginmodule", "SynapsLoginModule"):
            given = {"module": f"synapse_login_module.{name}", "config": {}}
            with self.assertRaises(ConfigError) as raised:
                load_module(given, ("modules", "<item 0>"))
            said = "".join(format_config_error(raised.exception))
            self.assertIn("modules.<item 0>.config", said)
            self.assertIn(f"no {name}: write synapse_login_module.SynapseLoginModule", said)


class ParseConfigTests(TestCase):
    """``parse_config``, as Synapse calls it."""

    def setUp(self) -> None:
        require("synapse")

    def problem(self, config: object) -> tuple[tuple[str, ...], str]:
        """The path and the message of the error that a configuration leads to."""
        from synapse.module_api.errors import ConfigError

        from synapse_login_module import SynapseLoginModule

        with self.assertRaises(ConfigError) as caught:
            SynapseLoginModule.parse_config(config)
        error = caught.exception
        self.assertNotIn("\n", error.msg)
        return tuple(error.path or ()), error.msg

    def test_good(self) -> None:
        """The documentation's configuration is taken, with its defaults."""
        from synapse_login_module import SynapseLoginModule

        parsed = SynapseLoginModule.parse_config({"password_providers": _INLINE})
        self.assertTrue(parsed.config.register_users)
        self.assertFalse(parsed.config.sync_profile)
        self.assertTrue(parsed.config.fall_back_to_local)
        self.assertEqual(parsed.config.tokens.refresh_token, "on_request")

    def test_paths(self) -> None:
        """Each error names the path of the wrong value."""
        providers: dict[str, Any] = {"password_providers": _INLINE}
        inline = {"users": {"alice": {"password_hash": "x"}}}
        for config, path in (
            ({**providers, "sync_profil": True}, ("sync_profil",)),
            ({**providers, "sync_profile": "yes"}, ("sync_profile",)),
            ({**providers, "listen": []}, ("listen",)),
            ({**providers, "server_name": "x"}, ("server_name",)),
            ({**providers, "token_store": {}}, ("token_store",)),
            ({**providers, "tokens": {"session_lifetime": "1d"}}, ("tokens", "session_lifetime")),
            ({**providers, "tokens": {"key_file": "x"}}, ("tokens", "key_file")),
            ({**providers, "tokens": {"refresh_token": "never"}}, ("tokens", "refresh_token")),
            ({**providers, "tokens": []}, ("tokens",)),
            ({}, ("password_providers",)),
            (None, ("password_providers",)),
            ({"password_providers": []}, ("password_providers",)),
            (
                {"password_providers": [{"module": "no.such.thing"}]},
                ("password_providers", "0", "module"),
            ),
            (
                {"password_providers": [{"module": BCRYPT, "config": inline}]},
                ("password_providers", "0", "config", "users", "alice", "password_hash"),
            ),
            (
                {"password_providers": [{"module": BCRYPT, "config": {"path": "/no/such/file"}}]},
                ("password_providers", "0", "config", "path"),
            ),
        ):
            found, message = self.problem(config)
            self.assertEqual(found, path, message)
            self.assertTrue(message)

    def test_several(self) -> None:
        """What else is wrong is told on lines of its own."""
        from synapse.module_api.errors import ConfigError

        from synapse_login_module import SynapseLoginModule

        config = {"password_providers": _INLINE, "sync_profil": True, "hashing": {"rounds": 99}}
        with self.assertRaises(ConfigError) as caught:
            SynapseLoginModule.parse_config(config)
        first, second = caught.exception.msg.splitlines()
        self.assertEqual(list(caught.exception.path or ()), ["hashing", "rounds"])
        self.assertEqual(first, "must be less than or equal to 16")
        self.assertEqual(second, "  also, at sync_profil: unknown key: did you mean sync_profile?")

    def test_no_mapping(self) -> None:
        """A configuration that is no mapping is an error, too."""
        for config in ([1], "x", 5, True):
            _, message = self.problem(config)
            self.assertTrue(message)


class StartTests(TestCase):
    """A Synapse that the module keeps from starting."""

    timeout = 180

    async def fail_to_start(
        self, module: Mapping[str, Any] | None = None, synapse: Mapping[str, Any] | None = None
    ) -> str:
        """Return what Synapse prints with this configuration, ending with status 1."""
        server = SynapseServer(Profile("broken", module=module or {}, synapse=synapse or {}))
        self.addCleanup(server.remove)
        status, output = await server.start_in_vain()
        self.assertEqual(status, 1, output)
        return output

    async def assert_config_error(self, module: Mapping[str, Any], path: str, text: str) -> None:
        """Synapse prints which path of homeserver.yaml is wrong, and nothing else."""
        output = await self.fail_to_start(module)
        self.assertIn(f"Error in configuration at 'modules.<item 0>.config.{path}'", output)
        lines = [line for line in output.splitlines() if text in line]
        self.assertEqual(len(lines), 1, output)
        self.assertNotIn("Traceback", output)

    async def test_unknown_key(self) -> None:
        """An unknown key."""
        await self.assert_config_error({"sync_profil": True}, "sync_profil", "unknown key")

    async def test_missing_users_file(self) -> None:
        """A users file that is not there."""
        providers = [{"module": BCRYPT, "config": {"path": "no-such-file.yaml"}}]
        await self.assert_config_error(
            {"password_providers": providers},
            "password_providers.0.config.path",
            "no-such-file.yaml",
        )

    async def test_link_accounts(self) -> None:
        """An account of a provider that there is not, or of another server."""
        await self.assert_config_error(
            {"link_accounts": ["@a:hs.example", "ldap:@root:hs.example"]},
            "link_accounts.1",
            "no password provider is called ldap",
        )
        output = await self.fail_to_start({"link_accounts": ["@root:elsewhere.example"]})
        self.assertIn("link_accounts.0: @root:elsewhere.example is no user of hs.example", output)

    async def test_key_of_homeserver_yaml(self) -> None:
        """A key that belongs into homeserver.yaml itself."""
        await self.assert_config_error(
            {"tokens": {"session_lifetime": "1d"}},
            "tokens.session_lifetime",
            "set it at the top level of homeserver.yaml",
        )

    async def test_no_refreshable_lifetime(self) -> None:
        """Without refreshable access tokens there is nothing to refresh."""
        output = await self.fail_to_start(synapse={"refreshable_access_token_lifetime": None})
        self.assertIn(
            "synapse_login_module needs refreshable_access_token_lifetime in homeserver.yaml",
            output,
        )

    async def test_delegated_authentication(self) -> None:
        """With Matrix Authentication Service the tokens are not Synapse's."""
        output = await self.fail_to_start(
            synapse={
                "matrix_authentication_service": {
                    "enabled": True,
                    "endpoint": "http://127.0.0.1:1/",
                    "secret": "shared-with-the-service",
                },
                "login_via_existing_session": {"enabled": False},
            }
        )
        self.assertIn(
            "matrix_authentication_service is enabled, so Synapse leaves logins, refreshes and"
            " their tokens to it: give synapse_login_module config: {delegated: true}",
            output,
        )

    async def test_passwords_disabled(self) -> None:
        """With password_config off, Synapse starts and logs what that means for the module."""
        server = SynapseServer(Profile("off", synapse={"password_config": {"enabled": False}}))
        self.addCleanup(server.remove)
        await server.start()
        self.assertIn("password_config.enabled is off", server.log())
        await server.stop()

    async def test_provider_for_synapse(self) -> None:
        """Synapse's own accounts can be named as a provider."""
        name = "synapse_login_module.providers.SynapsePasswordProvider"
        server = SynapseServer(Profile("own", module={"password_providers": [{"module": name}]}))
        self.addCleanup(server.remove)
        await server.start()
        await server.stop()


class SetUpTests(HomeserverCase):
    """The table of the module's own."""

    profile = Profile("set-up")

    async def test_tried_again(self) -> None:
        """Where it cannot be made at the start it is made later, and refreshes wait for it."""
        pair = await self.client.pair()
        await self.server.stop()
        self.server.query("DROP TABLE synapse_login_sessions")
        self.server.query("CREATE VIEW synapse_login_sessions AS SELECT 1 AS session_id")
        await self.server.start()
        await until(lambda: "trying again in 2 s" in self.logged(), "two attempts")
        answer = await self.client.tokenrefresh(pair)
        self.assertEqual((answer.status, answer.media_type), (503, "text/plain"), str(answer))
        self.server.query("DROP VIEW synapse_login_sessions")
        await until(self.is_made, "the table")
        await self.assert_live(await self.client.rotate(pair))

    def is_made(self) -> bool:
        """Whether the table is there."""
        return bool(
            self.server.query(
                "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
                "synapse_login_sessions",
            )
        )
