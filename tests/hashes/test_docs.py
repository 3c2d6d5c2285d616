"""Tests that what stands in docs/hashes.rst is so."""

from __future__ import annotations

import re
import sqlite3
import textwrap

import yaml
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config.settings import Hashing
from synapse_login_module.hashes import parse_hash, takes_prefix
from synapse_login_module.hashes.table import FORMATS
from tests.hashes.vectors import PASSWORD, VECTORS
from tests.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "hashes.rst").read_text("utf-8")
_BY_NAME = {vector.name: vector.text for vector in VECTORS}


def block(language: str) -> str:
    """Return the one code block of a language."""
    (found,) = re.findall(
        rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", PAGE, re.MULTILINE
    )
    return textwrap.dedent(found)


class PageTests(SynchronousTestCase):
    """The page on formats."""

    def test_each_format(self) -> None:
        """Each format is in the table, unless it is columns."""
        columns = {"argon2$", "pbkdf2$", '{"'} | {f"bcrypt${digit}" for digit in "0123456789"}
        for each in FORMATS:
            if each.prefix not in columns:
                self.assertIn(f"``{each.prefix}", PAGE)

    def test_columns(self) -> None:
        """The expressions make a hash of the columns of each application."""
        text = _BY_NAME["discourse"]
        algorithm, salt, digest = re.fullmatch(r"(\$.*\$.*\$)(.*)\$(.*)", text).groups()  # type: ignore[union-attr]
        made, password = _BY_NAME["keycloak_argon2"].split("}{")
        rows: dict[str, list[dict[str, str]]] = {
            "Discourse": [
                {
                    "password_algorithm": algorithm,
                    "password_salt": salt,
                    "password_hash": digest,
                }
            ],
            "Gitea": [
                dict(
                    zip(
                        ("passwd_hash_algo", "salt", "passwd"),
                        re.fullmatch(r"(.*)\$([0-9a-f]{32})\$(.*)", _BY_NAME[name]).groups(),  # type: ignore[union-attr]
                        strict=True,
                    )
                )
                for name in ("gitea_pbkdf2", "gitea_scrypt", "gitea_argon2", "gitea_bcrypt")
            ],
            "Keycloak": [{"credential_data": f"{made}}}", "secret_data": f"{{{password}"}],
        }
        expressions = re.findall(r"^-- (\w+),.*\n(.+)$", block("sql"), re.MULTILINE)
        self.assertEqual({name for name, _ in expressions}, set(rows))
        for name, expression in expressions:
            for row in rows[name]:
                names = ", ".join(f":{column} AS {column}" for column in row)
                statement = f"SELECT {expression} FROM (SELECT {names})"
                ((text,),) = sqlite3.connect(":memory:").execute(statement, row)
                self.assertTrue(parse_hash(text).verify(PASSWORD.encode()), name)

    def test_hashing(self) -> None:
        """The block of ``hashing`` is valid, and states the defaults."""
        given = yaml.safe_load(block("yaml"))["hashing"]
        read = Hashing.model_validate(given)
        self.assertEqual((read.format, read.argon2), ("argon2id", Hashing().argon2))
        self.assertFalse(read.new_hashes().kind.is_weak)

    def test_prefixes(self) -> None:
        """What stands before new hashes is a format."""
        table = re.findall(
            r"^(?:Django|Nextcloud|Dovecot|OpenLDAP) +``(.+?)`` +``(.+?)``$", PAGE, re.M
        )
        self.assertEqual(len(table), 4)
        for before_bcrypt, before_argon2id in table:
            self.assertTrue(takes_prefix(before_bcrypt, "bcrypt"), before_bcrypt)
            self.assertTrue(takes_prefix(before_argon2id, "argon2id"), before_argon2id)

    def test_limits(self) -> None:
        """The limits are about those in the table."""
        end = "a" * 22 + "$" + "b" * 43
        for good, bad in (
            (f"$2b$16${'.' * 53}", f"$2b$17${'.' * 53}"),
            (
                f"$argon2id$v=19$m=262144,t=17,p=16${end}",
                f"$argon2id$v=19$m=262144,t=18,p=16${end}",
            ),
            (
                f"pbkdf2_sha256$10000000$salt${'a' * 43}=",
                f"pbkdf2_sha256$12000000$salt${'a' * 43}=",
            ),
            (
                f"$scrypt$ln=14,r=8,p=80$aaaa${'b' * 43}",
                f"$scrypt$ln=14,r=8,p=90$aaaa${'b' * 43}",
            ),
            (f"$6$rounds=1000000$salt${'a' * 86}", f"$6$rounds=1000001$salt${'a' * 86}"),
            (f"$P$I{'a' * 30}", f"$P$J{'a' * 30}"),
        ):
            parse_hash(good)
            self.assertRaises(ValueError, parse_hash, bad)
