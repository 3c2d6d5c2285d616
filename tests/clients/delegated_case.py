"""The base of the tests of clients of a Synapse that delegates authentication, behind nginx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.clients.case import ProgramCase
from tests.clients.proxy import DelegatedNginx
from tests.support.delegated_server import DelegatedCase
from tests.support.ports import free_port


class DelegatedClientCase(DelegatedCase, ProgramCase):
    """A Synapse, the server that it delegates to, and nginx with ``delegated.conf`` before both.

    :cvar settings: keys to add to the server's configuration.
    :ivar url: the URL that clients use, on ``port``.
    """

    settings: ClassVar[Mapping[str, Any]] = {}
    timeout = ProgramCase.timeout

    async def setUp(self) -> None:  # type: ignore[override]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = {"public_baseurl": self.url, **self.settings}
        await super().setUp()
        await self.started(DelegatedNginx(self.server.port, self.synapse.client_port, self.port))

    async def nginx_during_outage(self) -> DelegatedNginx:
        """Start another nginx, for which the login service is down."""
        return await self.started(DelegatedNginx(free_port(), self.synapse.client_port))
