"""A real 389 Directory Server on a free loopback port, with a small tree of its own."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support.certificates import Certificate
from tests.support.ports import free_ports, listens
from tests.support.process import Process, succeed

SUFFIX = "dc=example,dc=com"
PEOPLE = f"ou=people,{SUFFIX}"
READER_DN = f"cn=reader,{SUFFIX}"
READER_PASSWORD = "reads-and-nothing-else"
MAX_FAILURES = 3
"""How many wrong passwords lock an account."""

_ROOT_DN = "cn=Directory Manager"
_ROOT_PASSWORD = "root-of-the-tree"
_DATA = Path("/usr/share/dirsrv/data")
_ETC = Path("/etc/dirsrv")
_ACCOUNT = "dirsrv"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT = 60.0

_BACKEND = f"""\
dn: cn=userroot,cn=ldbm database,cn=plugins,cn=config
changetype: add
objectClass: extensibleObject
objectClass: nsBackendInstance
cn: userroot
nsslapd-suffix: {SUFFIX}

dn: cn="{SUFFIX}",cn=mapping tree,cn=config
changetype: add
objectClass: extensibleObject
objectClass: nsMappingTree
cn: {SUFFIX}
nsslapd-state: backend
nsslapd-backend: userroot

dn: cn=config
changetype: modify
replace: passwordLockout
passwordLockout: on
-
replace: passwordMaxFailure
passwordMaxFailure: {MAX_FAILURES}

dn: {SUFFIX}
changetype: add
objectClass: domain
dc: example

dn: {PEOPLE}
changetype: add
objectClass: organizationalUnit
ou: people

dn: {READER_DN}
changetype: add
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {READER_PASSWORD}
"""

_TLS = """\
dn: cn=config
changetype: modify
replace: nsslapd-security
nsslapd-security: on
-
replace: nsslapd-securePort
nsslapd-securePort: {port}

dn: cn=RSA,cn=encryption,cn=config
changetype: modify
replace: nsSSLPersonalitySSL
nsSSLPersonalitySSL: Server-Cert
-
replace: nsSSLActivation
nsSSLActivation: on
-
replace: nsSSLToken
nsSSLToken: internal (software)
"""

_ACI = """\
dn: {suffix}
changetype: modify
replace: aci
aci: (targetattr="{attributes}")(version 3.0; acl "reader"; allow (read, search, compare)
  userdn="ldap:///{reader}";)
"""


class DS389:
    """A 389 Directory Server, which starts with an empty ``ou=people``.

    Its configuration is the package's template, filled in here, as ``dscreate`` writes to ``/etc``.

    :ivar port: the port for LDAP.
    :ivar tls_port: the port for LDAP over TLS, once it has a certificate.
    """

    def __init__(self) -> None:
        template = _DATA / "template-dse.ldif"
        if shutil.which("ns-slapd", path=_PATH) is None or not template.exists():
            raise SkipTest("389-ds-base is not installed")
        if shutil.which("ldapmodify") is None:
            raise SkipTest("ldap-utils is not installed")
        if os.geteuid() != 0:
            raise SkipTest("389 Directory Server starts as root and becomes dirsrv")
        self._folder = Path(tempfile.mkdtemp(prefix="ds389-"))
        atexit.register(self.remove)
        self.port, self.tls_port = free_ports(2)
        self._process = Process(
            ["ns-slapd", "-D", str(self._folder), "-i", str(self._folder / "pid"), "-d", "0"],
            self._folder / "log",
            env={"PATH": _PATH},
        )
        self._write_config(template.read_text())

    @property
    def url(self) -> str:
        """Its LDAP URL, for the configuration of a provider."""
        return f"ldap://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server, wait until it listens, and add its tree."""
        self._process.start_and_wait(lambda: listens(self.port))
        self.change(_BACKEND)
        self.let_read("*")

    def let_read(self, attributes: str) -> None:
        """Allow the reader to read these attributes only.

        :param attributes: the attributes in the form of ``targetattr``; empty for no attribute.
        """
        if attributes:
            aci = _ACI.format(suffix=SUFFIX, attributes=attributes, reader=READER_DN)
            self.change(aci)
        else:
            self.change(f"dn: {SUFFIX}\nchangetype: modify\nreplace: aci\n")

    def change(self, ldif: str) -> None:
        """Change entries as the directory manager."""
        command = ["ldapmodify", "-x", "-H", self.url, "-D", _ROOT_DN, "-w", _ROOT_PASSWORD]
        succeed(command, ldif, timeout=_TIMEOUT)

    def secure(self, certificate: Certificate) -> None:
        """Give the server a certificate, and start it again with TLS on both ports."""
        database, bundle = self._folder / "cert", self._folder / "certificate.p12"
        chain, key = certificate.write(self._folder)
        for command in (
            f"certutil -N -d {database} --empty-password",
            f"openssl pkcs12 -export -in {chain} -inkey {key} -name Server-Cert -out {bundle}"
            " -passout pass:",
            f"pk12util -i {bundle} -d {database} -W ''",
        ):
            succeed(shlex.split(command), timeout=_TIMEOUT)
        for path in database.iterdir():
            shutil.chown(path, _ACCOUNT, _ACCOUNT)
        self.change(_TLS.format(port=self.tls_port))
        self.stop()
        self._process.start_and_wait(lambda: listens(self.port) and listens(self.tls_port))

    def stop(self) -> None:
        """Stop the server, which keeps its entries."""
        self._process.stop()

    async def start_again(self) -> None:
        """Start the server that was stopped; the reactor runs meanwhile."""
        await self._process.start(lambda: listens(self.port))

    def remove(self) -> None:
        """Stop the server and remove its files."""
        self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write_config(self, template: str) -> None:
        folders = "bak cert db ldif lock logs run schema"
        values = {f"{name.removesuffix('s')}_dir": name for name in folders.split()}
        for name in values.values():
            (self._folder / name).mkdir()
        given = {
            **{key: str(self._folder / name) for key, name in values.items()},
            "config_dir": str(self._folder),
            "inst_dir": str(self._folder),
            "tmp_dir": str(self._folder),
            "db_home_dir": str(self._folder / "db"),
            "db_lib": "bdb",
            "ds_passwd": f"{{CLEAR}}{_ROOT_PASSWORD}",
            "ds_port": str(self.port),
            "ds_suffix": SUFFIX,
            "ds_user": _ACCOUNT,
            "fqdn": "localhost",
            "ldapi": str(self._folder / "ldapi"),
            "ldapi_autobind": "off",
            "ldapi_enabled": "off",
            "rootdn": _ROOT_DN,
        }
        config = re.sub(r"%(\w+)%", lambda match: given[match[1]], template)
        config = config.replace("nsslapd-port:", "nsslapd-listenhost: 127.0.0.1\nnsslapd-port:", 1)
        (self._folder / "dse.ldif").write_text(config)
        for name in ("certmap.conf", "slapd-collations.conf"):
            shutil.copy(_ETC / "config" / name, self._folder)
        shutil.copy(_ETC / "schema" / "99user.ldif", self._folder / "schema")
        for path in (self._folder, *self._folder.rglob("*")):
            shutil.chown(path, _ACCOUNT, _ACCOUNT)
