"""What ``doctor`` says about password providers, with real backends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer, provider

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Finding, Identifier, Level
from synapse_login_module.plugin import Environment, IPluginClass
from tests.doctor.case import DoctorCase, reactor
from tests.providers.ldap.case import ALICE, SEARCH
from tests.support.certificates import Authority, Certificate
from tests.support.configuration import CHEAP_HASH, password_hash
from tests.support.mariadb import DATABASE, shared_mariadb
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL, shared_postgresql
from tests.support.slapd import PEOPLE, READER_DN, Slapd

LDAP = "synapse_login_module.providers.LDAPProvider"
HTTP = "synapse_login_module.providers.HTTPProvider"
SQL = "synapse_login_module.providers.SQLProvider"
BCRYPT = "synapse_login_module.providers.BcryptProvider"

SECRET = "a-secret-that-nothing-prints"


class ProviderDoctorCase(DoctorCase):
    """A test with one provider."""

    async def examine(
        self, module: str, seconds: float = 15.0, entry: dict[str, Any] | None = None, **config: Any
    ) -> list[Finding]:
        """Run ``doctor`` on a configuration with this provider alone."""
        providers = [{"module": module, "config": config, **(entry or {})}]
        path = self.write(password_providers=providers)
        await self.use(path)
        findings = await self.diagnose(path, seconds)
        self.assertNotIn(SECRET, str(findings))
        return findings


class LDAPDoctorTests(ProviderDoctorCase):
    """Each server is connected to, bound to and searched."""

    def slapd(self, certificate: Certificate | None = None) -> Slapd:
        """Start a slapd with one account."""
        slapd = Slapd(certificate)
        self.addCleanup(slapd.remove)
        slapd.fill(ALICE)
        slapd.start()
        return slapd

    def tls(self, days: int) -> dict[str, Any]:
        """Start a slapd with a certificate; return its configuration."""
        authority = Authority()
        slapd = self.slapd(authority.sign("localhost", days=days))
        ca_file = authority.write(self.folder / "ca.pem")
        servers = [f"ldaps://localhost:{slapd.tls_port}"]
        return {**SEARCH, "servers": servers, "ca_file": str(ca_file)}

    async def test_well(self) -> None:
        """Connection, certificate, bind and search are each a line."""
        findings = await self.examine(LDAP, **self.tls(90))
        lines = str(self.assert_well(findings, "provider ldap"))
        for each in ("connected in", "good until", "is accepted in", "accounts are found"):
            self.assertIn(each, lines)

    async def test_name(self) -> None:
        """The area has the provider's name in the configuration."""
        findings = await self.examine(LDAP, entry={"name": "directory"}, **self.tls(90))
        self.assert_well(findings, "provider directory")

    async def test_certificate_ends_soon(self) -> None:
        """A certificate with less than thirty days left is a warning."""
        findings = await self.examine(LDAP, **self.tls(20))
        self.assert_line(
            findings, Level.WARNING, "provider ldap", "days from now", "renew the server's"
        )

    async def test_certificate_expired(self) -> None:
        """An expired certificate is a failure."""
        findings = await self.examine(LDAP, **self.tls(-1))
        found = "its certificate expired on"
        self.assert_line(findings, Level.FAILED, "provider ldap", found, "renew the server's")

    async def test_unknown_authority(self) -> None:
        """A certificate of an authority that is not trusted is a failure."""
        config = self.tls(90)
        Authority("another").write(Path(config["ca_file"]))
        findings = await self.examine(LDAP, **config)
        found = "not signed by a known authority"
        self.assert_line(findings, Level.FAILED, "provider ldap", found, "ca_file")

    async def test_wrong_bind_password(self) -> None:
        """A refused bind is a failure, without the password."""
        config: dict[str, Any] = {**SEARCH, "servers": [self.slapd().url], "bind_password": SECRET}
        findings = await self.examine(LDAP, **config)
        found = f"it refuses bind_dn {READER_DN}"
        self.assert_line(findings, Level.FAILED, "provider ldap", found, "bind_password_file")

    async def test_no_start_tls(self) -> None:
        """A server without StartTLS is a failure, and the advice is about TLS."""
        slapd = self.slapd()
        config: dict[str, Any] = {**SEARCH, "servers": [slapd.url], "start_tls": True}
        findings = await self.examine(LDAP, **config)
        found = "it refuses StartTLS"
        self.assert_line(findings, Level.FAILED, "provider ldap", found, "set up TLS")

    async def test_no_base(self) -> None:
        """A base that does not exist is a failure."""
        config: dict[str, Any] = {
            **SEARCH,
            "servers": [self.slapd().url],
            "base": "ou=nobody,dc=example,dc=com",
        }
        findings = await self.examine(LDAP, **config)
        found = "there is no ou=nobody,dc=example,dc=com"
        self.assert_line(findings, Level.FAILED, "provider ldap", found, "correct base")

    async def test_no_account(self) -> None:
        """A base without accounts is a warning."""
        base = "ou=others,dc=example,dc=com"
        config: dict[str, Any] = {**SEARCH, "servers": [self.slapd().url], "base": base}
        findings = await self.examine(LDAP, **config)
        found = f"sees no account below {base}"
        self.assert_line(findings, Level.WARNING, "provider ldap", found, "correct filter")

    async def test_away(self) -> None:
        """One of two servers that is away is one failure, and the other one is examined."""
        away = f"ldap://127.0.0.1:{free_port()}"
        config: dict[str, Any] = {**SEARCH, "servers": [away, self.slapd().url]}
        findings = await self.examine(LDAP, **config)
        one = self.assert_line(findings, Level.FAILED, "provider ldap", "refused", "servers")
        self.assertEqual(one.what, away)
        self.assertIn(f"accounts are found below {PEOPLE}", str(findings))

    async def test_hanging(self) -> None:
        """A server that accepts connections and says nothing is told within its timeout."""
        port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"ldap://127.0.0.1:{port.getHost().port}"
        config: dict[str, Any] = {
            **SEARCH,
            "servers": [url],
            "read_timeout": "1s",
            "connect_timeout": "1s",
        }
        findings = await self.examine(LDAP, **config)
        found = "did not answer within 1 seconds"
        self.assert_line(findings, Level.FAILED, "provider ldap", found, "hangs")


class Service(Resource):
    """An HTTP service.

    :param status: its status.
    :param says: its body.
    :ivar asked: the paths of the GET requests.
    """

    isLeaf = True

    def __init__(self, status: int, says: bytes = b"{}") -> None:
        super().__init__()
        self.status = status
        self.says = says
        self.posts = 0
        self.asked: list[bytes] = []
        self.authorization: str | None = None

    def render_GET(self, request: Any) -> bytes:
        self.asked.append(request.path)
        self.authorization = request.getHeader("authorization")
        request.setResponseCode(self.status)
        return self.says

    def render_POST(self, request: Any) -> bytes:
        self.posts += 1
        return b"{}"


class HTTPDoctorTests(ProviderDoctorCase):
    """The service is asked, and no login is posted to it."""

    def serve(self, service: Service, certificate: Certificate | None = None) -> str:
        """Serve it; return its URL."""
        site = Site(service)
        if certificate is None:
            port = reactor.listenTCP(0, site, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, site, certificate.server(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        scheme, host = ("http", "127.0.0.1") if certificate is None else ("https", "localhost")
        return f"{scheme}://{host}:{port.getHost().port}"

    async def test_statuses(self) -> None:
        """A service with a ``status_url`` is asked for an account that does not exist."""
        url = self.serve(Service(200, b'{"status": "unknown"}'))
        findings = await self.examine(HTTP, endpoint=url, status_url=f"{url}/{{localpart}}")
        self.assert_well(findings, "provider http")

    def of_ids(self, url: str) -> dict[str, Any]:
        """Configure a service that knows its accounts by ids."""
        return {
            "url": f"{url}/login",
            "request": {"name": "{localpart}", "password": "{password}"},
            "answer": {"subject": "id"},
            "status_url": f"{url}/{{subject}}",
        }

    async def test_ids(self) -> None:
        """A service that knows its accounts by ids is asked for one."""
        service = Service(200, b'{"status": "unknown"}')
        findings = await self.examine(HTTP, **self.of_ids(self.serve(service)))
        self.assert_well(findings, "provider http")
        self.assertEqual(service.asked, [b"/synapse-login-module-doctor"])

    async def test_ids_broken(self) -> None:
        """One that is away, fails or redirects is a failure."""
        dead = f"http://127.0.0.1:{free_port()}"
        for url, found, advice in (
            (dead, "ConnectionRefusedError", "start the server there"),
            (self.serve(Service(500)), "answered 500", "log of the service"),
            (self.serve(Service(302)), "answered 302", "correct status_url"),
        ):
            findings = await self.examine(HTTP, **self.of_ids(url))
            self.assert_line(findings, Level.FAILED, "provider http", found, advice)

    async def test_logins_alone(self) -> None:
        """A service without a ``status_url`` is sent a GET, and no login."""
        service = Service(405)
        findings = await self.examine(HTTP, endpoint=self.serve(service))
        self.assertIn("answered 405 to a GET", str(findings))
        self.assertEqual(service.posts, 0)
        found = "whether an account is still there"
        self.assert_line(findings, Level.WARNING, "provider http", found, "sessions revoke")

    async def test_broken(self) -> None:
        """A service that is unavailable is a failure; one that fails at a GET is a warning."""
        findings = await self.examine(HTTP, endpoint=self.serve(Service(503)))
        self.assert_line(
            findings, Level.FAILED, "provider http", "answered 503", "log of the service"
        )
        findings = await self.examine(HTTP, endpoint=self.serve(Service(500)))
        self.assert_line(
            findings, Level.WARNING, "provider http", "answered 500", "log of the service"
        )

    async def test_wrong_secret(self) -> None:
        """A service that refuses the secret is a failure, without the secret."""
        (self.folder / "secret").write_text(f"Bearer {SECRET}\n")
        (self.folder / "secret").chmod(0o600)
        url = self.serve(Service(401))
        findings = await self.examine(
            HTTP, endpoint=url, status_url=f"{url}/{{localpart}}", authorization_file="secret"
        )
        found = "the service answered 401"
        self.assert_line(findings, Level.FAILED, "provider http", found, "authorization_file")

    async def test_wrong_headers(self) -> None:
        """A service that refuses the secret headers names their file."""
        (self.folder / "headers").write_text(f"X-Key: {SECRET}\n")
        (self.folder / "headers").chmod(0o600)
        url = self.serve(Service(403))
        findings = await self.examine(HTTP, endpoint=url, headers_file="headers")
        self.assert_line(findings, Level.WARNING, "provider http", "403", "in headers_file")

    async def test_basic(self) -> None:
        """A service with Basic authentication refuses a GET without a user, as it should."""
        request = {"user": "{localpart}", "password": "{password}"}
        url = self.serve(Service(401))
        findings = await self.examine(HTTP, url=url, encoding="basic", request=request)
        self.assert_line(findings, Level.OK, "provider http", "without a user, as it should", "")

    async def test_basic_for_all(self) -> None:
        """One that takes a GET without a user takes any password, where the status is all that
        counts. The secret for ``status_url`` is not sent along.
        """
        (self.folder / "secret").write_text(f"Basic {SECRET}\n")
        (self.folder / "secret").chmod(0o600)
        request = {"user": "{localpart}", "password": "{password}"}
        service = Service(200, b'{"status": "unknown"}')
        url = self.serve(service)
        config: dict[str, Any] = {"url": url, "encoding": "basic", "request": request}
        asked = {"status_url": f"{url}/{{localpart}}", "authorization_file": "secret"}
        for each in (config, {**config, **asked}):
            findings = await self.examine(HTTP, **each)
            found = "answered 200 to a GET without a user: any password would be right"
            self.assert_line(findings, Level.FAILED, "provider http", found, "correct url")
            self.assertIsNone(service.authorization)
        findings = await self.examine(HTTP, **config, answer={"success": "ok"})
        self.assert_line(findings, Level.OK, "provider http", "a login was not tried", "")

    async def test_everybody_exists(self) -> None:
        """A service that knows an account that does not exist is a warning."""
        url = self.serve(Service(200, b'{"status": "active"}'))
        findings = await self.examine(HTTP, endpoint=url, status_url=f"{url}/{{localpart}}")
        found = "there is no such account"
        self.assert_line(findings, Level.WARNING, "provider http", found, "unknown_user_codes")

    async def test_away(self) -> None:
        """A service that is away is a failure."""
        findings = await self.examine(HTTP, endpoint=f"http://127.0.0.1:{free_port()}")
        found = "ConnectionRefusedError"
        self.assert_line(findings, Level.FAILED, "provider http", found, "start the server there")

    async def test_certificate_expired(self) -> None:
        """An expired certificate is one failure."""
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        url = self.serve(Service(405), authority.sign("localhost", days=-1))
        findings = await self.examine(HTTP, endpoint=url, ca_file="ca.pem")
        found = "its certificate expired on"
        self.assert_line(findings, Level.FAILED, "provider http", found, "renew the server's")

    async def test_certificate_ends_soon(self) -> None:
        """A certificate with less than thirty days left is a warning."""
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        url = self.serve(Service(405), authority.sign("localhost", days=20))
        findings = await self.examine(HTTP, endpoint=url, ca_file="ca.pem")
        found = "days from now"
        self.assert_line(findings, Level.WARNING, "provider http", found, "renew the server's")


class SQLDoctorTests(ProviderDoctorCase):
    """Each query that reads is run."""

    queries: ClassVar[Mapping[str, str]] = {
        "by_user": "SELECT name AS user_id, hash AS password_hash FROM accounts"
        " WHERE name = %(localpart)s"
    }

    async def test_well(self) -> None:
        """A query that is answered is a line."""
        database = shared_postgresql()
        dsn = database.new_database("doctor_accounts")
        statement = "CREATE TABLE accounts (name TEXT, hash TEXT)"
        database.query(statement, dbname="doctor_accounts")
        findings = await self.examine(SQL, postgresql=dsn, queries=self.queries)
        self.assert_well(findings, "provider sql")

    async def test_missing_table(self) -> None:
        """A table that is missing is named."""
        dsn = shared_postgresql().new_database("doctor_accounts")
        findings = await self.examine(SQL, postgresql=dsn, queries=self.queries)
        found = 'relation "accounts" does not exist'
        self.assert_line(findings, Level.FAILED, "provider sql", found, "make the table")

    async def test_missing_table_in_sqlite(self) -> None:
        """A table that is missing in an SQLite file is named, and the rest is examined."""
        (self.folder / "accounts.db").touch()
        path = self.write(
            password_providers=[
                {
                    "module": SQL,
                    "config": {
                        "sqlite": "accounts.db",
                        "queries": {
                            "by_user": self.queries["by_user"].replace(
                                "%(localpart)s", ":localpart"
                            )
                        },
                    },
                },
                {"module": BCRYPT, "config": {"users": {"alice": {"password_hash": CHEAP_HASH}}}},
            ]
        )
        findings = await self.diagnose(path)
        found = "no such table: accounts"
        self.assert_line(findings, Level.FAILED, "configuration", found, "correct the query")
        self.assertTrue([each for each in findings if each.area == "provider bcrypt"])

    async def test_away(self) -> None:
        """A database that is away is a failure."""
        dsn = f"host=127.0.0.1 port={free_port()} user=x dbname=x"
        findings = await self.examine(SQL, postgresql=dsn, queries=self.queries)
        self.assert_line(findings, Level.FAILED, "provider sql", "refused", "start the server")

    async def test_wrong_password(self) -> None:
        """A wrong password is a failure, and is not printed."""
        database = PostgreSQL()
        self.addCleanup(database.remove)
        database.query(f"CREATE ROLE service LOGIN PASSWORD 'not-{SECRET}'")
        database.ask_password("service")
        dsn = f"host=127.0.0.1 port={database.port} user=service password={SECRET} dbname=postgres"
        findings = await self.examine(SQL, postgresql=dsn, queries=self.queries)
        found = "password authentication failed"
        self.assert_line(findings, Level.FAILED, "provider sql", found, "correct the password")
        without = dsn.replace(f"password={SECRET} ", "passfile=/nowhere ")
        findings = await self.examine(SQL, postgresql=without, queries=self.queries)
        found = "no password supplied"
        self.assert_line(findings, Level.FAILED, "provider sql", found, "name a passfile")

    async def test_certificates(self) -> None:
        """A server without TLS, or whose authority is not named, is a failure of its own."""
        database = PostgreSQL()
        self.addCleanup(database.remove)
        dsn = f"host=127.0.0.1 port={database.port} user=x dbname=postgres sslmode=verify-full"
        nowhere = self.folder / "nowhere.pem"
        other = Authority("another").write(self.folder / "other.pem")
        found = "server does not support SSL"
        findings = await self.examine(SQL, postgresql=dsn, queries=self.queries)
        self.assert_line(findings, Level.FAILED, "provider sql", found, "set up TLS at the server")
        database.use_certificate(Authority().sign("127.0.0.1"))
        for authority, found, advice in (
            (nowhere, "root certificate file", "sslrootcert=FILE"),
            (other, "certificate verify failed", "sslrootcert and sslmode"),
        ):
            given = f"{dsn} sslrootcert={authority}"
            findings = await self.examine(SQL, postgresql=given, queries=self.queries)
            self.assert_line(findings, Level.FAILED, "provider sql", found, advice)

    async def test_finds_everybody(self) -> None:
        """A query that finds an account that does not exist is a warning."""
        database = shared_postgresql()
        dsn = database.new_database("doctor_accounts")
        database.query("CREATE TABLE accounts (name TEXT, hash TEXT)", dbname="doctor_accounts")
        database.query("INSERT INTO accounts VALUES ('bob', '')", dbname="doctor_accounts")
        queries = {"by_user": f"{self.queries['by_user']} OR true"}
        findings = await self.examine(SQL, postgresql=dsn, queries=queries)
        found = "finds an account that does not exist"
        self.assert_line(findings, Level.WARNING, "provider sql", found, "WHERE clause")


class MariaDBDoctorTests(ProviderDoctorCase):
    """The same on MariaDB."""

    def setUp(self) -> None:
        super().setUp()
        self.server = shared_mariadb()
        self.server.query("DROP TABLE IF EXISTS accounts", dbname=DATABASE)
        self.server.query("CREATE TABLE accounts (name TEXT, hash TEXT)", dbname=DATABASE)

    async def examined(self, query: str = "", **mysql: Any) -> list[Finding]:
        """Run ``doctor`` with a query, and other keys of ``mysql`` than usual."""
        queries = {"by_user": query} if query else SQLDoctorTests.queries
        return await self.examine(SQL, mysql={**self.server.config, **mysql}, queries=queries)

    async def test_well(self) -> None:
        """A query that is answered is a line."""
        self.assert_well(await self.examined(), "provider sql")

    async def test_query(self) -> None:
        """A query that the server refuses is a failure, and says what to do."""
        query = SQLDoctorTests.queries["by_user"]
        for wrong, found, advice in (
            (query.replace("accounts", "nowhere"), "doesn't exist", "make the table"),
            (query.replace("hash AS", "hush AS"), "Unknown column", "correct the query"),
            (query.replace("FROM", "FROM FROM"), "SQL syntax", "correct the query"),
            (query.replace("accounts", "mysql.user"), "command denied", "GRANT SELECT on it"),
        ):
            findings = await self.examined(wrong)
            self.assert_line(findings, Level.FAILED, "provider sql", found, advice)

    async def test_finds_everybody(self) -> None:
        """A query that finds an account that does not exist is a warning."""
        self.server.query("INSERT INTO accounts VALUES ('bob', '')", dbname=DATABASE)
        findings = await self.examined(f"{SQLDoctorTests.queries['by_user']} OR true")
        found = "finds an account that does not exist"
        self.assert_line(findings, Level.WARNING, "provider sql", found, "WHERE clause")

    async def test_login(self) -> None:
        """A server that is away, or lets us in nowhere, is a failure; no password is printed."""
        other: dict[str, Any]
        for other, found, advice in (
            ({"password": SECRET}, "Access denied", "correct user, password"),
            ({"database": "mysql"}, "to database 'mysql'", "GRANT SELECT on its tables"),
            ({"port": free_port()}, "refused", "start the server there, or correct mysql"),
            ({"host": "db.invalid"}, "cannot resolve", "correct the name in mysql"),
            ({"tls": True}, "SSL is required", "set up TLS at the server"),
        ):
            findings = await self.examined(**other)
            self.assert_line(findings, Level.FAILED, "provider sql", found, advice)
        self.server.query("GRANT ALL ON gone.* TO matrix")
        findings = await self.examined(database="gone")
        self.server.query("REVOKE ALL ON gone.* FROM matrix")
        found = "Unknown database 'gone'"
        self.assert_line(findings, Level.FAILED, "provider sql", found, "create it")

    async def test_unverified(self) -> None:
        """A server on another machine whose certificate is not verified is a warning."""
        findings = await self.examined(host="db.invalid", verify_certificate=False)
        found = "anyone in between can pose as db.invalid"
        advice = "set tls and verify_certificate in mysql to true"
        self.assert_line(findings, Level.WARNING, "provider sql", found, advice)


class FileDoctorTests(ProviderDoctorCase):
    """Accounts in files are counted, and the modes of files looked at."""

    def write_users(self, mode: int = 0o600, **users: dict[str, Any]) -> str:
        """Write a users file; return its name."""
        path = self.folder / "users.yaml"
        path.write_text(yaml.safe_dump({"users": users}))
        path.chmod(mode)
        return path.name

    async def test_well(self) -> None:
        """The accounts are counted."""
        good_hash = password_hash("x", 10)
        path = self.write_users(
            alice={"password_hash": good_hash}, bob={"password_hash": good_hash, "locked": True}
        )
        findings = await self.examine(BCRYPT, path=path)
        self.assertIn(
            "2 accounts, of which 1 may log in", str(self.assert_well(findings, "provider bcrypt"))
        )

    async def test_nobody(self) -> None:
        """A file whose accounts are all locked is a warning."""
        path = self.write_users(bob={"password_hash": password_hash("x", 10), "locked": True})
        findings = await self.examine(BCRYPT, path=path)
        found = "1 account, and none that may log in"
        self.assert_line(findings, Level.WARNING, "provider bcrypt", found, "add an account")

    async def test_weak_hashes(self) -> None:
        """Hashes of a low cost are a warning."""
        path = self.write_users(alice={"password_hash": CHEAP_HASH})
        findings = await self.examine(BCRYPT, path=path)
        found = "1 that are guessed fast if stolen: bcrypt cost=4"
        self.assert_line(findings, Level.WARNING, "provider bcrypt", found, "hash-password")

    async def test_modes(self) -> None:
        """A file that its group may write to is a warning, with the command that mends it."""
        path = self.write_users(0o620, alice={"password_hash": CHEAP_HASH})
        findings = await self.examine(BCRYPT, path=path)
        found = "its group may write to it"
        self.assert_line(findings, Level.WARNING, "files", found, f"chmod go-w {self.folder}")

    async def test_readable_accounts(self) -> None:
        """A file of accounts that everybody may read is a warning, with the command too."""
        path = self.write_users(0o644, alice={"password_hash": CHEAP_HASH})
        findings = await self.examine(BCRYPT, path=path)
        found = "everybody can read it, and its password hashes"
        self.assert_line(findings, Level.WARNING, "files", found, f"chmod o-rwx {self.folder}")

    async def test_readable_secret(self) -> None:
        """A configuration with a secret that everybody may read is a warning."""
        path = self.write(
            password_providers=[
                {
                    "module": BCRYPT,
                    "config": {
                        "pepper": SECRET,
                        "users": {"alice": {"password_hash": CHEAP_HASH}},
                    },
                }
            ]
        )
        path.chmod(0o644)
        findings = await self.diagnose(path)
        found = "everybody can read the file"
        self.assert_line(findings, Level.WARNING, "files", found, "chmod o-rwx")
        self.assertNotIn(SECRET, str(findings))


_SAYS = {"everybody": AccountStatus.ACTIVE, "unsure": AccountStatus.UNVERIFIABLE}


@implementer(IPasswordProvider)
@provider(IPluginClass)
class StrangerProvider:
    """A third party's provider, which cannot examine itself."""

    name = "stranger"

    @staticmethod
    def parse_config(config: Any, folder: Path) -> Any:
        return config

    def __init__(self, config: Any, environment: Environment) -> None:
        if config.get("fault") == "building":
            raise RuntimeError("it cannot be built")
        if not environment.read_only:
            raise RuntimeError("it may write")
        self._config = config

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        raise AssertionError("a password was tried")

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        fault, done = self._config.get("fault"), Deferred["AccountStatus | None"]()
        if fault == "away":
            done.errback(ProviderUnavailable("its backend is away"))
        elif fault == "mistake":
            raise ZeroDivisionError("a mistake in it")
        elif fault != "hanging":
            done.callback(_SAYS.get(fault))
        return done


STRANGER = f"{__name__}.StrangerProvider"


class StrangerDoctorTests(ProviderDoctorCase):
    """A third party's provider is asked for the status of an account that does not exist."""

    async def test_well(self) -> None:
        """It answers, and the time that it takes is a line."""
        findings = await self.examine(STRANGER)
        self.assertIn("answered about", str(self.assert_well(findings, "provider stranger")))

    async def test_faults(self) -> None:
        """Each kind of failure is one line."""
        for fault, found, advice in (
            ("away", "unavailable: its backend is away", "see what the provider connects to"),
            ("mistake", "ZeroDivisionError: a mistake in it", "report it"),
            ("building", "RuntimeError: it cannot be built", "correct it"),
        ):
            findings = await self.examine(STRANGER, fault=fault)
            self.assert_line(findings, Level.FAILED, "provider stranger", found, advice)

    async def test_everybody(self) -> None:
        """One that knows an account that does not exist is a warning."""
        findings = await self.examine(STRANGER, fault="everybody")
        self.assert_line(
            findings, Level.WARNING, "provider stranger", "exists", "accounts that are removed"
        )

    async def test_unsure(self) -> None:
        """One that cannot tell has not answered, and that is one warning."""
        findings = await self.examine(STRANGER, fault="unsure")
        found = "whether an account is still there"
        self.assert_line(findings, Level.WARNING, "provider stranger", found, "sessions revoke")
        self.assertNotIn("answered about", str(findings))

    async def test_hanging(self) -> None:
        """One that hangs is told at the deadline, and holds up no other check."""
        findings = await self.examine(STRANGER, 2.0, fault="hanging")
        found = "did not end within 2 seconds"
        self.assert_line(findings, Level.FAILED, "provider stranger", found, "--timeout")
        self.assert_well(findings, "store")

    async def test_cred(self) -> None:
        """A checker of twisted.cred, which cannot say whether an account exists, is a warning."""
        passwords = self.folder / "passwords"
        passwords.write_text("alice:wonderland\n")
        findings = await self.examine(
            "synapse_login_module.providers.CredProvider",
            checker="twisted.cred.checkers.FilePasswordDB",
            arguments={"filename": str(passwords)},
        )
        found = "whether an account is still there"
        self.assert_line(findings, Level.WARNING, "provider cred", found, "sessions revoke")
        self.assertNotIn("answered about", str(findings))
