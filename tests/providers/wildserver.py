"""A server that misbehaves: ``python -m tests.providers.wildserver MODE`` prints its port.

With the files of a certificate and its key after the mode it speaks TLS. It writes a line to
standard error for what it did to each connection.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable

GOOD = b'{"auth": {"success": true, "mxid": "@alice:example.com"}}'
MEGABYTE = 1024 * 1024


def read_request(connection: socket.socket) -> bool:
    """Read a whole request; whether there was one."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            return False
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += connection.recv(65536)
    return True


def head(length: int | None, more: bytes = b"") -> bytes:
    """The head of an answer with 200."""
    sized = b"" if length is None else b"Content-Length: %d\r\n" % length
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + sized + more + b"\r\n"


def hang(connection: socket.socket) -> None:
    """Never answer."""
    while connection.recv(65536):
        pass


def half(connection: socket.socket) -> None:
    """Begin an answer and never end it."""
    read_request(connection)
    connection.sendall(head(len(GOOD)) + GOOD[:20])
    hang(connection)


def die(connection: socket.socket) -> None:
    """End the process in the middle of the answer."""
    read_request(connection)
    connection.sendall(head(len(GOOD)) + GOOD[:20])
    os._exit(1)


def die_early(connection: socket.socket) -> None:
    """End the process before the answer."""
    read_request(connection)
    os._exit(1)


def garbage(connection: socket.socket) -> None:
    """Answer with what is no HTTP."""
    read_request(connection)
    connection.sendall(b"\0\xff NOT HTTP AT ALL\r\n\r\n" * 100)
    hang(connection)


def line(connection: socket.socket) -> None:
    """Answer with a line that never ends."""
    read_request(connection)
    send_much(connection, b"x" * MEGABYTE)


def big(connection: socket.socket) -> None:
    """Answer with 10 MB, and say so before."""
    read_request(connection)
    connection.sendall(head(10 * MEGABYTE))
    send_much(connection, b" " * MEGABYTE)


def big_unsaid(connection: socket.socket) -> None:
    """Answer with 10 MB in chunks, not saying how many."""
    read_request(connection)
    connection.sendall(head(None, b"Transfer-Encoding: chunked\r\n"))
    send_much(connection, b"%x\r\n%s\r\n" % (MEGABYTE, b" " * MEGABYTE))


def heads(connection: socket.socket) -> None:
    """Answer with headers without end."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    send_much(connection, b"X-Much: %s\r\n" % (b"x" * 1000) * 1000)


def informs(connection: socket.socket) -> None:
    """Announce an answer without end."""
    read_request(connection)
    send_much(connection, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 30_000)


def drip(connection: socket.socket) -> None:
    """Answer well, a byte at a time."""
    read_request(connection)
    for byte in head(len(GOOD)) + GOOD:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def zipped(connection: socket.socket) -> None:
    """Answer with what is compressed, asked or not."""
    read_request(connection)
    connection.sendall(head(30, b"Content-Encoding: gzip\r\n") + b"\x1f\x8b" + b"\0" * 28)
    hang(connection)


def once(connection: socket.socket) -> None:
    """Answer well, and close the connection while it is asked again."""
    read_request(connection)
    connection.sendall(head(len(GOOD)) + GOOD)
    read_request(connection)


def deaf(connection: socket.socket) -> None:
    """Answer well, and listen no more."""
    read_request(connection)
    connection.sendall(head(len(GOOD)) + GOOD)
    wait_for_the_end(connection)


def half_deaf(connection: socket.socket) -> None:
    """Begin an answer and never end it, nor listen."""
    read_request(connection)
    connection.sendall(head(len(GOOD)) + GOOD[:20])
    wait_for_the_end(connection)


def postgresql(connection: socket.socket) -> None:
    """Accept any login as PostgreSQL does, and answer nothing after that."""
    connection.recv(65536)
    connection.sendall(b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I")
    hang(connection)
    sys.stderr.write("the connection is over\n")
    sys.stderr.flush()


def wait_for_the_end(connection: socket.socket) -> None:
    """Read nothing, not even that TLS is over, until the connection itself is."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP)
    poll.poll()
    sys.stderr.write("the connection is over\n")
    sys.stderr.flush()


def good(connection: socket.socket) -> None:
    """Answer well, for as long as it is asked."""
    while read_request(connection):
        connection.sendall(head(len(GOOD)) + GOOD)


def send_much(connection: socket.socket, part: bytes) -> None:
    """Send a part ten times, and write down how often it went."""
    sent = 0
    try:
        for _ in range(10):
            connection.sendall(part)
            sent += 1
            time.sleep(0.01)
        hang(connection)
    except OSError:
        sys.stderr.write(f"cut off after {sent} MB\n")
        sys.stderr.flush()


MODES: dict[str, Callable[[socket.socket], None]] = {
    each.__name__: each
    for each in (
        *(hang, half, die, die_early, garbage, line, big, big_unsaid),
        *(heads, informs, drip, zipped, once, deaf, half_deaf, postgresql, good),
    )
}


def main() -> None:
    """Serve until killed."""
    serve = MODES[sys.argv[1]]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if sys.argv[2:] else None
    if tls is not None:
        tls.load_cert_chain(*sys.argv[2:])

    def handle(connection: socket.socket) -> None:
        with connection:
            try:
                if tls is None:
                    serve(connection)
                else:
                    with tls.wrap_socket(connection, server_side=True) as secured:
                        serve(secured)
            except OSError:
                sys.stderr.write("the client went away\n")
                sys.stderr.flush()

    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    print(listening.getsockname()[1], flush=True)
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
