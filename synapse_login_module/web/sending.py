"""Sending without a turn of the reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def send_at_once(transport: Any, data: bytes) -> bytes:
    """Send as much of the data as the system takes now, and return the rest.

    A transport of Twisted sends what is written to it in the reactor's next iteration. For that it
    asks the reactor to watch its socket, and then to watch it no longer, which takes as long as the
    sending. That is spared where nothing waits to be sent before this.

    :param transport: the transport of a protocol. All but a connection of Twisted's without TLS
        sends nothing here.
    """
    if not isinstance(transport, Connection) or transport.TLS or not transport.connected:
        return data
    if transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting:
        return data
    sent = transport.writeSomeData(data)
    # A connection that is lost is left to the reactor, which has its protocol told.
    return data[sent:] if isinstance(sent, int) and sent > 0 else data
