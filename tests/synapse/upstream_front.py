"""Runs unit tests of Synapse's own with the module in front of each homeserver that they make.

Run by ``test_upstream``, as a program: the ``tests`` that it imports are Synapse's.
"""

from __future__ import annotations

import hashlib
import time
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.scripts.trial import run
from twisted.web.resource import Resource
from twisted.web.server import Request

from synapse_login_module import SynapseLoginModule, compose
from synapse_login_module.hashes import Kind
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.hashes.decoys import Times
from synapse_login_module.synapse import provider, watching

CONFIG = {
    "tokens": {"refresh_token": "on_request"},
    "password_providers": [
        {
            "module": "synapse_login_module.providers.BcryptProvider",
            "config": {"users": {}},
        }
    ],
}


class Hashing:
    """Hashes as the AuthHandler of Synapse's tests does, which is cheap, and at once."""

    kind = new_hashes(4).kind
    times = Times()

    def check(
        self, password: str, stored: str, pepper: str, normalize: bool | None = None
    ) -> Deferred[bool]:
        return succeed(_hash(password) == stored)

    def hash(self, password: str, pepper: str, normalize: bool | None = None) -> Deferred[str]:
        return succeed(_hash(password))

    def decoy(self, password: str, kind: Kind | None = None) -> Deferred[None]:
        return succeed(None)

    def report_kind(self, kind: Kind, source: object = None) -> None:
        return None


def _hash(password: str) -> str:
    return hashlib.md5(password.encode()).hexdigest()


class Front(Resource):
    """Synapse's resources, and the module's before them, as a proxy has them."""

    def __init__(self, behind: Resource, homeserver: Any) -> None:
        super().__init__()
        self._behind = behind
        self._paths = {
            path.encode(): resource for path, resource in homeserver._module_web_resources.items()
        }

    def getChildWithDefault(self, name: bytes, request: Request) -> Any:
        found = self._paths.get(request.path)
        if found is None:
            return self._behind.getChildWithDefault(name, request)
        request.postpath = []
        return found

    def render(self, request: Request) -> Any:
        return self._behind.render(request)


def install() -> None:
    """Have each homeserver of Synapse's tests load the module, and its site serve it."""
    clock = SimpleNamespace(seconds=time.monotonic)
    fake_time: Any = SimpleNamespace(time=time.time, monotonic=lambda: clock.seconds())
    fakes: Any = compose
    fakes.time = fake_time
    fakes.hashing_pool = lambda config, reactor, metrics=None: Hashing()
    # Those tests have a clock of their own, and nothing may be left in the reactor's after one.
    watch: Any = watching.AccountWatch
    watch.start = lambda self: succeed(None)
    hashes: Any = provider
    hashes.parse = lambda password_hash: SimpleNamespace(kind=Hashing.kind)
    unittest: Any = import_module("tests.unittest")
    set_up, site = unittest.setup_test_homeserver, unittest.SynapseSite

    def set_up_with_module(*args: Any, config: Any = None, reactor: Any = None, **more: Any) -> Any:
        clock.seconds = reactor.seconds if reactor is not None else time.monotonic
        if config is not None and _fits(config):
            ours = (SynapseLoginModule, SynapseLoginModule.parse_config(CONFIG))
            config.modules.loaded_modules = [ours, *config.modules.loaded_modules]
        return set_up(*args, config=config, reactor=reactor, **more)

    def site_with_module(*args: Any, resource: Resource, hs: Any, **more: Any) -> Any:
        return site(*args, resource=Front(resource, hs), hs=hs, **more)

    unittest.setup_test_homeserver = set_up_with_module
    unittest.SynapseSite = site_with_module


def _fits(config: Any) -> bool:
    """Whether the module starts with it; if not, it says why. For the main process only."""
    refreshable = config.registration.refreshable_access_token_lifetime is not None
    return refreshable and not config.mas.enabled and config.worker.worker_app is None


if __name__ == "__main__":
    install()
    run()
