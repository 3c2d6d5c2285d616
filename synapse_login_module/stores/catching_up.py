"""The warning about rows that are older than the tokens of clients, as after a restored backup."""

from __future__ import annotations

import json
from collections.abc import Sequence

from twisted.logger import Logger

from synapse_login_module.model import Session

_log = Logger()


def log_caught_up(behind: Sequence[Session]) -> None:
    """Log that rows have caught up with tokens.

    :param behind: the rows from before they caught up.
    """
    for row in behind:
        _log.warn(
            "the store is older than a token of {user_id} on {device}, and has caught up with it:"
            " was it restored from a backup, or did it fail over?",
            user_id=row.user_id,
            device=json.dumps(row.device_id),
        )
