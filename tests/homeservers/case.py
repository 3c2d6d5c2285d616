"""What the tests of the homeserver share: a case that builds it for a service on a socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from zope.interface import directlyProvides, providedBy

from synapse_login_module import testing
from synapse_login_module.homeservers.synapse import SynapseHomeserver
from synapse_login_module.plugin import Environment
from tests.homeservers.fake_synapse import SECRET, FakeSynapse, SynapseSite
from tests.providers.case import ProviderCase, reactor


class ClockedReactor:
    """The real reactor, whose timers only the test advances.

    :ivar clock: the clock of the timers.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.callLater = self.clock.callLater
        self.seconds = self.clock.seconds
        directlyProvides(self, *providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class HomeserverCase(ProviderCase):
    """A fake Synapse on a socket, and the homeserver that calls it.

    :ivar reactor: the homeserver's reactor. A connection that is refused needs real timers.
    """

    server_name = testing.SERVER_NAME

    def setUp(self) -> None:
        self.reactor: Any = ClockedReactor()
        self.synapse = FakeSynapse()
        self.site = self.serve(self.synapse)

    def environment(self) -> Environment:
        """An environment with the clocked reactor."""
        made = testing.environment(reactor=self.reactor)
        return replace(made, server_name=self.server_name)

    def serve(self, synapse: FakeSynapse, tls: Any = None) -> SynapseSite:
        """Serve a fake Synapse until the end of the test."""
        site = SynapseSite(synapse, tls)
        self.addCleanup(site.stop)
        return site

    def homeserver(self, **config: Any) -> SynapseHomeserver:
        """The homeserver of this configuration, by default the fake Synapse."""
        self.write("secret", f"{SECRET}\n").chmod(0o600)
        built: SynapseHomeserver = self.build(
            SynapseHomeserver, {"url": self.site.url, "secret_file": "secret", **config}
        )
        return built
