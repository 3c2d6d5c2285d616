"""Configurations with mistakes, and the messages for them."""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.configuration import CHEAP_HASH, good_config, password_hash, write_config


@dataclass(frozen=True)
class Broken:
    """A configuration with one mistake.

    :param name: the mistake.
    :param config: the configuration file.
    :param path: the path of the mistake; empty when it is in the file as a whole.
    """

    name: str
    config: Path
    path: str


BAD_HASHES = (
    "",
    "ilovebananas",
    "$2b$12$short",
    CHEAP_HASH[:-1],
    CHEAP_HASH + "x",
    CHEAP_HASH[:-1] + "!",
    CHEAP_HASH[:7] + "!" + CHEAP_HASH[8:],
    CHEAP_HASH[:-1] + "\n",
    CHEAP_HASH[:-1] + "é",
    "x" + CHEAP_HASH,
    CHEAP_HASH.replace("$2b$", "$1$"),
    CHEAP_HASH.replace("$04$", "$4$"),
    CHEAP_HASH.replace("$04$", "$+4$"),
    CHEAP_HASH.replace("$04$", "$99$"),
    CHEAP_HASH.replace("$04$", "$\u0660\u0664$"),
    CHEAP_HASH.replace("$04$", "$31$"),
    "$argon2id$v=16",
    "$argon2d$v=19$m=65536,t=3,p=4$" + "a" * 22 + "$" + "b" * 43,
    "$argon2id$v=19$m=4194304,t=3,p=4$" + "a" * 22 + "$" + "b" * 43,
    "$y$jzT$" + "a" * 22 + "$" + "b" * 43,
    "{SHA}" + "a" * 27 + "=",
    "d" * 32,
)
"""Texts that are no hashes, or none that can be used."""


def broken_configs(folder: Path) -> Iterator[Broken]:
    """Write configurations with one mistake each, in folders of their own."""
    bcrypt_provider = "synapse_login_module.providers.BcryptProvider"

    def place(name: str) -> Path:
        found = folder / name.replace(" ", "-").replace("/", "-")
        found.mkdir()
        return found

    def changed(name: str, path: str, *files: tuple[str, bytes], **changes: Any) -> Broken:
        here = place(name)
        for file, content in files:
            (here / file).write_bytes(content)
            (here / file).chmod(0o600)
        return Broken(name, write_config(here, {**good_config(), **changes}), path)

    def text(name: str, content: str) -> Broken:
        return Broken(name, write_config(place(name), content), "")

    def provider(**config: Any) -> list[dict[str, Any]]:
        return [{"module": bcrypt_provider, "config": config}]

    yield Broken("no file", place("no file") / "config.yaml", "")
    yield Broken("a folder", place("a folder"), "")
    yield text("no YAML", "server_name: [")
    yield text("no mapping", "- server_name")
    yield text("empty file", "")
    yield text("a key twice", "server_name: a\nlisten: []\nserver_name: b\n")
    yield text("a tag that lies", "server_name: !!bool x\n")
    yield text("another tag that lies", "server_name: !!timestamp x\n")
    yield changed("unknown key", "lisen", lisen=[])
    yield changed("unknown key below", "tokens.keyfile", tokens={"keyfile": "x"})
    yield changed("wrong type", "hashing.queue", hashing={"queue": "64"})
    yield changed("no duration", "tokens.session_lifetime", tokens={"session_lifetime": "1:30"})
    yield changed("no endpoint", "listen.0", listen=["tcp:http"])
    yield changed("no endpoint either", "listen.1", listen=["tcp:8008", "nonsense\nnonsense"])
    key = b"1 " + base64.b64encode(bytes(range(32))) + b"\n"
    for name, content in (
        ("garbage", os.urandom(100)),
        ("text", b"secret\n"),
        ("empty", b""),
        ("a short key", b"1 c2hvcnQ=\n"),
        ("a key twice", key + key),
    ):
        yield changed(f"key file of {name}", "tokens.key_file", ("token.key", content))
    broken = changed("key file for everybody", "tokens.key_file", ("token.key", key))
    broken.config.with_name("token.key").chmod(0o644)
    yield broken
    for name, file in (
        ("key file that is a folder", "."),
        ("key file in no folder", "nowhere/token.key"),
        ("key file below a file", "config.yaml/token.key"),
        ("key file of too long a name", "x" * 300),
        ("key file with NUL", "a\0b"),
    ):
        yield changed(name, "tokens.key_file", tokens={"key_file": file})
    path = "password_providers.0.config.path"
    for name, file in (
        ("no users file", "users.yaml"),
        ("users file that is a folder", "."),
        ("users file below a file", "config.yaml/users.yaml"),
        ("users file of too long a name", "x" * 300),
        ("users file with NUL", "a\0b"),
    ):
        yield changed(name, path, password_providers=provider(path=file))
    for name, content in (
        ("no YAML", b"users: ["),
        ("no mapping", b"[]"),
        ("bytes", b"\xff\xfe\xfd"),
        ("a user twice", b"users: {a: {}, a: {}}"),
        ("a bad hash", b"users: {a: {password_hash: x}}"),
        ("no users", b"user: {}"),
        ("an unknown key", b"users: {a: {password: x}}"),
    ):
        yield changed(
            f"users file with {name}",
            path,
            ("users.yaml", content),
            password_providers=provider(path="users.yaml"),
        )
    yield changed(
        "bad hash",
        "password_providers.0.config.users.alice.password_hash",
        password_providers=provider(users={"alice": {"password_hash": "ilovebananas"}}),
    )
    yield changed(
        "unknown key of the provider",
        "password_providers.0.config.peper",
        password_providers=provider(users={}, peper="x"),
    )
    yield changed("no users at all", "password_providers.0.config", password_providers=provider())
    yield changed(
        "users twice",
        "password_providers.0.config",
        password_providers=provider(users={}, path="users.yaml"),
    )
    for name, module in (
        ("no such module", "synapse_login_module.nowhere.Provider"),
        ("no such class", "synapse_login_module.providers.Nobody"),
        ("no class", "os.path.join"),
        ("no provider", "synapse_login_module.model.Account"),
        ("a store as a provider", "synapse_login_module.stores.MemoryTokenStore"),
        (
            "a provider without configuration",
            "synapse_login_module.providers.wrappers.guard.GuardedProvider",
        ),
    ):
        yield changed(name, "password_providers.0.module", password_providers=[{"module": module}])
    for name, module in (
        ("no store", bcrypt_provider),
        ("a store without configuration", "synapse_login_module.stores.derived.DerivedTokenStore"),
    ):
        yield changed(name, "token_store.module", token_store={"module": module})
    sqlite, memory = (
        f"synapse_login_module.stores.{name}" for name in ("SQLiteTokenStore", "MemoryTokenStore")
    )
    for name, module, config, where in (
        ("unknown key of the store", sqlite, {"path": "x", "file": "y"}, ".file"),
        ("unknown key of the other store", memory, {"path": "x"}, ".path"),
        ("no database named", sqlite, {}, ".path"),
        ("database in no folder", sqlite, {"path": "nowhere/x.db"}, ".path"),
        ("database that is a folder", sqlite, {"path": "."}, ".path"),
        ("database of too long a name", sqlite, {"path": "x" * 300}, ".path"),
        ("database with NUL", sqlite, {"path": "a\0b"}, ".path"),
    ):
        yield changed(
            name, f"token_store.config{where}", token_store={"module": module, "config": config}
        )
    yield changed(
        "database of garbage", "token_store.config.path", ("sessions.db", b"no database" * 1000)
    )
    broken = changed("newer database", "token_store.config.path")
    database = sqlite3.connect(broken.config.with_name("sessions.db"))
    database.execute("PRAGMA user_version = 9999")
    database.close()
    yield broken
    example = {"cheeky_monkey": {"password_hash": password_hash("ilovebananas")}}
    for listen in ("tcp:8008", "tcp:8008:interface=0.0.0.0"):
        yield changed(
            f"example account on {listen}",
            "password_providers.0.config",
            listen=["tcp:8009:interface=127.0.0.1", listen],
            password_providers=provider(users=example),
        )


@dataclass(frozen=True)
class Message:
    """A configuration and the messages for it.

    :param name: the mistakes.
    :param config: the configuration file.
    :param lines: all messages, in which ``{folder}`` stands for the folder of the file.
    """

    name: str
    config: Path
    lines: tuple[str, ...]


_BCRYPT = "synapse_login_module.providers.BcryptProvider"
_LDAP = "synapse_login_module.providers.LDAPProvider"
_HTTP = "synapse_login_module.providers.HTTPProvider"
_SQL = "synapse_login_module.providers.SQLProvider"
_POSTGRESQL = "synapse_login_module.stores.PostgreSQLTokenStore"
_LOCAL_PART = "not a local part of a user ID: ASCII letters, digits, . _ = - / +"
_IN_FILE = "password_providers.0.config.path: {folder}/users.yaml: "
_USER = "password_providers.0.config.users.alice"
_HASH = CHEAP_HASH


def _users(**users: Any) -> dict[str, Any]:
    return {"password_providers": [{"module": _BCRYPT, "config": {"users": users}}]}


def _of_file(text: str | bytes) -> tuple[dict[str, Any], bytes]:
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    return {"password_providers": [{"module": _BCRYPT, "config": {"path": "users.yaml"}}]}, content


_MESSAGES: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "an empty file": ("", ("the file is empty",)),
    "nothing but comments": ("# later\n", ("there is nothing in the file but comments",)),
    "Latin-1": (
        b"server_name: a\n# M\xfcller\n",
        ("line 2: not UTF-8: save the file in UTF-8",),
    ),
    "NUL": (
        "server_name: a\nlisten: []\n\0",
        ("line 3: the character U+0000 cannot be in YAML",),
    ),
    "a mistyped key": (
        lambda good: {**_renamed(good, "password_providers", "pasword_providers")},
        ("pasword_providers: unknown key: did you mean password_providers?",),
    ),
    "no providers": (
        {"password_providers": []},
        ("password_providers: must have at least one entry, but is empty",),
    ),
    "providers left empty": (
        {"password_providers": None},
        ("password_providers: must be a list, but is empty",),
    ),
    "text for a list": (
        {"listen": "tcp:8008"},
        ("listen: must be a list, not text",),
    ),
    "no rate limits": (
        {"rate_limits": None},
        (
            "rate_limits: must be a mapping, but is empty: null switches one limit off:"
            " {address: null}; for the defaults omit the key",
        ),
    ),
    "a port that is none": (
        {"listen": ["tcp:99999:interface=127.0.0.1", "tcp:port=65536"]},
        (
            "listen.0: there is no port 99999: the last is 65535",
            "listen.1: there is no port 65536: the last is 65535",
        ),
    ),
    "Synapse's file": (
        "server_name: a\nsigning_key_path: x\nlisteners: []\n",
        ("this is Synapse's file: the standalone server needs its own",),
    ),
    "a listener twice": (
        {"listen": ["tcp:8008", "tcp:8009", "tcp:8008"]},
        ("listen.2: the same endpoint is listed twice",),
    ),
    "a certificate that is not there": (
        {"listen": ["ssl:8008:privateKey=/nowhere.pem"]},
        (
            "listen.0: 'ssl:8008:privateKey=/nowhere.pem': cannot read /nowhere.pem: No such file"
            " or directory",
        ),
    ),
    "networks that are none": (
        {"trusted_proxies": ["10.0.0.1/8", "localhost"]},
        (
            "trusted_proxies.0: 10.0.0.1/8 has host bits set: write 10.0.0.0/8",
            "trusted_proxies.1: 'localhost' does not appear to be an IPv4 or IPv6 network",
        ),
    ),
    "numbers for text": (
        {**_users(alice={"password_hash": _HASH, "phones": [447700900123]}), "server_name": 5},
        (
            "server_name: must be text, not a number: put it in quotes",
            f"{_USER}.phones.0: must be text, not a number: put it in quotes",
        ),
    ),
    "no users' key": (
        _users(alice={"password": "secret"}),
        (
            f"{_USER}.password: unknown key: write password_hash, and in it what"
            " synapse-login-module hash-password prints",
        ),
    ),
    "users who can be none": (
        _users(
            **{
                "bob smith": {"password_hash": _HASH},
                "@carol:example.com": {"password_hash": _HASH},
            }
        ),
        (
            "password_providers.0.config.users.@carol:example.com: a full user ID: write what"
            " stands between the @ and the colon",
            f"password_providers.0.config.users.bob smith: {_LOCAL_PART}",
        ),
    ),
    "addresses that are none": (
        _users(
            alice={
                "password_hash": _HASH,
                "emails": ["alice", "a@b"],
                "phones": ["07700900123", "+447700900123"],
            }
        ),
        (
            f"{_USER}.emails.0: not an e-mail address",
            f"{_USER}.phones.0: not with the country code, without a 0 before it: 447700900123",
            f"{_USER}.phones.1: digits alone, with the country code: 447700900123",
        ),
    ),
    "several mistakes in a users file": (
        _of_file(
            "users:\n"
            "  alice: {password: x, emails: [a@b]}\n"
            "  bob smith: {}\n"
            f"  carol: {{password_hash: {_HASH}, locked: 'yes'}}\n"
        ),
        (
            f"{_IN_FILE}users.alice.password: unknown key: write password_hash, and in it what"
            " synapse-login-module hash-password prints",
            f"{_IN_FILE}users.bob smith: {_LOCAL_PART}",
            f"{_IN_FILE}users.bob smith.password_hash: it is missing",
            f"{_IN_FILE}users.carol.locked: must be true or false, not text",
        ),
    ),
    "a users file in Latin-1": (
        _of_file(b"users:\n  alice:\n    display_name: M\xfcller\n"),
        (f"{_IN_FILE}line 3: not UTF-8: save the file in UTF-8",),
    ),
    "an empty users file": (_of_file(""), (f"{_IN_FILE}the file is empty",)),
    "an undotted module": (
        {"password_providers": [{"module": "BcryptProvider"}]},
        (
            "password_providers.0.module: must be the dotted path of a class, such as"
            " synapse_login_module.providers.BcryptProvider",
        ),
    ),
    "mistyped modules": (
        {
            "password_providers": [
                {"module": "synapse_login_module.providers.BcrytProvider"},
                {"module": "synapse_login_modul.providers.BcryptProvider"},
                {"module": "synapse_login_module.nowhere.BcryptProvider"},
            ]
        },
        (
            "password_providers.0.module: cannot import it: there is no BcrytProvider in"
            " synapse_login_module.providers: did you mean"
            " synapse_login_module.providers.BcryptProvider?",
            "password_providers.1.module: cannot import it: there is no module synapse_login_modul",
            "password_providers.2.module: cannot import it: there is no nowhere in"
            " synapse_login_module",
        ),
    ),
    "a mistyped parameter of a database": (
        {"token_store": {"module": _POSTGRESQL, "config": {"dsn": "hst=db password=secret"}}},
        (
            "token_store.config.dsn: not a PostgreSQL connection string: there is no parameter"
            " hst: did you mean host?",
        ),
    ),
    "a password with a space in it": (
        {"token_store": {"module": _POSTGRESQL, "config": {"dsn": "password=pass phrase=hots"}}},
        ("token_store.config.dsn: not a PostgreSQL connection string",),
    ),
    "several mistakes of one provider": (
        {
            "password_providers": [
                {
                    "module": _LDAP,
                    "config": {
                        "servers": ["ldap://a.example.com/x", "http://b.example.com"],
                        "base": "dc=example",
                        "filter": "(uid=alice)",
                        "group_filter": "memberOf",
                        "bind_dn": "cn=search",
                    },
                },
                {
                    "module": _HTTP,
                    "config": {
                        "url": "https://a.example.com",
                        "request": {"user": "{user}"},
                        "status_url": "https://a.example.com/{name}",
                        "ca_file": "nowhere.pem",
                        "authorization_file": "nowhere",
                    },
                },
                {
                    "module": _SQL,
                    "config": {
                        "sqlite": "nowhere.db",
                        "queries": {"by_user": "SELECT 1", "by_email": "SELECT :name"},
                    },
                },
            ]
        },
        (
            "password_providers.0.config.filter: {localpart} is no value in it; what every account"
            " matches goes in group_filter",
            "password_providers.0.config.group_filter: not an LDAP filter (RFC 4515)",
            "password_providers.0.config.servers.0: not ldap://HOST, ldap://HOST:PORT, or the same"
            " with ldaps",
            "password_providers.0.config.servers.1: not ldap://HOST, ldap://HOST:PORT, or the same"
            " with ldaps",
            "password_providers.0.config.bind_dn: it takes either bind_password or"
            " bind_password_file",
            "password_providers.1.config.request: there is no {user}, but localpart, password,"
            " user_id",
            "password_providers.1.config.status_url: it holds {subject}, {user_id} or {localpart},"
            " and nothing else in {}",
            "password_providers.1.config.ca_file: {folder}/nowhere.pem: cannot read it: No such"
            " file or directory",
            "password_providers.1.config.authorization_file: {folder}/nowhere: cannot read it: No"
            " such file or directory",
            "password_providers.2.config.queries.by_user: it does not use the parameter localpart"
            " or user_id",
            "password_providers.2.config.queries.by_email: there is no parameter name, but email",
        ),
    ),
    "mistakes everywhere": (
        {
            "server_name": "no name",
            "lisen": [],
            "listen": ["tcp:8008", "nonsense"],
            "tokens": {"session_lifetime": "1:30", "keyfile": "x"},
            "password_providers": [
                {"module": _BCRYPT, "config": {"users": {}, "peper": "x"}, "nam": "x"},
                {"module": _BCRYPT, "config": {"path": "nowhere.yaml"}},
                {"module": "nowhere"},
            ],
            "token_store": {
                "module": "synapse_login_module.stores.SQLiteTokenStore",
                "config": {"pth": "sessions.db"},
            },
        },
        (
            "password_providers.0.nam: unknown key: did you mean name?",
            "password_providers.2.module: must be the dotted path of a class, such as"
            " synapse_login_module.providers.BcryptProvider",
            "tokens.session_lifetime: not a duration: write 30s, 5m, 12h, 30d, or milliseconds",
            "tokens.keyfile: unknown key: did you mean key_file?",
            "server_name: not a server name: write what user IDs have after the colon",
            "lisen: unknown key: did you mean listen?",
            "password_providers.0.config.peper: unknown key: did you mean pepper?",
            "password_providers.1.config.path: {folder}/nowhere.yaml: cannot read it: No such file"
            " or directory",
            "token_store.config.pth: unknown key: did you mean path?",
            "listen.1: 'nonsense' is not an endpoint: Unknown endpoint type: 'nonsense':"
            " write it like tcp:8008:interface=127.0.0.1",
        ),
    ),
}
"""By name: the changes to a good configuration, or the whole file, and all messages for it."""


def _renamed(config: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in config.items()}


def messages(folder: Path) -> Iterator[Message]:
    """Write the configurations of all messages, in folders of their own."""
    for number, (name, (change, lines)) in enumerate(_MESSAGES.items()):
        here = folder / f"message{number}"
        here.mkdir()
        path = here / "config.yaml"
        if isinstance(change, (str, bytes)):
            path.write_bytes(change if isinstance(change, bytes) else change.encode("utf-8"))
        elif callable(change):
            write_config(here, change(good_config()))
        else:
            if isinstance(change, tuple):
                change, content = change
                (here / "users.yaml").write_bytes(content)
            write_config(here, good_config(**change))
        yield Message(name, path, tuple(each.replace("{folder}", str(here)) for each in lines))


COMMON_MISTAKES = frozenset(
    (
        "no file",
        "no YAML",
        "a key twice",
        "unknown key",
        "wrong type",
        "no duration",
        "no endpoint",
        "key file of garbage",
        "key file for everybody",
        "key file that is a folder",
        "users file that is a folder",
        "bad hash",
        "unknown key of the provider",
        "no such module",
        "no provider",
        "unknown key of the store",
        "newer database",
        "example account on tcp:8008",
    )
)
"""The broken configurations that are also tried with whole processes, which take longer."""
