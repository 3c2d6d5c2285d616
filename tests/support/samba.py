"""Runs Samba's Active Directory on a loopback address of its own."""

from __future__ import annotations

import atexit
import base64
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import randint

from twisted.trial.unittest import SkipTest

from tests.support.certificates import Authority
from tests.support.process import Process, subprocess_environment, succeed

REALM = "ad.test"
SUFFIX = "dc=ad,dc=test"
USERS = f"cn=Users,{SUFFIX}"
READER = f"reader@{REALM}"
READER_PASSWORD = "Reads-Passw0rd"

_ADMINISTRATOR = f"administrator@{REALM}"
_ADMINISTRATORS_PASSWORD = "Adm1nistrators-Passw0rd"
_NEEDED = ("/usr/sbin/samba", "/usr/bin/samba-tool", "/usr/share/samba/setup/ad-schema")
_PORT = 389
_TIMEOUT = 120.0
_LONG_AGO = "132223104000000000"
"""The beginning of 2020, as Active Directory counts."""

_CHANGE = """\
import sys
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB
parameters = LoadParm()
parameters.load(sys.argv[1])
database = SamDB(session_info=system_session(), lp=parameters)
controls = ["local_oid:1.3.6.1.4.1.7165.4.3.12:0"]
database.modify_ldif(sys.stdin.read(), controls=controls)
"""
"""Changes the database itself. The control lets it change what only the server may."""

_OPTIONS = {
    "pid directory": "{folder}",
    "bind interfaces only": "yes",
    "server services": "ldap",
    "vfs objects": "",
    "log file": "{folder}/log",
    "posix:eadb": "{folder}/eadb.tdb",
}


class Samba:
    """A domain controller with the account of a reader. Its port cannot be chosen.

    :ivar host: its own address on the loopback interface.
    :ivar ca_file: the authority that has signed its certificate, which is for its address.
    """

    def __init__(self) -> None:
        missing = [path for path in _NEEDED if not Path(path).exists()]
        if missing or shutil.which("ldapmodify") is None:
            missing += [] if shutil.which("ldapmodify") else ["ldapmodify"]
            raise SkipTest(f"samba-ad-dc, its files or ldap-utils: no {', '.join(missing)}")
        if os.geteuid() != 0:
            raise SkipTest("Samba listens on port 389, which is root's")
        self.host = f"127.{randint(64, 254)}.{randint(0, 254)}.{randint(1, 254)}"
        self._folder = Path(tempfile.mkdtemp(prefix="samba-"))
        atexit.register(self.remove)
        config = self._config = self._folder / "etc" / "smb.conf"
        self._process = Process(
            ["samba", "-i", "--debug-stdout", "-M", "single", "-s", str(config)],
            self._folder / "output",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        self._provision()
        authority = Authority()
        self.ca_file = authority.write(self._folder / "ca.pem")
        certificate, key = authority.sign(self.host).write(self._folder)
        key.chmod(0o600)
        settings = {
            # Logins are sent in the clear on loopback, which the provisioned settings forbid.
            "ldap server require strong auth": "no",
            "tls certfile": certificate,
            "tls keyfile": key,
            "tls cafile": self.ca_file,
        }
        lines = "".join(f"\t{name} = {value}\n" for name, value in settings.items())
        config.write_text(config.read_text().replace("[global]\n", f"[global]\n{lines}", 1))

    @property
    def url(self) -> str:
        """Its LDAP URL, for the configuration of a provider."""
        return f"ldap://{self.host}"

    def start(self) -> None:
        """Start the controller, wait until it answers, and add the reader."""
        self._process.start_and_wait(self._answers)
        self.change(person("reader", READER_PASSWORD))

    def stop(self) -> None:
        """Kill the controller."""
        self._process.kill()

    async def start_again(self) -> None:
        """Start the controller that was stopped; the reactor runs meanwhile."""
        await self._process.start(self._listens)

    def _listens(self) -> bool:
        with closing(socket.socket()) as tried:
            return tried.connect_ex((self.host, _PORT)) == 0

    def change(self, ldif: str) -> None:
        """Change entries as an administrator, over TLS, which it requires for passwords."""
        environment = subprocess_environment(LDAPTLS_REQCERT="never")
        command = ["ldapmodify", "-x", "-H", f"ldaps://{self.host}", *self._as_administrator()]
        succeed(command, ldif, timeout=_TIMEOUT, environment=environment)

    def age_password(self, name: str) -> None:
        """Have a user's password be older than it may be, which no change over LDAP can do."""
        change = f"dn: cn={name},{USERS}\nchangetype: modify\nreplace: pwdLastSet\n"
        command = ["/usr/bin/python3", "-c", _CHANGE, str(self._config)]
        succeed(command, f"{change}pwdLastSet: {_LONG_AGO}\n", timeout=_TIMEOUT)

    def remove(self) -> None:
        """Stop the controller and remove its files."""
        self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _as_administrator(self) -> Sequence[str]:
        return "-D", _ADMINISTRATOR, "-w", _ADMINISTRATORS_PASSWORD

    def _answers(self) -> bool:
        search = ["-s", "base", "-b", "", "1.1"]
        command = ["ldapsearch", "-x", "-H", self.url, *self._as_administrator(), *search]
        return subprocess.run(command, capture_output=True, timeout=_TIMEOUT).returncode == 0

    def _provision(self) -> None:
        options = {**_OPTIONS, "interfaces": f"{self.host}/8"}
        command = [
            "samba-tool",
            "domain",
            "provision",
            f"--realm={REALM}",
            f"--domain={REALM.partition('.')[0].upper()}",
            "--server-role=dc",
            f"--adminpass={_ADMINISTRATORS_PASSWORD}",
            "--dns-backend=NONE",
            "--host-name=dc1",
            f"--host-ip={self.host}",
            f"--targetdir={self._folder}",
            *(
                f"--option={key}={value.format(folder=self._folder)}"
                for key, value in options.items()
            ),
        ]
        succeed(command, timeout=_TIMEOUT)


def person(name: str, password: str, **more: str) -> str:
    """Return the LDIF that adds a user.

    :param name: the ``sAMAccountName`` and the ``cn``.
    :param more: further attributes; ``userPrincipalName`` is ``NAME@REALM`` by default.
    """
    attributes = {
        "objectClass": "user",
        "sAMAccountName": name,
        "userPrincipalName": f"{name}@{REALM}",
        "userAccountControl": "512",
        **more,
    }
    quoted = base64.b64encode(f'"{password}"'.encode("utf-16-le")).decode("ascii")
    lines = [f"{key}: {value}" for key, value in attributes.items()]
    head = f"dn: cn={name},{USERS}\nchangetype: add\n"
    return head + "\n".join([*lines, f"unicodePwd:: {quoted}"]) + "\n\n"
