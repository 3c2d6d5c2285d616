"""``python -m benchmarks.directories`` times one login at a time in each kind of directory.

The yardstick is what an administrator would type: ``ldapsearch`` for the entry, as the service
account, and a second command that binds as the entry with the user's password. Both make new
connections each time, and the provider keeps its own. So the ratio says what a login costs beside
what people know, and not how fast the provider could be; ``benchmarks.ldap`` says that.

A directory that is not installed is left out.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import defer, task
from twisted.trial.unittest import SkipTest

from synapse_login_module import testing
from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.model import UserId, UserIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from tests.support import ds389, samba, slapd

USER, PASSWORD = "alice", "Wonder-land-1865"


class Measured(NamedTuple):
    """A directory that runs, with one user and one group.

    :param config: the provider's configuration for it.
    :param uid: the attribute with the user's name.
    :param dn: the name of the user's entry.
    :param group: the name of a group that the user is in.
    """

    config: Mapping[str, Any]
    uid: str
    dn: str
    group: str
    remove: Callable[[], None]


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.directories", description=__doc__)
    parser.add_argument("--logins", type=int, default=100, help="the number of logins of each kind")
    options = parser.parse_args()
    task.react(_run, (options.logins,))


def _run(reactor: Any, logins: int) -> defer.Deferred[None]:
    return defer.Deferred.fromCoroutine(_measure(reactor, logins))


async def _measure(reactor: Any, logins: int) -> None:
    print(f"one login at a time, medians of {logins}, in milliseconds\n")
    print(f"{'':24}{'right':>8}{'wrong':>8}{'unknown':>9}{'commands':>10}{'ratio':>8}")
    for name, start in (("OpenLDAP", _slapd), ("389", _ds389), ("Samba", _samba)):
        try:
            directory = start()
        except SkipTest as reason:
            print(f"{name:24}left out: {reason}")
            continue
        try:
            for more in ({}, {"groups": [directory.group]}):
                kind = f"{name}, groups" if more else name
                await _measure_one(reactor, kind, directory, more, logins)
        finally:
            directory.remove()


async def _measure_one(
    reactor: Any, name: str, directory: Measured, more: Mapping[str, Any], logins: int
) -> None:
    parsed = LDAPProvider.parse_config({**directory.config, **more}, Path())
    provider = LDAPProvider(parsed, testing.environment(reactor=reactor))
    taken: dict[str, list[float]] = {"right": [], "wrong": [], "unknown": [], "commands": []}
    await _log_in(provider, USER, PASSWORD)
    for _ in range(logins):
        for kind, user, password in (
            ("right", USER, PASSWORD),
            ("wrong", USER, "looking-glass"),
            ("unknown", "nobody", "looking-glass"),
        ):
            began = time.perf_counter()
            await _log_in(provider, user, password)
            taken[kind].append(time.perf_counter() - began)
    for _ in range(max(logins // 5, 1)):
        began = time.perf_counter()
        _commands(directory)
        taken["commands"].append(time.perf_counter() - began)
    await provider.stopService()
    right, wrong, unknown, commands = (1000 * statistics.median(taken[kind]) for kind in taken)
    print(
        f"{name:24}{right:8.1f}{wrong:8.1f}{unknown:9.1f}{commands:10.1f}{right / commands:8.2f}",
        flush=True,
    )


async def _log_in(provider: LDAPProvider, name: str, password: str) -> None:
    user = UserIdentifier(UserId(name, testing.SERVER_NAME))
    try:
        account = await provider.authenticate(user, password)
    except InvalidCredentials:
        account = None
    assert (account is not None) == (password == PASSWORD)


def _commands(directory: Measured) -> None:
    """Search as the service account, and bind as the user.

    The second one reads the server's own entry: Samba does not know what ``ldapwhoami`` asks for.
    """
    config = directory.config
    wanted = f"({directory.uid}={USER})"
    _search(config, config["bind_dn"], config["bind_password"], config["base"], "sub", wanted)
    _search(config, directory.dn, PASSWORD, "", "base", "(objectClass=*)")


def _search(
    config: Mapping[str, Any], name: str, password: str, base: str, scope: str, wanted: str
) -> None:
    subprocess.run(
        [
            "ldapsearch",
            "-x",
            "-LLL",
            *("-H", config["servers"][0]),
            *("-D", name),
            *("-w", password),
            *("-b", base),
            *("-s", scope),
            wanted,
            "1.1",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _person(below: str) -> tuple[str, str]:
    dn = f"uid={USER},{below}"
    return dn, (
        f"dn: {dn}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: {USER}\ncn: {USER}\n"
        f"sn: {USER}\nuserPassword: {PASSWORD}\n\n"
    )


def _group(dn: str, member: str) -> str:
    return f"dn: {dn}\nchangetype: add\nobjectClass: groupOfNames\nmember: {member}\n\n"


def _slapd() -> Measured:
    server = slapd.Slapd()
    server.start()
    dn, person = _person(slapd.PEOPLE)
    server.change(person + _group(slapd.GROUP_DN, dn))
    return Measured(
        _config("openldap", server.url, slapd.READER_DN, slapd.READER_PASSWORD, slapd.PEOPLE),
        "uid",
        dn,
        slapd.GROUP_DN,
        server.remove,
    )


def _ds389() -> Measured:
    server = ds389.DS389()
    server.start()
    dn, person = _person(ds389.PEOPLE)
    group = f"cn=matrix,{ds389.SUFFIX}"
    config = "dn: cn=config\nchangetype: modify\n"
    server.change(f"{config}replace: passwordLockout\npasswordLockout: off\n")
    server.change(person + _group(group, dn))
    return Measured(
        _config("389ds", server.url, ds389.READER_DN, ds389.READER_PASSWORD, ds389.PEOPLE),
        "uid",
        dn,
        group,
        server.remove,
    )


def _samba() -> Measured:
    server = samba.Samba()
    server.start()
    dn, group = f"cn={USER},{samba.USERS}", f"cn=matrix,{samba.USERS}"
    server.change(samba.person(USER, PASSWORD))
    server.change(f"dn: {group}\nchangetype: add\nobjectClass: group\nmember: {dn}\n\n")
    return Measured(
        _config("active_directory", server.url, samba.READER, samba.READER_PASSWORD, samba.SUFFIX),
        "sAMAccountName",
        dn,
        group,
        server.remove,
    )


def _config(kind: str, url: str, name: str, password: str, base: str) -> Mapping[str, Any]:
    return {
        "directory": kind,
        "servers": [url],
        "start_tls": False,
        "allow_plaintext": True,
        "bind_dn": name,
        "bind_password": password,
        "base": base,
    }


if __name__ == "__main__":
    main()
