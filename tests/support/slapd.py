"""Runs a slapd on free loopback ports, with a small tree."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support.certificates import Certificate
from tests.support.ports import free_ports, listens
from tests.support.process import Process, succeed

SUFFIX = "dc=example,dc=com"
PEOPLE = f"ou=people,{SUFFIX}"
ROOT_DN = f"cn=admin,{SUFFIX}"
ROOT_PASSWORD = "root-of-the-tree"
READER_DN = f"cn=reader,{SUFFIX}"
READER_PASSWORD = "reads-and-nothing-else"
GROUP_DN = f"cn=matrix,ou=groups,{SUFFIX}"

_MODULES = Path("/usr/lib/ldap")
_SCHEMAS = Path("/etc/ldap/schema")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT = 30.0

_CONFIG = """\
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/nis.schema
include {schemas}/inetorgperson.schema
modulepath {modules}
moduleload back_mdb
moduleload memberof
moduleload ppolicy
{more_modules}
{tls}
sizelimit 500
# A bind with a name and no password succeeds here, so a client must not send one.
allow bind_anon_cred
# What Active Directory and 389 Directory Server have, under numbers from their own trees.
attributetype ( 1.2.840.113556.1.4.8 NAME 'userAccountControl'
  EQUALITY integerMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.221 NAME 'sAMAccountName'
  EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.656 NAME 'userPrincipalName'
  EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 2.16.840.1.113730.3.1.610 NAME 'nsAccountLock'
  EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
objectclass ( 1.2.840.113556.1.5.9999 NAME 'adLike' SUP top AUXILIARY
  MAY ( userAccountControl $ sAMAccountName $ userPrincipalName $ nsAccountLock ) )
database mdb
suffix "{suffix}"
directory {folder}/data
dbnosync
rootdn "{root_dn}"
rootpw {root_password}
index objectClass,uid,mail eq
overlay memberof
overlay ppolicy
ppolicy_default "cn=policy,{suffix}"
{more_overlays}
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{reader_dn}" read {anonymous}
"""

TREE = f"""\
dn: {SUFFIX}
objectClass: organization
objectClass: dcObject
o: Example
dc: example

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{SUFFIX}
objectClass: organizationalUnit
ou: groups

dn: ou=others,{SUFFIX}
objectClass: organizationalUnit
ou: others

dn: {READER_DN}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {READER_PASSWORD}

dn: cn=policy,{SUFFIX}
objectClass: device
objectClass: pwdPolicy
cn: policy
pwdAttribute: userPassword
pwdLockout: FALSE
"""
"""The entries of the tree before a test adds to it."""


class Slapd:
    """A slapd process and its tree.

    :param certificate: its certificate; without one it has no TLS.
    :param anonymous: whether anonymous clients may read the tree.
    :param overlays: more overlays, each with a module of the same name.
    :ivar port: the port for LDAP.
    :ivar tls_port: the port for LDAP over TLS.
    """

    def __init__(
        self,
        certificate: Certificate | None = None,
        anonymous: bool = False,
        overlays: Sequence[str] = (),
    ) -> None:
        if shutil.which("slapd", path=_PATH) is None or shutil.which("ldapmodify") is None:
            raise SkipTest("slapd and ldap-utils are not installed")
        self._folder = Path(tempfile.mkdtemp(prefix="slapd-"))
        self.port, self.tls_port = free_ports(2)
        self._ports = [self.port] if certificate is None else [self.port, self.tls_port]
        urls = [f"ldap://127.0.0.1:{self.port}/"]
        if certificate is not None:
            urls.append(f"ldaps://127.0.0.1:{self.tls_port}/")
        self._process = Process(
            ["slapd", "-d", "0", "-h", " ".join(urls), "-f", str(self._folder / "slapd.conf")],
            self._folder / "log",
            env={"PATH": _PATH},
        )
        atexit.register(self.remove)
        self._write_config(certificate, anonymous, overlays)

    @property
    def url(self) -> str:
        """Its LDAP URL, for the configuration of a provider."""
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Its output."""
        return self._process.log()

    def fill(self, ldif: str) -> None:
        """Add entries while slapd does not run."""
        self._run(["slapadd", "-q", "-f", str(self._folder / "slapd.conf")], ldif)

    def change(self, ldif: str) -> None:
        """Change entries while slapd runs."""
        self._run(["ldapmodify", "-x", "-H", self.url, "-D", ROOT_DN, "-w", ROOT_PASSWORD], ldif)

    def start(self) -> None:
        """Start slapd and wait until it listens on each of its ports.

        :raise StartError: when it does not, with its output.
        """
        self._process.start_and_wait(lambda: all(map(listens, self._ports)))

    def stop(self) -> None:
        """Kill slapd, if it runs."""
        self._process.kill()

    def remove(self) -> None:
        """Kill slapd and remove its files."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write_config(
        self, certificate: Certificate | None, anonymous: bool, overlays: Sequence[str]
    ) -> None:
        (self._folder / "data").mkdir()
        tls = ""
        if certificate is not None:
            chain, key = certificate.write(self._folder)
            tls = f"TLSCertificateFile {chain}\nTLSCertificateKeyFile {key}"
        config = self._folder / "slapd.conf"
        config.write_text(
            _CONFIG.format(
                schemas=_SCHEMAS,
                modules=_MODULES,
                tls=tls,
                more_modules="\n".join(f"moduleload {each}" for each in overlays),
                more_overlays="\n".join(f"overlay {each}" for each in overlays),
                suffix=SUFFIX,
                folder=self._folder,
                root_dn=ROOT_DN,
                root_password=ROOT_PASSWORD,
                reader_dn=READER_DN,
                anonymous="by * read" if anonymous else "by * none",
            )
        )
        self.fill(TREE)

    def _run(self, command: Sequence[str], ldif: str) -> None:
        succeed(command, ldif, timeout=_TIMEOUT, environment={"PATH": _PATH})
