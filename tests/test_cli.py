"""Tests for the commands, run as an operator runs them."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import __version__, testing
from synapse_login_module.accounts.listing import all_sessions
from synapse_login_module.cli import main
from synapse_login_module.hashes import parse_hash
from synapse_login_module.passwords import check_password
from synapse_login_module.stores import MemoryTokenStore
from synapse_login_module.testing import SERVER_NAME
from synapse_login_module.tokens.format import TokenKind, parse
from tests.support import REPOSITORY
from tests.support.accounts import ALICE, ALICE_PASSWORD
from tests.support.broken_configurations import (
    COMMON_MISTAKES,
    Broken,
    broken_configs,
    messages,
)
from tests.support.commands import invoke
from tests.support.configuration import good_config, password_hash, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.process import cli, subprocess_environment
from tests.support.server import start_server
from tests.support.sessions import make_files
from tests.support.terminal import at_terminal
from tests.support.waiting import TIMEOUT

V3 = "/_matrix/client/v3"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("hash-password",),
    ("check-config",),
    ("check-login",),
    ("doctor",),
    ("create-login-token",),
    ("show-keys",),
    ("rotate-key",),
    ("activate-key",),
    ("retire-key",),
    ("sessions",),
    ("sessions", "list"),
    ("sessions", "revoke"),
    ("sessions", "expire"),
    ("links",),
    ("links", "list"),
    ("links", "link"),
    ("links", "unlink"),
    ("links", "relink"),
    ("import-synapse",),
)


class CommandCase(SynchronousTestCase):
    """A test case that runs commands."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        environment = {**os.environ, "COLUMNS": "100"}
        self.patch(os, "environ", environment)

    def config(self, **changes: Any) -> Path:
        """Write a valid configuration file with changes."""
        return write_config(self.folder, {**good_config(), **changes})

    def invoke(self, arguments: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
        """Run a command, in a process of its own if it needs a reactor."""
        in_reactor = {"links", "sessions", "create-login-token"}
        in_reactor |= {"show-keys", "rotate-key", "retire-key"}
        if "--help" not in arguments and in_reactor.intersection(arguments[:1]):
            return cli(*arguments, given=given)
        return invoke(*arguments, given=given)

    def good(self, *arguments: str, given: str = "") -> str:
        """Run a command successfully; return its output."""
        done = self.invoke(arguments, given)
        self.assertEqual((done.returncode, done.stderr), (0, ""), arguments)
        return done.stdout

    def bad(self, *arguments: str, given: str = "", status: int = 1) -> str:
        """Run a command that fails with one line and prints nothing; return the line."""
        # Wrong arguments are rejected before a reactor is needed.
        done = invoke(*arguments, given=given) if status == 2 else self.invoke(arguments, given)
        self.assertEqual((done.returncode, done.stdout), (status, ""), (arguments, done.stderr))
        self.assertNotIn("Traceback", done.stderr)
        if status == 1:
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertTrue(done.stderr.startswith("synapse-login-module: "), done.stderr)
        return done.stderr


class HelpTests(CommandCase):
    """The help texts and usage errors."""

    def test_help(self) -> None:
        """Every command has a help text."""
        for command in ((), *COMMANDS):
            said = self.good(*command, "--help")
            self.assertTrue(said.startswith("Usage: synapse-login-module"), command)
            self.assertLessEqual(max(map(len, said.splitlines())), 100)
        said = self.good("--help")
        for command in COMMANDS:
            self.assertIn(command[0], said)
        for command in ((), ("sessions",), ("links",)):
            self.assertNotRegex(self.good(*command, "--help"), r"\w\.\.\.\n")

    def test_every_argument_is_explained(self) -> None:
        """Every argument has a help text."""
        for command in COMMANDS:
            for line in self.good(*command, "--help").splitlines():
                self.assertIsNone(re.fullmatch(r"  (-\S+|[A-Z]+)", line), f"{command}: {line}")

    def test_process(self) -> None:
        """The program runs as a process."""
        done = cli("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, self.good("--help"))
        done = cli("hash-password", "--rounds", "4", given="secret\n")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(check_password("secret", done.stdout.strip(), ""))

    def test_version(self) -> None:
        """``--version`` prints the version of the package."""
        self.assertEqual(self.good("--version").split(), ["synapse-login-module", __version__])

    def test_not_understood(self) -> None:
        """An unknown command or a missing argument gives status 2 and the usage."""
        for arguments in (
            (),
            ("nonsense",),
            ("sessions",),
            ("sessions", "nonsense"),
            ("check-config",),
            ("check-config", "a", "b"),
            ("create-login-token", "alice"),
            ("create-login-token", "-c", "x.yaml"),
            ("sessions", "revoke", "-c", "x.yaml"),
            ("hash-password", "secret"),
            ("hash-password", "--rounds", "3"),
            ("hash-password", "--rounds", "32"),
            ("hash-password", "--rounds", "many"),
            ("hash-password", "--provider", "bcrypt"),
            ("hash-password", "-c", "x.yaml", "--pepper-file", "x"),
        ):
            self.assertIn("Usage: synapse-login-module", self.bad(*arguments, status=2))

    def test_closest(self) -> None:
        """A misspelled command gives a suggestion."""
        for arguments, near in (
            (("sesions",), "sessions"),
            (("check",), "check-config or check-login"),
            (("Links",), "links"),
            (("revoke",), "sessions revoke"),
            (("list",), "links list or sessions list"),
            (("sessions", "remove"), "revoke"),
            (("links", "unlnik"), "unlink"),
        ):
            said = self.bad(*arguments, status=2).splitlines()[-1]
            self.assertTrue(said.endswith(f" Did you mean {near}?"), said)
        for arguments in (("nonsense",), ("",)):
            self.assertNotIn("Did you mean", self.bad(*arguments, status=2))
        self.assertIn("--config", self.bad("sessions", "list", "--confg", "x", status=2))

    def test_completion(self) -> None:
        """Shells complete the commands of a group and the names of files."""
        for typed, completed in (
            ("sessions ", {"plain,list", "plain,revoke", "plain,end-gone"}),
            ("check-config ", {"file,"}),
            ("links list --homeserver-config ", {"file,"}),
            ("rotate-key -c ", {"file,"}),
            ("rotate-key --c", {"plain,--config"}),
        ):
            words = f"synapse-login-module {typed}"
            place = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
            self.patch(
                os,
                "environ",
                {**os.environ, **place, "_SYNAPSE_LOGIN_MODULE_COMPLETE": "bash_complete"},
            )
            with self.assertRaises(SystemExit), redirect_stdout(_text()) as output:
                main([])
            said = output.buffer.getvalue().decode()
            self.assertLessEqual(completed, set(said.split()), typed)


class HashPasswordTests(CommandCase):
    """``hash-password``."""

    def hash(self, password: str, *options: str) -> str:
        """Hash a password from a pipe; return the hash."""
        return self.good("hash-password", "--rounds", "4", *options, given=password).strip()

    def pepper_file(self, text: str) -> Path:
        """Write a file with a pepper."""
        path = self.folder / "pepper"
        path.write_text(text)
        return path

    def test_pepper_in_the_open(self) -> None:
        """A pepper as an argument is rejected with advice, and is not quoted."""
        said = self.bad("hash-password", "--pepper", "sesame", given="secret", status=2)
        self.assertIn("--pepper-file FILE", said)
        self.assertNotIn("sesame", said)
        self.assertNotIn("--pepper TEXT", self.good("hash-password", "--help"))

    def test_bad_pepper_files(self) -> None:
        """A file with anything but one line is rejected."""
        for text in ("", "\n", "one\ntwo\n"):
            path = self.pepper_file(text)
            said = self.bad("hash-password", "--pepper-file", str(path), given="secret")
            self.assertIn(f"{path}: must hold exactly one line", said)
        path.write_bytes(b"\xff")
        self.assertIn("UTF-8", self.bad("hash-password", "--pepper-file", str(path), given="x"))
        path.unlink()
        self.assertIn(str(path), self.bad("hash-password", "--pepper-file", str(path), given="x"))

    def test_configuration(self) -> None:
        """The pepper and cost come from a configuration, even before its users file exists."""
        bcrypt = {
            "module": "synapse_login_module.providers.BcryptProvider",
            "config": {"path": "to-be-made.yaml", "pepper": "sesame"},
        }
        ldap = {"module": "synapse_login_module.providers.LDAPProvider", "config": {}}
        path = self.config(password_providers=[ldap, bcrypt], hashing={"rounds": 5})
        hashed = self.good("hash-password", "-c", str(path), given="secret").strip()
        self.assertTrue(check_password("secret", hashed, "sesame"))
        self.assertEqual(str(parse_hash(hashed).kind), "bcrypt cost=5")
        weaker = self.invoke(["hash-password", "-c", str(path), "--rounds", "4"], "secret")
        self.assertEqual(str(parse_hash(weaker.stdout.strip()).kind), "bcrypt cost=4")
        self.assertIn("hashing says bcrypt cost=5: this hash is weaker", weaker.stderr)

        other = {**bcrypt, "name": "other", "config": {"path": "x", "pepper": "salt"}}
        path = self.config(password_providers=[bcrypt, other], hashing={"rounds": 4})
        said = self.bad("hash-password", "-c", str(path), given="secret")
        self.assertIn("bcrypt, other; give --provider", said)
        said = self.bad("hash-password", "-c", str(path), "--provider", "ldap", given="secret")
        self.assertIn("ldap is not among them", said)
        named = self.good("hash-password", "-c", str(path), "--provider", "other", given="secret")
        self.assertTrue(check_password("secret", named.strip(), "salt"))

        module = {"module": "synapse_login_module.SynapseLoginModule"}
        block = {"password_providers": [bcrypt], "hashing": {"rounds": 4}}
        path = write_config(self.folder, {"modules": [{**module, "config": block}]})
        hashed = self.good("hash-password", "-c", str(path), given="secret").strip()
        self.assertTrue(check_password("secret", hashed, "sesame"))

    def test_terminal(self) -> None:
        """At a terminal the password is asked for twice; Ctrl-D and Ctrl-C end the command."""
        for typed, status, problem in (
            (b"secret\nsecret\n", 0, ""),
            (b"secret\nother\n", 1, "synapse-login-module: the passwords differ"),
            (b"\x04", 1, "synapse-login-module: no password given: the input has ended"),
            (b"secret\n\x04", 1, "synapse-login-module: no password given: the input has ended"),
            (b"\x03", 130, ""),
        ):
            ended, said = at_terminal(typed, "hash-password", "--rounds", "4")
            self.assertEqual(ended, status, said)
            self.assertNotIn("Traceback", said)
            self.assertIn(problem, said)
            self.assertNotIn("secret", said)

    def test_pipe(self) -> None:
        """One line from a pipe is hashed, without its line end."""
        for given in ("secret", "secret\n", "secret\r\n", "secret\nmore\n"):
            self.assertTrue(check_password("secret", self.hash(given), ""))
        self.assertTrue(check_password(" é \u212b ", self.hash(" é \u212b \n"), ""))
        self.assertTrue(check_password("x" * 100, self.hash("x" * 100), ""))

    def test_options(self) -> None:
        """The options set the cost and the pepper."""
        hashed = self.hash("secret", "--pepper-file", str(self.pepper_file("salt and pepper\n")))
        self.assertEqual(str(parse_hash(hashed).kind), "bcrypt cost=4")
        self.assertTrue(check_password("secret", hashed, "salt and pepper"))
        hashed = self.good("hash-password", "--rounds", "5", given="secret").strip()
        self.assertEqual(str(parse_hash(hashed).kind), "bcrypt cost=5")

    def test_formats(self) -> None:
        """``--format`` chooses, or else the configuration; a weaker one is told."""
        made = self.good("hash-password", "--format", "argon2id", given="secret").strip()
        self.assertEqual(str(parse_hash(made).kind), "argon2id m=19456 t=2 p=1")
        self.assertTrue(check_password("secret", made, ""))
        keys: dict[str, object] = {"path": "to-be-made", "pepper": "sesame", "normalize": True}
        provider = {
            "module": "synapse_login_module.providers.PasswdProvider",
            "config": keys,
        }
        hashing = {"format": "argon2id", "rounds": 4, "argon2": {"memory": 1024}}
        path = self.config(password_providers=[provider], hashing=hashing)
        made = self.good("hash-password", "-c", str(path), given="e\u0301").strip()
        self.assertEqual(str(parse_hash(made).kind), "argon2id m=1024 t=2 p=1")
        self.assertTrue(check_password("\u00e9", made, "sesame", True))
        for options in (("--format", "bcrypt"), ("--rounds", "4")):
            other = self.invoke(["hash-password", "-c", str(path), *options], "secret")
            self.assertEqual(str(parse_hash(other.stdout.strip()).kind), "bcrypt cost=4")
            self.assertIn("hashing says argon2id m=1024 t=2 p=1: this", other.stderr)
        for wrong in (["--format", "md5"], ["--format", "argon2id", "--rounds", "5"]):
            self.bad("hash-password", *wrong, given="secret", status=2)
        keys["normalize"] = "yes"
        path = self.config(password_providers=[provider])
        said = self.bad("hash-password", "-c", str(path), given="secret")
        self.assertIn("config.normalize: must be true or false", said)

    def test_salt(self) -> None:
        """Two hashes of one password differ."""
        self.assertNotEqual(self.hash("secret"), self.hash("secret"))

    def test_nothing(self) -> None:
        """An empty password is rejected."""
        for given in ("", "\n", "\r\n", "\nsecret\n"):
            self.bad("hash-password", given=given)

    def test_bytes(self) -> None:
        """Bytes that are no text are rejected in one line."""
        for variables in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
            done = subprocess.run(
                [sys.executable, "-m", "synapse_login_module.cli", "hash-password"],
                input=b"\xff\xfe\n",
                capture_output=True,
                env={**subprocess_environment(), **variables},
                cwd=self.folder,
                timeout=TIMEOUT,
                check=False,
            )
            self.assertEqual((done.returncode, done.stdout), (1, b""), done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_good_for_the_provider(self) -> None:
        """The hash works in a users file."""
        users = {"users": {"alice": {"password_hash": self.hash("secret")}}}
        path = self.folder / "users.yaml"
        path.write_text(yaml.safe_dump(users))
        path.chmod(0o600)
        provider = "synapse_login_module.providers.BcryptProvider"
        config = self.config(
            password_providers=[{"module": provider, "config": {"path": "users.yaml"}}]
        )
        self.good("check-config", str(config))


class CheckConfigTests(CommandCase):
    """``check-config``."""

    def test_good(self) -> None:
        """A valid file is reported as good, and nothing is written."""
        path = str(self.config())
        self.assertEqual(self.good("check-config", path), f"{path}: good\n")
        self.assertEqual(os.listdir(self.folder), ["config.yaml"])

    def test_sample(self) -> None:
        """The sample configuration is valid."""
        self.good("check-config", str(REPOSITORY / "sample_config.yaml"))

    def test_broken(self) -> None:
        """Any mistake is reported in one line with the file and the path."""
        wrong = []
        for each in broken_configs(self.folder):
            end = self.invoke(["check-config", str(each.config)], "")
            if (end.returncode, end.stdout) != (1, "") or not _is_told(each, end.stderr):
                wrong.append(f"{each.name}: {end}")
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_pipe(self) -> None:
        """The file is read only once, so that it may be a pipe."""
        done = cli("check-config", "/dev/stdin", given=self.config().read_text())
        self.assertEqual((done.returncode, done.stdout), (0, "/dev/stdin: good\n"), done.stderr)

    def test_symbolic_link(self) -> None:
        """Relative paths start at the folder of a symbolic link to the file."""
        path = self.config()
        (self.folder / "elsewhere").mkdir()
        path.rename(self.folder / "elsewhere" / "config.yaml")
        path.symlink_to("elsewhere/config.yaml")
        self.assertEqual(self.good("check-config", str(path)), f"{path}: good\n")

    def test_every_mistake(self) -> None:
        """Each mistake is reported on its own line, and their number at the end."""
        for each in messages(self.folder):
            if each.name == "Synapse's file":
                continue  # that file is checked as Synapse's
            done = self.invoke(["check-config", str(each.config)], "")
            self.assertEqual((done.returncode, done.stdout), (1, ""), each.name)
            lines = list(each.lines)
            if len(lines) > 1:
                lines.append(f"{len(lines)} mistakes")
            start = f"synapse-login-module: {each.config}: "
            self.assertEqual(done.stderr, "".join(f"{start}{line}\n" for line in lines))

    def test_warnings(self) -> None:
        """Warnings are on standard error, and the file is reported as good."""
        config = good_config()
        config["password_providers"][0]["config"]["pepper"] = "geheim"
        path = write_config(self.folder, config)
        path.chmod(0o644)
        done = self.invoke(["check-config", str(path)], "")
        self.assertEqual((done.returncode, done.stdout), (0, f"{path}: good\n"))
        self.assertIn(f"{path}: warning: everybody can read the file", done.stderr)
        self.assertIn(f"chmod o-rwx {path}", done.stderr)
        self.assertNotIn("geheim", done.stderr)

    def test_not_tried(self) -> None:
        """Services that were not tried are named after "good"."""
        providers = [
            {
                "module": "synapse_login_module.providers.HTTPProvider",
                "config": {"endpoint": "https://auth.invalid"},
            }
        ]
        said = self.good("check-config", str(self.config(password_providers=providers)))
        self.assertTrue(said.endswith(": good; not tried: the service at https://auth.invalid\n"))

    def test_broken_in_processes(self) -> None:
        """Common mistakes give the same line and status 1 in a process."""
        broken = [each for each in broken_configs(self.folder) if each.name in COMMON_MISTAKES]
        self.assertEqual(len(broken), len(COMMON_MISTAKES))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ends = list(pool.map(lambda each: cli("check-config", str(each.config)), broken))
        for each, end in zip(broken, ends, strict=True):
            self.assertEqual((end.returncode, end.stdout), (1, ""), each.name)
            self.assertTrue(_is_told(each, end.stderr), f"{each.name}: {end.stderr}")


def _text() -> Any:
    """Make a text stream over bytes, like standard output."""
    return io.TextIOWrapper(io.BytesIO())


def _is_told(broken: Broken, said: str) -> bool:
    """Return whether one line names the file and the path."""
    path = broken.path and f"{broken.path}: "
    start = f"synapse-login-module: {broken.config}: {path}"
    return said.startswith(start) and len(said.splitlines()) == 1


class StoreTests(CommandCase):
    """The commands on the store, without a running server."""

    def test_nothing_there_yet(self) -> None:
        """A store without logins lists no sessions."""
        config = self.config()
        make_files(config)
        self.assertEqual(self.good("sessions", "list", "-c", str(config)), "")
        for command in ("list", "revoke"):
            self.bad("sessions", command, "-c", str(config), "alice")

    def test_bad_config(self) -> None:
        """A mistake in the configuration gives the line of ``check-config``."""
        config = str(self.config(lisen=[]))
        for command in (
            ("create-login-token", "-c", config, "alice"),
            ("rotate-key", "-c", config),
            ("sessions", "list", "-c", config),
            ("sessions", "revoke", "-c", config, "alice"),
        ):
            self.assertIn(f"{config}: lisen: ", self.bad(*command))

    def test_sessions_in_memory(self) -> None:
        """With a store in memory, one line says that commands cannot read it."""
        store = {"module": "synapse_login_module.stores.MemoryTokenStore"}
        config = str(self.config(token_store=store))
        for command in (
            ("create-login-token", "-c", config, "alice"),
            ("sessions", "list", "-c", config),
            ("sessions", "revoke", "-c", config, "alice"),
        ):
            self.assertIn(f"{config}: token_store: ", self.bad(*command))

    def test_unknown_user(self) -> None:
        """A login token is refused for an unknown user."""
        config = str(self.config())
        make_files(Path(config))
        for user in ("nobody", "@alice:elsewhere.example", "", f"@nobody:{SERVER_NAME}"):
            self.bad("create-login-token", "-c", config, user)

    def test_no_token_without_use(self) -> None:
        """A login token is refused for a locked or deactivated user, and the line says why."""
        for status in ("locked", "deactivated"):
            users = {"alice": {"password_hash": password_hash(ALICE_PASSWORD), status: True}}
            config = write_config(self.folder, good_config(users=users))
            make_files(config)
            line = self.bad("create-login-token", "-c", str(config), "alice")
            self.assertIn(f"@alice:{SERVER_NAME} is {status}", line)

    def test_rotate_key(self) -> None:
        """A new key is added, and signs once it is activated; the old one is kept."""
        config, key_file = str(self.config()), self.folder / "token.key"
        make_files(Path(config))
        key_file.chmod(0o640)
        before = key_file.read_text()
        said = self.good("rotate-key", "-c", config)
        self.assertIn("key 2 added", said)
        self.assertIn("Copy the file", said)
        after = key_file.read_text()
        self.assertTrue(after.startswith(before))
        self.assertTrue(after.endswith(" new\n"))
        self.assertIn("key 2", self.good("activate-key", "-c", config))
        self.assertEqual(key_file.read_text(), after.replace(" new\n", "\n"))
        self.assertIn("key 2", self.bad("activate-key", "-c", config))
        self.assertEqual(key_file.stat().st_mode & 0o777, 0o640)

    def test_confirmation(self) -> None:
        """Commands that cannot be undone ask at a terminal, and need ``--yes`` elsewhere."""
        config = str(self.config())
        make_files(Path(config))
        self.good("rotate-key", "--now", "-c", config)
        for command in (("retire-key", "1"), ("sessions", "expire")):
            self.assertIn("--yes", self.bad(*command, "-c", config, status=2, given="y\n"))
            for typed, status in ((b"n\n", 1), (b"y\n", 0)):
                ended, said = at_terminal(typed, *command, "-c", config)
                self.assertEqual(ended, status, said)
                self.assertIn("[y/N]", said)

    def test_rotate_key_now(self) -> None:
        """``rotate-key --now`` adds and activates a key."""
        config = str(self.config())
        make_files(Path(config))
        self.assertNotIn("Copy", self.good("rotate-key", "--now", "-c", config))
        self.assertNotIn("new", (self.folder / "token.key").read_text())
        self.bad("activate-key", "-c", config)

    def test_retire_key(self) -> None:
        """The signing key cannot be retired; an old key is retired for all machines."""
        config, key_file = str(self.config()), self.folder / "token.key"
        make_files(Path(config))
        self.good("create-login-token", "-c", config, "alice")
        self.assertIn("key 1 signs", self.bad("retire-key", "-c", config, "1"))
        self.assertIn("no key 7", self.bad("retire-key", "--yes", "-c", config, "7"))
        self.assertIn("show-keys", self.bad("retire-key", "-c", config, "one", status=2))
        self.good("rotate-key", "--now", "-c", config)
        self.good("create-login-token", "-c", config, "alice")
        listed = self.good("show-keys", "-c", config).splitlines()
        self.assertEqual([line.split("\t")[:2] for line in listed], [["1", "good"], ["2", "signs"]])
        before = key_file.read_text()
        self.assertIn("removed from", self.good("retire-key", "--yes", "-c", config, "1"))
        self.assertEqual(key_file.read_text(), before.splitlines(keepends=True)[1])
        self.assertEqual(
            self.good("retire-key", "--yes", "-c", config, "1"), "key 1 was retired already\n"
        )
        key_file.write_text(before)
        self.assertEqual(
            self.good("retire-key", "--yes", "-c", config, "1"),
            f"key 1 was retired already, and is now removed from {key_file}\n",
        )
        listed = self.good("show-keys", "-c", config).splitlines()
        self.assertEqual(
            [line.split("\t")[:2] for line in listed], [["1", "retired"], ["2", "signs"]]
        )

    def test_no_id_twice(self) -> None:
        """A new key never gets the id of a retired key or of another machine's."""
        config, key_file = str(self.config()), self.folder / "token.key"
        make_files(Path(config))
        self.good("create-login-token", "-c", config, "alice")
        alone = key_file.read_text()
        self.good("rotate-key", "--now", "-c", config)
        self.good("create-login-token", "-c", config, "alice")
        key_file.write_text(alone)
        self.assertIn("2\tmissing\t", self.good("show-keys", "-c", config))
        self.assertIn("key 3 added", self.good("rotate-key", "-c", config))
        self.assertIn("3\tnew\t", self.good("show-keys", "-c", config))

    def test_expire(self) -> None:
        """``sessions expire`` ends all sessions once it is confirmed."""
        config = str(self.config())
        make_files(Path(config))
        self.bad("sessions", "expire", "-c", config, status=2)
        self.assertEqual(
            self.good("sessions", "expire", "--yes", "-c", config), "0 sessions have ended\n"
        )

    def test_rotate_no_key(self) -> None:
        """Without a key file there is no key to rotate."""
        for command in (
            ("rotate-key",),
            ("activate-key",),
            ("show-keys",),
            ("retire-key", "1", "--yes"),
        ):
            line = self.bad(*command, "-c", str(self.config()))
            self.assertIn("tokens.key_file: there is no", line)
            self.assertIn("the server makes it at its first start", line)
            self.assertFalse((self.folder / "token.key").exists())

    def test_damaged_database(self) -> None:
        """A database that is damaged behind its header gives one line."""
        config = str(self.config())
        make_files(Path(config))
        database = sqlite3.connect(self.folder / "sessions.db")
        database.execute("DROP TABLE sessions")
        database.close()
        self.assertIn(config, self.bad("sessions", "list", "-c", config))


def key_of(kind: TokenKind, token: str) -> int:
    """Return the key id of a token."""
    parsed = parse(kind, token)
    assert parsed is not None
    return parsed.key_id


class OrderTests(SynchronousTestCase):
    """The order of sessions."""

    def test_within_a_second(self) -> None:
        """The oldest session comes first, even within one second."""
        clock = Clock()
        clock.advance(1_000_000_000)
        falling = iter(range(255, 0, -1))
        environment = dataclasses.replace(
            testing.environment(clock=clock), random=lambda size: bytes([next(falling)]) * size
        )
        store = MemoryTokenStore(None, environment)
        devices = ["FIRST", "SECOND", "THIRD"]
        for device in devices:
            self.successResultOf(store.issue(ALICE, device, None, True, True))
            clock.advance(0.01)
        listed = self.successResultOf(Deferred.fromCoroutine(all_sessions(store, ALICE)))
        self.assertEqual([session.device_id for session in listed], devices)


class RunningTests(CommandCase):
    """The commands while a server runs."""

    def setUp(self) -> None:
        super().setUp()
        port = free_port()
        path = write_config(self.folder, good_config(port))
        self.path = str(path)
        self.server = start_server(path, port)
        self.addCleanup(self.server.stop)

    def log_in(self, **more: object) -> dict[str, Any]:
        """Log in."""
        payload = {"type": "m.login.password", "user": "alice", "password": ALICE_PASSWORD}
        more = {"refresh_token": True, **more}
        status, answer = self.server.ask("POST", f"{V3}/login", {**payload, **more})
        self.assertEqual(status, 200, answer)
        assert isinstance(answer, dict)
        return answer

    def whoami(self, token: str) -> int:
        """Ask the server for ``/account/whoami`` with an access token."""
        return self.server.ask("GET", f"{V3}/account/whoami", token=token)[0]

    def test_create_login_token(self) -> None:
        """A token from the command logs in at the running server, once."""
        for user in ("alice", ALICE):
            token = self.good("create-login-token", "-c", self.path, user)
            self.assertEqual(len(token.splitlines()), 1)
            payload = {"type": "m.login.token", "token": token.strip()}
            status, answer = self.server.ask("POST", f"{V3}/login", payload)
            self.assertEqual((status, answer.get("user_id")), (200, ALICE))
            status, answer = self.server.ask("POST", f"{V3}/login", payload)
            self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    def test_rotate_key(self) -> None:
        """A new key works for commands and for the running server, without a restart."""
        old = self.log_in()["access_token"]
        self.good("rotate-key", "-c", self.path)
        token = self.good("create-login-token", "-c", self.path, "alice").strip()
        self.assertEqual(key_of(TokenKind.LOGIN, token), 1)
        self.good("activate-key", "-c", self.path)
        token = self.good("create-login-token", "-c", self.path, "alice").strip()
        self.assertEqual(key_of(TokenKind.LOGIN, token), 2)
        payload = {"type": "m.login.token", "token": token}
        status, new = self.server.ask("POST", f"{V3}/login", payload)
        self.assertEqual(status, 200, new)
        self.assertEqual(key_of(TokenKind.ACCESS, new["access_token"]), 2)
        for token in (old, new["access_token"], self.log_in()["access_token"]):
            self.assertEqual(self.whoami(token), 200)

    def test_canonical_user(self) -> None:
        """A login token is for the user ID in its stored spelling."""
        token = self.good("create-login-token", "-c", self.path, "ALICE").strip()
        payload = {"type": "m.login.token", "token": token}
        status, answer = self.server.ask("POST", f"{V3}/login", payload)
        self.assertEqual((status, answer.get("user_id")), (200, ALICE))

    def test_sessions(self) -> None:
        """Sessions are listed, and revoked by user and by device; their tokens end at once."""
        logins = [
            self.log_in(device_id=device, initial_device_display_name=name)
            for device, name in (("PHONE", "My phone"), ("TABLET", "é\n\tevil"), ("TV", None))
        ]
        listed = self.good("sessions", "list", "-c", self.path).splitlines()
        self.assertEqual(
            sorted(line.split("\t")[:2] for line in listed),
            [[ALICE, login["device_id"]] for login in logins],
        )
        self.assertTrue(
            all(line.isascii() and line.isprintable() for line in "".join(listed).split("\t"))
        )
        self.assertEqual(sum("My phone" in line for line in listed), 1)
        for user in ("alice", ALICE):
            self.assertEqual(
                len(self.good("sessions", "list", "-c", self.path, user).splitlines()), 3
            )
        self.assertIn("bob: ", self.bad("sessions", "list", "-c", self.path, "bob"))
        said = self.good("sessions", "revoke", "-c", self.path, "alice", "PHONE")
        self.assertEqual(said, "1 sessions revoked\n")
        statuses = [self.whoami(login["access_token"]) for login in logins]
        self.assertEqual(statuses, [401, 200, 200])
        refresh = {"refresh_token": logins[0]["refresh_token"]}
        status, answer = self.server.ask("POST", f"{V3}/refresh", refresh)
        self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))
        said = self.bad("sessions", "revoke", "-c", self.path, "alice", "NOWHERE")
        self.assertIn("no session on the device NOWHERE", said)
        said = self.good("sessions", "revoke", "-c", self.path, ALICE)
        self.assertEqual(said, "2 sessions revoked\n")
        statuses = [self.whoami(login["access_token"]) for login in logins]
        self.assertEqual(statuses, [401, 401, 401])
        self.assertEqual(self.good("sessions", "list", "-c", self.path), "")
        self.log_in()

    def test_odd_devices(self) -> None:
        """A device ID cannot forge a line or a column of the list."""
        odd = "A\n@root:example.com\tB\x1b[2Jé\u202e"
        self.log_in(device_id=odd)
        listed = self.good("sessions", "list", "-c", self.path)
        self.assertEqual(len(listed.splitlines()), 1, listed)
        self.assertEqual(listed.count("\t"), 4)
        self.assertTrue(listed.replace("\t", "").rstrip("\n").isprintable())

    def test_no_secrets(self) -> None:
        """The list shows no token."""
        login = self.log_in()
        listed = self.good("sessions", "list", "-c", self.path)
        for name in ("access_token", "refresh_token"):
            self.assertNotIn(login[name], listed)

    def test_clean_end(self) -> None:
        """The server stops cleanly after commands have used its store."""
        self.good("sessions", "list", "-c", self.path)
        self.log_in()
        self.good("sessions", "list", "-c", self.path)
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(len(self.good("sessions", "list", "-c", self.path).splitlines()), 1)
