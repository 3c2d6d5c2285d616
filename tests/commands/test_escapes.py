"""Text of a server that reaches a terminal: no character of it may steer the terminal."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading
from contextlib import redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.commands.program import Failure
from synapse_login_module.commands.report import report
from synapse_login_module.common.console import escaped
from synapse_login_module.tokens.keyfile import load_or_make
from tests.support.process import cli, require
from tests.support.waiting import TIMEOUT
from tests.test_cli import CommandCase

STEERING = "Zutritt für \x1b[31m\x1b]0;title\x07 und \x9b2J verboten"
SHOWN = "Zutritt für \\x1b[31m\\x1b]0;title\\x07 und \\x9b2J verboten"


class EscapedTests(SynchronousTestCase):
    """Lines of any origin."""

    def test_only_what_steers(self) -> None:
        """Every other character, and tabs, stay as they are."""
        self.assertEqual(escaped(f"{STEERING}\tä 漢\n\udc80"), f"{SHOWN}\tä 漢\\n\\udc80")

    def test_failure(self) -> None:
        """The reasons of a failure, one line each."""
        shown = io.StringIO()
        Failure(STEERING, "other").show(shown)
        self.assertEqual(
            shown.getvalue(), f"synapse-login-module: {SHOWN}\nsynapse-login-module: other\n"
        )

    def test_report(self) -> None:
        """What a command has done."""
        shown = io.StringIO()
        with redirect_stdout(shown), report() as say:
            say(f"done\t{STEERING}")
        self.assertEqual(shown.getvalue(), f"done\t{SHOWN}\n")


class PretendedPostgreSQL:
    """A server that refuses each connection with a message.

    :param message: the message.
    """

    def __init__(self, message: str) -> None:
        fields = b"SFATAL\0VFATAL\0C28000\0M" + message.encode() + b"\0\0"
        self._answer = b"E" + struct.pack("!I", len(fields) + 4) + fields
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(TIMEOUT)
                connection.recv(65536)
                connection.sendall(self._answer)

    def close(self) -> None:
        """Stop serving."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(TIMEOUT)


class HostileServerTests(CommandCase):
    """A database server whose message steers the terminal."""

    def use(self, dsn: str) -> Path:
        """Write a configuration whose store is in a database."""
        load_or_make(self.folder / "token.key", os.urandom)
        store = "synapse_login_module.stores.PostgreSQLTokenStore"
        return self.config(token_store={"module": store, "config": {"dsn": dsn}})

    def test_message(self) -> None:
        """The message is printed with its controls escaped."""
        require("psycopg")
        server = PretendedPostgreSQL(STEERING)
        self.addCleanup(server.close)
        config = self.use(f"host=127.0.0.1 port={server.port} user=a dbname=a sslmode=disable")
        done = cli("sessions", "list", "--config", str(config))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(SHOWN, done.stderr)
        self.assertEqual(escaped(done.stderr[:-1]), done.stderr[:-1])
