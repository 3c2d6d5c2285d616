"""The client of a request: its address, and its access token."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import parse_qs

from twisted.internet.interfaces import IAddress
from twisted.web.http import Request

from synapse_login_module.model import Client
from synapse_login_module.web.responses import MISSING_TOKEN, ErrorResponse

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOCAL = "unix"
_NOWHERE = Client("-", "-")
_REMEMBERED = 4096
_LONGEST_ADDRESS = 64


class Clients:
    """Finds the client of each request.

    :param trusted_proxies: the networks whose ``X-Forwarded-For`` is trusted. That of a peer on a
        Unix socket always is.
    """

    def __init__(self, trusted_proxies: Sequence[Network]) -> None:
        self._trusted = tuple(trusted_proxies)
        self._is_trusted = lru_cache(_REMEMBERED)(self._look_up)
        self._stranger = lru_cache(_REMEMBERED)(self._find_stranger)
        self._behind = lru_cache(_REMEMBERED)(self._find)

    def of(self, request: Request) -> Client:
        """Return the client of a request: the last hop that is no trusted proxy."""
        host = getattr(request.getClientAddress(), "host", "")
        stranger = self._stranger(host)
        if stranger is not None:
            return stranger
        forwarded = _forwarded_for(request)
        find = self._find if len(forwarded) > _LONGEST_ADDRESS else self._behind
        return find(host, forwarded)

    def _find_stranger(self, host: str) -> Client | None:
        """Return the client at the address of a peer, unless that is a trusted proxy."""
        peer = _address(host)
        return None if peer is None or self._is_trusted(peer) else _client(peer)

    def _find(self, host: str, forwarded: str) -> Client:
        """Find the client behind a trusted proxy, by its ``X-Forwarded-For``."""
        client = _address(host)
        for hop in reversed(forwarded.split(",")):
            if len(hop) > _LONGEST_ADDRESS:
                break
            address = _address(hop)
            if address is None:
                break
            client = address
            if not self._is_trusted(address):
                break
        return _client(client)

    def network(self, request: Request) -> str:
        """Return the network of a request's client."""
        return self.of(request).network

    def network_of(self, peer: IAddress) -> str | None:
        """Return the network of a peer; ``None`` for a trusted proxy, which has many clients."""
        address = _peer(peer)
        trusted = address is None or self._is_trusted(address)
        return None if trusted else _client(address).network

    def _look_up(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def client_at(text: str) -> Client:
    """Return the client at an address, which may be a text that is none."""
    address = _address(text) if len(text) <= _LONGEST_ADDRESS else None
    return _NOWHERE if address is None else _client(address)


def header_token(request: Request) -> str | None:
    """Return the token of ``Authorization: Bearer``."""
    for header in _headers(request, b"Authorization"):
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    return None


def optional_token(request: Request) -> str | None:
    """Return the token of ``Authorization: Bearer``, else of ``access_token`` in the query."""
    token = header_token(request)
    if token is not None:
        return token
    query = request.uri.partition(b"?")[2].decode("ascii", "replace")
    given = parse_qs(query).get("access_token")
    return given[0] if given else None


def required_token(request: Request) -> str:
    """Return the access token of a request.

    :raise ErrorResponse: with 401, when there is none.
    """
    token = optional_token(request)
    if token is None:
        raise ErrorResponse(MISSING_TOKEN)
    return token


def _forwarded_for(request: Request) -> str:
    return ",".join(_headers(request, b"X-Forwarded-For"))


def _headers(request: Request, name: bytes) -> list[str]:
    """Return the values of a header, which may be any bytes."""
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name, [])]


def _peer(peer: IAddress) -> Address | None:
    return _address(getattr(peer, "host", ""))


@lru_cache(_REMEMBERED)
def _address(text: str) -> Address | None:
    """Parse an address as proxies write it, which may be in brackets or with a port."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


@lru_cache(_REMEMBERED)
def _client(address: Address | None) -> Client:
    if address is None:
        return Client(_LOCAL, _LOCAL)
    if isinstance(address, ipaddress.IPv6Address):
        return Client(str(address), str(ipaddress.ip_network((address, 64), strict=False)))
    return Client(str(address), str(address))
