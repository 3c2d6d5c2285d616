"""Listening sockets that the parent opens and its workers accept from.

Twisted's ``adoptStreamPort`` is not used. It sets the mode of a Unix socket anew, and unlinks its
path when the first process that shares it stops.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReadDescriptor,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.config import listen
from synapse_login_module.errors import ConfigError

_ERROR_PAUSE = 0.1
_YIELD_PAUSE = 0.001
"""Seconds. Long enough for an idle process to wake up."""


def never_yield() -> bool:
    """Never let another process accept first."""
    return False


class _Listener(Factory):
    """The factory of a socket from which this process does not accept."""

    noisy = False


class OpenSocket:
    """A listening socket in the parent, which opens it and never accepts.

    :param description: the endpoint description.
    :raise ConfigError: when the socket cannot be opened or cannot be shared.
    :ivar descriptor: the descriptor that workers inherit.
    """

    descriptor: int

    def __init__(self, reactor: Any, description: str) -> None:
        self._port: Any = None
        plain = listen.plain_tcp(description)
        if plain is None:
            self._open(reactor, description)
            return
        try:
            self._share(reactor.listenTCP(plain.port, _Listener(), interface=plain.interface))
        except (CannotListenError, OSError, OverflowError, ValueError) as error:
            raise ConfigError("", str(error)) from None

    def _open(self, reactor: Any, description: str) -> None:
        from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString

        endpoint: Any = serverFromString(reactor, description)
        if isinstance(endpoint, AdoptedStreamServerEndpoint):  # systemd has opened it
            self.descriptor = endpoint.fileno
            return
        ports: list[Any] = []
        failures: list[Failure] = []
        endpoint.listen(_Listener()).addCallbacks(ports.append, failures.append)
        if failures:
            raise ConfigError("", failures[0].getErrorMessage())
        if not ports or not IReadDescriptor.providedBy(ports[0]):
            raise ConfigError("", f"{description!r} cannot be shared by workers")
        self._share(ports[0])

    def _share(self, port: Any) -> None:
        port.stopReading()
        self._port, self.descriptor = port, port.fileno()

    def close(self) -> Deferred[None]:
        """Close the socket in this process; workers close their own descriptors.

        A socket of systemd's stays open, because later workers may inherit it again.
        """
        if self._port is None:
            return succeed(None)
        # Before it closes a socket, Twisted shuts it down, which would stop the workers' too. So
        # its descriptor is replaced by one of /dev/null first.
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), self.descriptor, inheritable=False)
        closed: Deferred[None] = self._port.stopListening()
        return closed


def endpoint(
    reactor: Any,
    description: str,
    descriptor: int,
    should_yield: Callable[[], bool] = never_yield,
) -> IStreamServerEndpoint:
    """Build the endpoint of a description on a socket that is open already.

    Everything in the description but the address applies, such as TLS.

    :param descriptor: the socket's.
    :param should_yield: returns whether another process should accept the next connection.
    """
    sharing: Any = _SharingReactor(reactor, descriptor, should_yield)
    if description.startswith("systemd:") or listen.plain_tcp(description) is not None:
        return _InheritedEndpoint(sharing)
    from twisted.internet.endpoints import serverFromString

    found: IStreamServerEndpoint = serverFromString(sharing, description)
    return found


@implementer(IStreamServerEndpoint)
class _InheritedEndpoint:
    """An endpoint that consists of the socket alone."""

    def __init__(self, reactor: _SharingReactor) -> None:
        self._reactor = reactor

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections from the socket; fires at once with the port."""
        return succeed(self._reactor.share(factory))


class _SharingReactor:
    """A reactor whose ``listen`` methods accept from a socket that is open already."""

    def __init__(self, reactor: Any, descriptor: int, should_yield: Callable[[], bool]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._should_yield = should_yield

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def share(self, factory: IProtocolFactory) -> SharedPort:
        """Accept connections for a factory."""
        port = SharedPort(self._reactor, self._descriptor, factory, self._should_yield)
        port.startListening()
        return port

    def listenTCP(self, port: int, factory: IProtocolFactory, *_: Any, **__: Any) -> SharedPort:
        """Accept from the socket, whatever the port."""
        return self.share(factory)

    def listenUNIX(self, path: str, factory: IProtocolFactory, *_: Any, **__: Any) -> SharedPort:
        """Accept from the socket, whatever the path."""
        return self.share(factory)

    def listenSSL(
        self, port: int, factory: IProtocolFactory, contextFactory: Any, *_: Any, **__: Any
    ) -> SharedPort:
        """Accept from the socket, with the certificate of the description."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self.share(TLSMemoryBIOFactory(contextFactory, False, factory))


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """Accepts from a listening socket that other processes accept from too.

    It accepts one connection in each turn of the reactor. It waits for a moment before that when
    another process should accept first, so that connections are spread evenly.

    :param descriptor: the socket's; closed when the port stops.
    :param should_yield: returns whether another process should accept the next connection.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        factory: IProtocolFactory,
        should_yield: Callable[[], bool] = never_yield,
    ) -> None:
        self._reactor = reactor
        self._should_yield = should_yield
        self._factory = factory
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def startListening(self) -> None:
        """Begin to accept connections."""
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept the connections that are waiting, then close the socket; fires at once."""
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            while self._accept():
                pass
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Return the address that it listens on."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        kind = IPv6Address if self._socket.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *name)

    def fileno(self) -> int:
        """Return the descriptor for the reactor to watch."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Accept a connection, unless another process was faster or should be."""
        if self._should_yield():
            self._reactor.removeReader(self)
            self._reactor.callLater(_YIELD_PAUSE, self._resume, late=True)
        else:
            self._accept()

    def connectionLost(self, reason: Failure) -> None:
        """Stop: the reactor stops, or cannot watch the socket."""
        self.stopListening()

    def logPrefix(self) -> str:
        """Return the name for the log."""
        return type(self).__name__

    def _accept(self) -> bool:
        """Accept a connection; return whether another may be waiting."""
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:
            self._pause(error)
            return False
        with connection:
            connection.setblocking(False)
            try:
                self._reactor.adoptStreamConnection(
                    connection.fileno(), self._socket.family, self._factory
                )
            except OSError as error:
                if error.errno != errno.ENOTCONN:  # ENOTCONN: the client is gone
                    self._pause(error)
                    return False
            except Exception:  # of this connection alone
                connection.shutdown(socket.SHUT_RDWR)  # the failure keeps a descriptor of it open
                self.log.failure("a connection cannot be served")
        return True

    def _pause(self, error: OSError) -> None:
        """Stop accepting for a moment after an error, such as no descriptor left."""
        self.log.warn("cannot accept connections: {error}", error=os.strerror(error.errno or 0))
        self._reactor.removeReader(self)
        self._reactor.callLater(_ERROR_PAUSE, self._resume)

    def _resume(self, late: bool = False) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.addReader(self)
            if late:
                self._accept()
