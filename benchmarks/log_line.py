"""What an audit line costs, as text and as JSON: ``python -m benchmarks.log_line``."""

from __future__ import annotations

import time
from pathlib import Path

from twisted.logger import FileLogObserver, Logger, LogPublisher

from synapse_login_module.audit import AuditLog
from synapse_login_module.model import Client
from synapse_login_module.standalone.log_format import EventText
from synapse_login_module.standalone.log_json import EventJSON

_LINES = 5000
_ROUNDS = 15


def cost(form: EventText | EventJSON) -> float:
    """Write audit lines of logins to ``/dev/null``; return the microseconds of CPU for one."""
    with Path("/dev/null").open("w") as nowhere:
        publisher = LogPublisher(FileLogObserver(nowhere, form))
        audit = AuditLog(emit=Logger("audit", observer=publisher).emit)
        client = Client("192.0.2.1", "192.0.2.1")
        start = time.process_time()
        for number in range(_LINES):
            audit.record(
                "login",
                "ok",
                "password",
                client,
                user=f"@alice{number}:example.com",
                device="ABCDEFGHIJ",
                provider="bcrypt",
            )
        return (time.process_time() - start) / _LINES * 1e6


def main() -> None:
    """Print the lowest of several rounds for each form, taken in turn."""
    text, as_json = zip(
        *((cost(EventText("worker=1 pid=4711")), cost(EventJSON(1))) for _ in range(_ROUNDS)),
        strict=True,
    )
    print(f"an audit line, in microseconds: text {min(text):.1f}, JSON {min(as_json):.1f}")


if __name__ == "__main__":
    main()
