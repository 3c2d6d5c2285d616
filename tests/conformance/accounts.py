"""The accounts of the servers that the suite starts, and their users file."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import bcrypt

from tests.conformance.target import TestAccount

SERVER_NAME = "conformance.example"

CHEEKY = TestAccount("cheeky_monkey", "ilovebananas", "cheeky@example.com", "447700900123")
BOB = TestAccount("bob", "correct horse battery staple")
LOCKED = TestAccount("larry", "locked out")
DEACTIVATED = TestAccount("dora", "gone for good")
UPPER = TestAccount("Upper", "shout it out")
LONG = TestAccount("longfellow", "0123456789" * 10)
COMPOSED = TestAccount("rene", unicodedata.normalize("NFC", "cafe\u0301 \u212b ngstrom"))

_ROUNDS = 4


@cache
def password_hash(password: str, pepper: str = "", rounds: int = _ROUNDS) -> str:
    """Hash a password as Synapse does: NFKC, the pepper, UTF-8 cut at 72 bytes."""
    normal = unicodedata.normalize("NFKC", password) + pepper
    return bcrypt.hashpw(normal.encode("utf-8")[:72], bcrypt.gensalt(rounds)).decode("ascii")


def users(pepper: str = "", rounds: int = _ROUNDS) -> dict[str, dict[str, Any]]:
    """Return the ``users`` mapping of ``BcryptProvider`` with all accounts."""
    entries: dict[str, dict[str, Any]] = {}
    for account in (CHEEKY, BOB, LOCKED, DEACTIVATED, UPPER, LONG, COMPOSED):
        entry: dict[str, Any] = {"password_hash": password_hash(account.password, pepper, rounds)}
        if account.email:
            entry["emails"] = [account.email]
        if account.phone:
            entry["phones"] = [account.phone]
        entries[account.user] = entry
    entries[CHEEKY.user]["display_name"] = "Cheeky Monkey"
    entries[LOCKED.user]["locked"] = True
    entries[DEACTIVATED.user]["deactivated"] = True
    return entries
