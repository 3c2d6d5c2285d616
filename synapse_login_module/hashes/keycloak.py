"""Keycloak's hashes: the columns ``credential_data`` and ``secret_data``, one after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from synapse_login_module.hashes import argon2, pbkdf2
from synapse_login_module.hashes.encodings import from_base64
from synapse_login_module.hashes.kinds import Hash

_DAMAGED = "columns of Keycloak that are cut short or damaged"
_MOST = 2**31
_VERSIONS = {"1.0": 16, "1.3": 19}


def parse(text: str) -> Hash:
    """Parse two JSON objects.

    :raise ValueError: when they are not Keycloak's, or argon2-cffi is missing and needed.
    """
    try:
        how, end = json.JSONDecoder().raw_decode(text)
        secret = json.loads(text[end:])
        algorithm, iterations = str(how["algorithm"]), min(int(how["hashIterations"]), _MOST)
        salt, digest = from_base64(str(secret["salt"])), from_base64(str(secret["value"]))
        more = how.get("additionalParameters") or {}
        costs = (_number(more, "memory"), iterations, _number(more, "parallelism"))
        variant, version = _first(more, "type"), _VERSIONS.get(_first(more, "version"), 19)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        raise ValueError(_DAMAGED) from None
    if algorithm == "argon2" and variant in ("id", "i"):
        return argon2.make_hash(variant, version, costs, salt, digest)
    if algorithm in ("pbkdf2", "pbkdf2-sha256", "pbkdf2-sha512"):
        name = algorithm.removeprefix("pbkdf2").removeprefix("-") or "sha1"
        return pbkdf2.make_hash(name, iterations, salt, digest)
    raise ValueError(_DAMAGED)


def _first(parameters: Mapping[str, Any], name: str) -> str:
    """Return the one value of a parameter, which is a list; ``""`` if there is none."""
    return str(next(iter(parameters.get(name) or [""])))


def _number(parameters: Mapping[str, Any], name: str) -> int:
    return min(int(_first(parameters, name) or 0), _MOST)
