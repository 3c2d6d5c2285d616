"""Who may read and write the files of the service, and who the service runs as."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from pwd import getpwuid
from typing import Any

from synapse_login_module.config import modes
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import good, warning

AREA = "files"


def of_modes(given: Mapping[str, Any], path: Path) -> list[Finding]:
    """Report the files that other users may read or write, but should not.

    :param given: the configuration without a mistake that keeps it from being parsed.
    """
    return of_warnings(modes.warnings(given, path), str(path))


def of_warnings(warnings: Iterable[Finding], what: str) -> list[Finding]:
    """Report the warnings of :mod:`synapse_login_module.config.modes`, or that there is none.

    :param what: what a warning is about that does not say so itself.
    """
    findings = [replace(each, what=each.what or what, area=AREA) for each in warnings]
    return findings or [good("modes", "no other user may read or write what they should not", AREA)]


def of_user(paths: Iterable[Path]) -> Iterator[Finding]:
    """Say when the command runs as another user than the server, and so sees other rights.

    :param paths: files that the server's user owns.
    """
    if os.geteuid() != 0:
        return
    for path in paths:
        try:
            owner = os.stat(path).st_uid
        except OSError:
            continue
        if owner != 0:
            name = _name(owner)
            yield warning(
                "user",
                f"this command runs as root, and {path} belongs to {name}: root may read and write"
                " what the server may not",
                f"run it as the server's user: sudo -u {name} …",
                AREA,
            )
            return


def _name(uid: int) -> str:
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
