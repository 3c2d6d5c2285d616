"""Formats of stored password hashes: how each is recognised, what it costs, how it is checked."""

from synapse_login_module.hashes.kinds import Hash, Kind, NewHashes, Strength, check_limits, prepare
from synapse_login_module.hashes.table import parse_hash, takes_prefix

__all__ = [
    "Hash",
    "Kind",
    "NewHashes",
    "Strength",
    "check_limits",
    "parse_hash",
    "prepare",
    "takes_prefix",
]
