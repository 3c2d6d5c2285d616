"""The tables of applications whose accounts the page on them reads: the columns that it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.hashes.vectors import VECTORS

HASHES: Mapping[str, str] = {each.name: each.text for each in VECTORS}
"""Hashes of one password, which the formats' own programs made."""

DEVISE = HASHES["php_bcrypt"].replace("$2y$", "$2a$")
"""Ruby's bcrypt writes another letter for the same algorithm."""


def split(text: str, *sizes: int) -> list[str]:
    """The columns of a composed hash: so many parts, separated by dollar signs, in each."""
    parts, columns = text.split("$"), []
    for size in sizes:
        columns.append("$".join(parts[:size]))
        parts = parts[size:]
    return [*columns, "$".join(parts)]


DISCOURSE_ALGORITHM, DISCOURSE_SALT, DISCOURSE_HASH = split(HASHES["discourse"], 3, 1)
GITEA_ALGORITHM, GITEA_SALT, GITEA_HASH = split(HASHES["gitea_pbkdf2"], 3, 1)
KEYCLOAK_DATA, KEYCLOAK_SECRET = HASHES["keycloak_argon2"].replace("}{", "}\n{").split("\n")


@dataclass(frozen=True)
class Table:
    """A table of an application.

    :param name: its name, quoted where that is necessary.
    :param columns: its columns, as in ``CREATE TABLE``.
    :param rows: its rows, in the order of the columns.
    """

    name: str
    columns: str
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Application:
    """An application with Alice, whose e-mail address is ``alice@example.com``.

    :param heading: the heading of its section.
    :param database: the name of its database.
    :param tables: its tables.
    :param subject: Alice's.
    :param display_name: Alice's.
    :param deactivate: disables Alice's account; ``None`` if the application cannot.
    :param lock: bans or suspends Alice; ``None`` if the application cannot.
    :param others: names in the tables that cannot log in here.
    """

    heading: str
    database: str
    tables: Sequence[Table]
    subject: str
    display_name: str | None
    deactivate: str | None
    lock: str | None = None
    others: Sequence[str] = ()

    @property
    def gone(self) -> str:
        """A subject like Alice's that no account has."""
        known = {"id:7": "id:99", "id:u-1": "id:u-99"}
        if self.subject.startswith("id:0b2c"):
            return f"{self.subject[:-1]}9"
        return known.get(self.subject, "nobody")


MYSQL = (
    Application(
        "Nextcloud",
        "nextcloud",
        (
            Table(
                "oc_users",
                "uid VARCHAR(64) NOT NULL PRIMARY KEY, displayname VARCHAR(64),"
                " password VARCHAR(255) NOT NULL, uid_lower VARCHAR(64), KEY (uid_lower)",
                (
                    ("Alice", "Alice Liddell", HASHES["nextcloud_3"], "alice"),
                    ("bob", None, HASHES["nextcloud_1"], "bob"),
                ),
            ),
            Table(
                "oc_preferences",
                "userid VARCHAR(64) NOT NULL, appid VARCHAR(32) NOT NULL,"
                " configkey VARCHAR(64) NOT NULL, configvalue LONGTEXT,"
                " PRIMARY KEY (userid, appid, configkey)",
                (
                    ("Alice", "settings", "email", "Alice@example.com"),
                    ("Alice", "core", "lang", "false"),
                    ("bob", "core", "enabled", "true"),
                ),
            ),
        ),
        "Alice",
        "Alice Liddell",
        "INSERT INTO oc_preferences VALUES ('Alice', 'core', 'enabled', 'false')",
    ),
    Application(
        "WordPress",
        "wordpress",
        (
            Table(
                "wp_users",
                "ID BIGINT(20) UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
                " user_login VARCHAR(60) NOT NULL DEFAULT '', user_pass VARCHAR(255) NOT NULL"
                " DEFAULT '', user_email VARCHAR(100) NOT NULL DEFAULT '',"
                " display_name VARCHAR(250) NOT NULL DEFAULT ''",
                (
                    (7, "Alice", HASHES["wordpress"], "Alice@example.com", "Alice Liddell"),
                    (8, "bob", HASHES["phpass"], "bob@example.com", "bob"),
                ),
            ),
        ),
        "id:7",
        "Alice Liddell",
        None,
    ),
    Application(
        "Drupal",
        "drupal",
        (
            Table(
                "users_field_data",
                "uid INT UNSIGNED NOT NULL, langcode VARCHAR(12) NOT NULL, name VARCHAR(60)"
                " NOT NULL, pass VARCHAR(255), mail VARCHAR(254), status TINYINT NOT NULL,"
                " default_langcode TINYINT NOT NULL, PRIMARY KEY (uid, langcode)",
                (
                    (0, "en", "", None, None, 0, 1),
                    (7, "en", "Alice", HASHES["php_bcrypt"], "Alice@example.com", 1, 1),
                    (7, "de", "Alice", HASHES["drupal"], "alice@example.org", 1, 0),
                    (8, "en", "bob", HASHES["drupal"], "bob@example.com", 1, 1),
                ),
            ),
        ),
        "id:7",
        None,
        "UPDATE users_field_data SET status = 0 WHERE uid = 7",
    ),
    Application(
        "phpBB",
        "phpbb",
        (
            Table(
                "phpbb_users",
                "user_id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, user_type TINYINT(2)"
                " NOT NULL DEFAULT 0, username VARCHAR(255) NOT NULL, username_clean VARCHAR(255)"
                " NOT NULL, user_password VARCHAR(255) NOT NULL, user_email VARCHAR(100) NOT NULL",
                (
                    (7, 3, "Alice", "alice", HASHES["php_argon2id"], "Alice@example.com"),
                    (8, 0, "bob", "bob", HASHES["phpbb"], "bob@example.com"),
                    (9, 2, "robot", "robot", HASHES["php_bcrypt"], "robot@example.com"),
                ),
            ),
            Table(
                "phpbb_banlist",
                "ban_id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, ban_userid INT UNSIGNED"
                " NOT NULL DEFAULT 0, ban_end INT UNSIGNED NOT NULL DEFAULT 0, ban_exclude"
                " TINYINT(1) NOT NULL DEFAULT 0",
                ((1, 7, 1, 0), (2, 7, 0, 1), (3, 0, 0, 0)),
            ),
        ),
        "id:7",
        None,
        "UPDATE phpbb_users SET user_type = 1 WHERE user_id = 7",
        "INSERT INTO phpbb_banlist (ban_userid) VALUES (7)",
        ("robot",),
    ),
    Application(
        "mailcow",
        "mailcow",
        (
            Table(
                "mailbox",
                "username VARCHAR(255) NOT NULL PRIMARY KEY, password VARCHAR(255) NOT NULL,"
                " name VARCHAR(255), local_part VARCHAR(255) NOT NULL, domain VARCHAR(255) NOT"
                " NULL, kind VARCHAR(100) NOT NULL DEFAULT '', authsource ENUM('mailcow',"
                " 'keycloak', 'generic-oidc', 'ldap') DEFAULT 'mailcow', active TINYINT(1) NOT"
                " NULL DEFAULT 1",
                tuple(
                    (
                        *(f"{name}@{domain}", HASHES["dovecot_bcrypt"], "Alice Liddell"),
                        *(name, domain, kind, source, 1),
                    )
                    for name, domain, kind, source in (
                        ("alice", "example.com", "", "mailcow"),
                        ("alice", "example.org", "", "mailcow"),
                        ("carol", "example.org", "", "mailcow"),
                        ("room", "example.com", "location", "mailcow"),
                        ("ldap", "example.com", "", "ldap"),
                    )
                ),
            ),
        ),
        "alice",
        "Alice Liddell",
        "UPDATE mailbox SET active = 2",
        None,
        ("room", "ldap", "carol"),
    ),
    Application(
        "Dovecot",
        "mails",
        (
            Table(
                "users",
                "username VARCHAR(128) NOT NULL, domain VARCHAR(128) NOT NULL, password"
                " VARCHAR(255) NOT NULL, active CHAR(1) NOT NULL DEFAULT 'Y'",
                (
                    ("alice", "example.com", HASHES["dovecot_sha512"], "Y"),
                    ("carol", "example.org", HASHES["dovecot_sha512"], "Y"),
                ),
            ),
        ),
        "alice",
        None,
        "UPDATE users SET active = 'N'",
        None,
        ("carol",),
    ),
)

POSTGRESQL = (
    Application(
        "Django",
        "shop",
        (
            Table(
                "auth_user",
                "id SERIAL PRIMARY KEY, password VARCHAR(128) NOT NULL, username VARCHAR(150) NOT"
                " NULL UNIQUE, first_name VARCHAR(150) NOT NULL, last_name VARCHAR(150) NOT NULL,"
                " email VARCHAR(254) NOT NULL, is_active BOOLEAN NOT NULL",
                (
                    (
                        *(7, HASHES["django_pbkdf2_sha256"], "Alice", "Alice", "Liddell"),
                        *("Alice@example.com", True),
                    ),
                    (8, "!unusable", "bob", "", "", "bob@example.com", True),
                ),
            ),
        ),
        "id:7",
        "Alice Liddell",
        "UPDATE auth_user SET is_active = FALSE",
    ),
    Application(
        "authentik",
        "authentik",
        (
            Table(
                "authentik_core_user",
                "id SERIAL PRIMARY KEY, uuid UUID NOT NULL UNIQUE, username VARCHAR(150) NOT NULL"
                " UNIQUE, name TEXT NOT NULL, password VARCHAR(128) NOT NULL, email VARCHAR(254)"
                " NOT NULL, is_active BOOLEAN NOT NULL, type TEXT NOT NULL",
                (
                    (
                        *(7, "0b2c3c6e-61f5-4a0c-9d0e-3d2b3c6f7a11", "Alice", "Alice Liddell"),
                        HASHES["django_pbkdf2_sha256"],
                        *("Alice@example.com", True, "internal"),
                    ),
                    (
                        *(8, "0b2c3c6e-61f5-4a0c-9d0e-3d2b3c6f7a12", "outpost", "An outpost"),
                        HASHES["django_pbkdf2_sha256"],
                        *("", True, "internal_service_account"),
                    ),
                ),
            ),
        ),
        "id:0b2c3c6e-61f5-4a0c-9d0e-3d2b3c6f7a11",
        "Alice Liddell",
        "UPDATE authentik_core_user SET is_active = FALSE",
        None,
        ("outpost",),
    ),
    Application(
        "Mastodon",
        "mastodon_production",
        (
            Table(
                "users",
                "id BIGINT PRIMARY KEY, account_id BIGINT NOT NULL, email VARCHAR NOT NULL,"
                " encrypted_password VARCHAR NOT NULL, disabled BOOLEAN NOT NULL, approved BOOLEAN"
                " NOT NULL, confirmed_at TIMESTAMP, otp_secret VARCHAR",
                (
                    (7, 70, "Alice@example.com", DEVISE, False, True, "2024-01-01", "x"),
                    (8, 80, "bob@example.com", DEVISE, False, False, "2024-01-01", None),
                    (9, 90, "carol@example.com", DEVISE, False, True, None, None),
                ),
            ),
            Table(
                "accounts",
                "id BIGINT PRIMARY KEY, username VARCHAR NOT NULL, domain VARCHAR,"
                " display_name VARCHAR NOT NULL, suspended_at TIMESTAMP, memorial BOOLEAN NOT NULL"
                " DEFAULT FALSE",
                (
                    (70, "Alice", None, "Alice Liddell", None),
                    (71, "alice", "example.org", "Somebody else", None),
                    (80, "bob", None, "", None),
                    (90, "carol", None, "", None),
                ),
            ),
        ),
        "id:7",
        "Alice Liddell",
        "UPDATE accounts SET suspended_at = now() WHERE id = 70",
        "UPDATE users SET disabled = TRUE",
        ("bob", "carol"),
    ),
    Application(
        "GitLab",
        "gitlabhq_production",
        (
            Table(
                "users",
                "id BIGINT PRIMARY KEY, username VARCHAR, name VARCHAR, email VARCHAR NOT NULL,"
                " encrypted_password VARCHAR NOT NULL, state VARCHAR, user_type SMALLINT NOT NULL,"
                " confirmed_at TIMESTAMP, encrypted_otp_secret VARCHAR",
                (
                    (
                        *(7, "Alice", "Alice Liddell", "Alice@example.com", DEVISE, "active", 0),
                        *("2024-01-01", "x"),
                    ),
                    (8, "bob", "", "bob@example.com", DEVISE, "active", 6, "2024-01-01", None),
                    (9, "carol", "", "carol@example.com", DEVISE, "active", 0, None, None),
                ),
            ),
        ),
        "id:7",
        "Alice Liddell",
        "UPDATE users SET state = 'ldap_blocked'",
        "UPDATE users SET state = 'deactivated'",
        ("bob", "carol"),
    ),
    Application(
        "Discourse",
        "discourse",
        (
            Table(
                "users",
                "id INTEGER PRIMARY KEY, username VARCHAR(60) NOT NULL, username_lower VARCHAR(60)"
                " NOT NULL UNIQUE, name VARCHAR, active BOOLEAN NOT NULL, staged BOOLEAN NOT NULL,"
                " suspended_till TIMESTAMP",
                (
                    (7, "Alice", "alice", "Alice Liddell", True, False, "2024-01-01"),
                    (-1, "system", "system", "system", True, False, None),
                    (8, "bob", "bob", None, True, True, None),
                    (9, "carol", "carol", None, True, False, None),
                ),
            ),
            Table(
                "user_passwords",
                "user_id INTEGER NOT NULL UNIQUE, password_hash VARCHAR(64) NOT NULL,"
                " password_salt VARCHAR(32) NOT NULL, password_algorithm VARCHAR(64) NOT NULL,"
                " password_expired_at TIMESTAMP",
                tuple(
                    (each, DISCOURSE_HASH, DISCOURSE_SALT, f"{DISCOURSE_ALGORITHM}$", expired)
                    for each, expired in ((7, None), (-1, None), (8, None), (9, "2024-01-01"))
                ),
            ),
            Table(
                "user_emails",
                'user_id INTEGER NOT NULL, email VARCHAR NOT NULL, "primary" BOOLEAN NOT NULL',
                ((7, "Alice@example.com", True), (7, "alice@example.org", False)),
            ),
        ),
        "id:7",
        "Alice Liddell",
        "UPDATE users SET active = FALSE",
        "UPDATE users SET suspended_till = now() + interval '1 day'",
        ("system", "bob", "carol"),
    ),
    Application(
        "Gitea",
        "gitea",
        (
            Table(
                '"user"',
                "id BIGINT PRIMARY KEY, lower_name VARCHAR(255) NOT NULL UNIQUE, name VARCHAR(255)"
                " NOT NULL, full_name VARCHAR(255), email VARCHAR(255) NOT NULL, passwd"
                " VARCHAR(255) NOT NULL, passwd_hash_algo VARCHAR(255) NOT NULL, salt VARCHAR(32),"
                " type INTEGER, login_type INTEGER, is_active BOOLEAN, prohibit_login BOOLEAN NOT"
                " NULL DEFAULT FALSE",
                tuple(
                    (
                        *(number, name.lower(), name, "Alice Liddell", f"{name}@example.com"),
                        *(GITEA_HASH, GITEA_ALGORITHM, GITEA_SALT, kind, source, True),
                    )
                    for number, name, kind, source in (
                        (7, "Alice", 0, 0),
                        (8, "club", 1, 0),
                        (9, "ldap", 0, 2),
                    )
                ),
            ),
        ),
        "id:7",
        "Alice Liddell",
        'UPDATE "user" SET is_active = FALSE',
        'UPDATE "user" SET prohibit_login = TRUE',
        ("club", "ldap"),
    ),
    Application(
        "Keycloak",
        "keycloak",
        (
            Table(
                "realm",
                "id VARCHAR(36) PRIMARY KEY, name VARCHAR(255) UNIQUE",
                (("r-1", "example"), ("r-2", "master")),
            ),
            Table(
                "user_entity",
                "id VARCHAR(36) PRIMARY KEY, username VARCHAR(255), first_name VARCHAR(255),"
                " last_name VARCHAR(255), email VARCHAR(255), enabled BOOLEAN NOT NULL, realm_id"
                " VARCHAR(255), federation_link VARCHAR(255), service_account_client_link"
                " VARCHAR(255)",
                tuple(
                    (each, name, "Alice", "Liddell", "alice@example.com", True, realm, *links)
                    for each, name, realm, *links in (
                        ("u-1", "alice", "r-1", None, None),
                        ("u-2", "alice", "r-2", None, None),
                        ("u-3", "admin", "r-2", None, None),
                        ("u-4", "ldap", "r-1", "f-1", None),
                        ("u-5", "service-account-x", "r-1", None, "c-1"),
                    )
                ),
            ),
            Table(
                "credential",
                "id VARCHAR(36) PRIMARY KEY, user_id VARCHAR(36), type VARCHAR(255),"
                " credential_data TEXT, secret_data TEXT",
                (
                    *(
                        (f"c-{each}", f"u-{each}", "password", KEYCLOAK_DATA, KEYCLOAK_SECRET)
                        for each in range(1, 6)
                    ),
                    ("c-9", "u-1", "otp", "{}", "{}"),
                ),
            ),
        ),
        "id:u-1",
        "Alice Liddell",
        "UPDATE user_entity SET enabled = FALSE",
        None,
        ("admin", "ldap", "service-account-x"),
    ),
)
