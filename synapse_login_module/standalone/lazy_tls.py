"""Imports Twisted's reactor without pyOpenSSL, which is imported once something uses TLS.

pyOpenSSL takes 12 MB. Twisted imports it together with every reactor, for three things:

- ``twisted.internet.posixbase`` has the modules ``twisted.protocols.tls`` and
  ``twisted.internet.ssl``, and uses them only in ``listenSSL`` and ``connectSSL``. Python's
  ``LazyLoader`` is made for that.
- ``twisted.internet._newtls`` has one class of ``twisted.protocols.tls``, and uses it only in
  ``startTLS``, where it calls it. A function that imports the class stands in for it.
- ``twisted.internet.endpoints`` needs it whole. So do this server's own clients that use TLS. They
  are imported only by what uses them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType
from typing import Any

_TLS = "twisted.protocols.tls"
_USES_ONE_CLASS = "twisted.internet._newtls"
_REACTORS_TLS = (_TLS, "twisted.internet.ssl")
_FIRST_OF_REACTOR = "twisted.internet.tcp"


def defer_tls() -> None:
    """Have the TLS of the reactor imported at its first use. Call this before the reactor's import.

    Nothing changes if the reactor is imported already, if pyOpenSSL is not installed, or if this
    Twisted needs more of it. A pyOpenSSL that is installed and broken shows at the first use of
    TLS, and no longer at the start.

    The two modules may be used by any thread, but for the first time by one at a time: Python's
    ``LazyLoader`` has no lock in its older releases. Here that is the reactor's.
    """
    if any(name in sys.modules for name in (_FIRST_OF_REACTOR, _USES_ONE_CLASS, *_REACTORS_TLS)):
        return
    if find_spec("OpenSSL") is None or not _import_with_stand_in():
        return
    for name in _REACTORS_TLS:
        _make_lazy(name)


def _import_with_stand_in() -> bool:
    """Import the module that uses one class; return whether it did with the stand-in for it."""
    stand_in = ModuleType(_TLS)
    vars(stand_in)["TLSMemoryBIOFactory"] = _tls_factory
    sys.modules[_TLS] = stand_in
    try:
        import_module(_USES_ONE_CLASS)
    except Exception:  # this Twisted does more with the class than to call it
        sys.modules.pop(_USES_ONE_CLASS, None)
        return False
    finally:
        del sys.modules[_TLS]
    return True


def _tls_factory(*given: Any, **named: Any) -> Any:
    from twisted.protocols.tls import TLSMemoryBIOFactory

    return TLSMemoryBIOFactory(*given, **named)


def _make_lazy(name: str) -> None:
    """Have a module loaded when an attribute of it is first used."""
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return
    loader = spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    parent, _, child = name.rpartition(".")
    setattr(import_module(parent), child, module)
