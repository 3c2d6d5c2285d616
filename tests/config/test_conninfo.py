"""Tests for PostgreSQL connection strings."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config.conninfo import read, unverified_host

FAR = "host=db.example.com"


class UnverifiedHostTests(SynchronousTestCase):
    """The search for a remote host that libpq does not verify."""

    def setUp(self) -> None:
        kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
        self.addCleanup(os.environ.update, kept)

    def found(self, conninfo: str, **environment: str) -> str | None:
        """Return the host that is not verified."""
        os.environ.update(environment)
        try:
            return unverified_host(read("dsn", conninfo))
        finally:
            for name in environment:
                del os.environ[name]

    def test_unverified(self) -> None:
        """Any sslmode below verify-full does not verify the host."""
        for conninfo, host in (
            (FAR, "db.example.com"),
            (f"{FAR} sslmode=require", "db.example.com"),
            (f"{FAR} sslmode=verify-ca sslrootcert=ca.pem", "db.example.com"),
            ("postgresql://me@db.example.com:5432/x?sslmode=prefer", "db.example.com"),
            ("host=10.1.2.3", "10.1.2.3"),
            ("hostaddr=10.1.2.3", "10.1.2.3"),
            ("host=localhost hostaddr=10.1.2.3", "localhost"),
            ("host=localhost,db.example.com", "db.example.com"),
        ):
            self.assertEqual(self.found(conninfo), host, conninfo)
        self.assertEqual(self.found("dbname=x", PGHOST="db.example.com"), "db.example.com")

    def test_verified(self) -> None:
        """verify-full, the system's authorities and Kerberos verify the host."""
        for conninfo in (
            f"{FAR} sslmode=verify-full sslrootcert=ca.pem",
            f"{FAR} sslrootcert=system",
            f"{FAR} gssencmode=require",
            f"{FAR} service=shop",
        ):
            self.assertIsNone(self.found(conninfo), conninfo)
        self.assertIsNone(self.found(FAR, PGSSLMODE="verify-full"))

    def test_local(self) -> None:
        """Connections on this machine need no verification."""
        for conninfo in (
            "dbname=x",
            "host=/var/run/postgresql",
            "host=@abstract",
            "host=localhost",
            "host=127.0.0.1,::1",
            "host=db.example.com hostaddr=127.0.0.1",
        ):
            self.assertIsNone(self.found(conninfo), conninfo)
