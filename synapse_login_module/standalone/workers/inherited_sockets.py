"""Listening sockets that a parent opened and its workers accept from.

Twisted's ``adoptStreamPort`` is not used: it unlinks the path of a Unix socket when one of those
who share it stops, and sets its mode anew.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
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

from synapse_login_module.errors import ConfigError

_PAUSE = 0.1
_TURN = 0.001
"""Seconds: enough for a process that has nothing to do to wake up."""


def never_yield() -> bool:
    """Of those who accept, nobody else is to have a connection first."""
    return False


class _Listener(Factory):
    """For a socket from which this process does not accept."""

    noisy = False


class OpenSocket:
    """A listening socket in the process that opens it and never accepts.

    :param description: the endpoint description.
    :raise ConfigError: when it cannot be opened, or not be shared.
    :ivar descriptor: what is handed down.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        self._port: Any = None
        endpoint: Any = serverFromString(reactor, description)
        if isinstance(endpoint, AdoptedStreamServerEndpoint):  # systemd's: it is open already
            self.descriptor: int = endpoint.fileno
            return
        failures: list[Failure] = []
        endpoint.listen(_Listener()).addCallbacks(self._opened, failures.append)
        if failures:
            raise ConfigError("", failures[0].getErrorMessage())
        if not IReadDescriptor.providedBy(self._port):
            raise ConfigError("", f"{description!r} cannot be shared by workers")
        self._port.stopReading()
        self.descriptor = self._port.fileno()

    def close(self) -> Deferred[None]:
        """Close it here; the workers close it for themselves.

        What is systemd's stays open: it may be handed down again.
        """
        if self._port is None:
            return succeed(None)
        # Twisted shuts a socket down as it closes it, and so it would for the workers: it gets
        # another one to do that to.
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), self.descriptor, inheritable=False)
        closed: Deferred[None] = self._port.stopListening()
        return closed

    def _opened(self, port: object) -> None:
        self._port = port


def endpoint(
    reactor: Any,
    description: str,
    descriptor: int,
    should_yield: Callable[[], bool] = never_yield,
) -> IStreamServerEndpoint:
    """The endpoint of a description, on a socket that is open already.

    Whatever the description says beside the address, as TLS, is done as ever.

    :param should_yield: whether the next connection is rather for others.
    """
    sharing: Any = _SharingReactor(reactor, descriptor, should_yield)
    if description.startswith("systemd:"):
        return _HandedDown(sharing)
    found: IStreamServerEndpoint = serverFromString(sharing, description)
    return found


@implementer(IStreamServerEndpoint)
class _HandedDown:
    """An endpoint of which there is nothing but the socket."""

    def __init__(self, reactor: _SharingReactor) -> None:
        self._reactor = reactor

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept from it."""
        return succeed(self._reactor.share(factory))


class _SharingReactor:
    """A reactor that, asked to listen, accepts from a socket that is open already."""

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
        """The address is the socket's."""
        return self.share(factory)

    def listenUNIX(self, path: str, factory: IProtocolFactory, *_: Any, **__: Any) -> SharedPort:
        """The address is the socket's."""
        return self.share(factory)

    def listenSSL(
        self, port: int, factory: IProtocolFactory, contextFactory: Any, *_: Any, **__: Any
    ) -> SharedPort:
        """The address is the socket's, the certificate the description's."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self.share(TLSMemoryBIOFactory(contextFactory, False, factory))


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """Accepts from a listening socket that others accept from too.

    It takes one connection in each turn of the reactor, and after a moment, if others are rather to
    have it; so they get their share.

    :param descriptor: of the socket; closed when this stops.
    :param should_yield: whether the next connection is rather for others.
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
        """Begin to accept."""
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept who has connected by now, and nobody after; fires at once."""
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            while self._accept():
                pass
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Where it listens."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        kind = IPv6Address if self._socket.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *name)

    def fileno(self) -> int:
        """What the reactor watches."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Accept a connection, if nobody else was faster."""
        if self._should_yield():
            self._reactor.removeReader(self)
            self._reactor.callLater(_TURN, self._go_on, late=True)
        else:
            self._accept()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops, or cannot watch the socket."""
        self.stopListening()

    def logPrefix(self) -> str:
        """How the log calls it."""
        return type(self).__name__

    def _accept(self) -> bool:
        """Accept a connection; say whether there may be another."""
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:
            self._rest(error)
            return False
        with connection:
            connection.setblocking(False)
            try:
                self._reactor.adoptStreamConnection(
                    connection.fileno(), self._socket.family, self._factory
                )
            except OSError as error:
                if error.errno != errno.ENOTCONN:  # its client is not gone: nothing can be opened
                    self._rest(error)
                    return False
            except Exception:  # not the others' fault
                connection.shutdown(socket.SHUT_RDWR)  # the failure holds it open
                self.log.failure("a connection cannot be served")
        return True

    def _rest(self, error: OSError) -> None:
        """Leave the socket alone for a moment, as when no descriptor is left for a connection."""
        self.log.warn("cannot accept connections: {error}", error=os.strerror(error.errno or 0))
        self._reactor.removeReader(self)
        self._reactor.callLater(_PAUSE, self._go_on)

    def _go_on(self, late: bool = False) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.addReader(self)
            if late:
                self._accept()
