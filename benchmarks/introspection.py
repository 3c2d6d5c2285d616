"""``python -m benchmarks.introspection PORT CONFIG``: this server's listener for a homeserver.

It serves introspection over the parts that the standalone server is built of, and nothing else. So
it needs no homeserver.
"""

from __future__ import annotations

import gc
import hmac
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor

from synapse_login_module.audit import AuditLog
from synapse_login_module.compose import login_service
from synapse_login_module.model import HomeserverPolicy
from synapse_login_module.standalone.plan import load_config
from synapse_login_module.standalone.server import build_backends
from synapse_login_module.standalone.token_keys import SharesKeys
from synapse_login_module.web.client import Clients
from synapse_login_module.web.handlers import Handlers
from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.internal import InternalHandlers
from synapse_login_module.web.routes import internal_root
from synapse_login_module.web.site import LoginSite

reactor: Any = global_reactor

SECRET = b"of-the-benchmark"
_URL = "https://login.example.com/"


def main() -> None:
    """Serve until killed."""
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    loaded = load_config(path, reactor)
    backends = build_backends(loaded, reactor)
    config = loaded.config
    service = login_service(
        config, backends.accounts, backends.store, backends.hashing, AuditLog(), reactor
    )
    handlers = InternalHandlers(
        service,
        HomeserverPolicy(),
        config.server_name,
        partial(hmac.compare_digest, SECRET),
        _URL,
        _URL,
        time.time,
        reactor,
    )
    for_clients = Handlers(service, Clients([]), config.server_name, True)
    for part in (*backends.parts, SharesKeys(backends.store)):
        part.startService()
        reactor.addSystemEventTrigger("before", "shutdown", part.stopService)
    root = internal_root(HTTPRequest.respond, for_clients.health, handlers)
    site = LoginSite(root, reactor)
    gc.collect()
    gc.freeze()
    reactor.listenTCP(port, site, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
