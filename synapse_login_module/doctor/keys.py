"""The file of token keys. The store itself compares their fingerprints."""

from __future__ import annotations

from collections.abc import Iterator

from synapse_login_module.config.files import is_there
from synapse_login_module.doctor.configuration import Parts
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import good, warning

AREA = "keys"


def of_key_file(parts: Parts) -> Iterator[Finding]:
    """Say which keys are in the file. A file with a mistake is a mistake of the configuration."""
    path = parts.key_file
    ring = parts.keys
    if ring is not None:
        count = len(ring.fingerprints)
        yield good(str(path), "1 key" if count == 1 else f"{count} keys", AREA)
        return
    try:
        exists = is_there(path)
    except ConfigError:
        return
    if not exists:
        yield warning(
            str(path),
            "there is no key file",
            "the server makes it at its first start; if it has run before, put the file back from a"
            " backup, or every session is lost",
            AREA,
        )
