"""Tests for finding out who is asking, and with which token."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import Request
from twisted.web.resource import Resource

from synapse_login_module.config.settings import SharedConfig
from synapse_login_module.model import Client
from synapse_login_module.web.client import (
    Clients,
    Network,
    client_at,
    optional_token,
    required_token,
)
from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.responses import MISSING_TOKEN, ErrorResponse
from synapse_login_module.web.site import LoginSite

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 50000)
DEFAULT: Sequence[Network] = SharedConfig.model_fields["trusted_proxies"].default


def request(
    peer: IAddress = LOOPBACK,
    forwarded_for: Sequence[str | bytes] = (),
    authorization: Sequence[str | bytes] = (),
    uri: bytes = b"/",
) -> Request:
    """A request as the HTTP server makes it."""
    channel = LoginSite(Resource(), Clock()).buildProtocol(peer)
    assert channel is not None
    channel.makeConnection(StringTransport(peerAddress=peer))
    made = HTTPRequest(channel, False)
    made.uri = uri
    for name, values in ((b"X-Forwarded-For", forwarded_for), (b"Authorization", authorization)):
        for value in values:
            raw = value.encode("utf-8") if isinstance(value, str) else value
            made.requestHeaders.addRawHeader(name, raw)
    return made


def ipv4(host: str) -> IPv4Address:
    """An IPv4 peer."""
    return IPv4Address("TCP", host, 50000)


def ipv6(host: str) -> IPv6Address:
    """An IPv6 peer."""
    return IPv6Address("TCP", host, 50000)


class ClientsTests(SynchronousTestCase):
    """Where a request comes from."""

    def of(
        self, peer: IAddress, *forwarded_for: str | bytes, trusted: Sequence[Network] = DEFAULT
    ) -> Client:
        """The client that is found."""
        return Clients(trusted).of(request(peer, forwarded_for))

    def assert_address(self, address: str, peer: IAddress, *forwarded_for: str | bytes) -> None:
        """The client's address is this one."""
        self.assertEqual(self.of(peer, *forwarded_for).address, address, forwarded_for)

    def test_peer(self) -> None:
        """Without a proxy it is the peer."""
        self.assertEqual(self.of(ipv4("203.0.113.9")), Client("203.0.113.9", "203.0.113.9"))
        self.assertEqual(self.of(ipv6("2001:db8::1")), Client("2001:db8::1", "2001:db8::/64"))
        self.assert_address("127.0.0.1", LOOPBACK)

    def test_stranger_says_nothing(self) -> None:
        """A peer that is no trusted proxy is not believed."""
        self.assert_address("203.0.113.9", ipv4("203.0.113.9"), "198.51.100.1")
        self.assert_address("2001:db8::1", ipv6("2001:db8::1"), "198.51.100.1")
        self.assert_address("128.0.0.1", ipv4("128.0.0.1"), "198.51.100.1")

    def test_trusted_proxy(self) -> None:
        """A trusted proxy says where the request came from."""
        for peer in (LOOPBACK, ipv4("127.9.9.9"), ipv6("::1")):
            self.assert_address("198.51.100.1", peer, "198.51.100.1")

    def test_none_is_trusted(self) -> None:
        """Where no proxy is trusted, loopback is not either."""
        self.assertEqual(self.of(LOOPBACK, "198.51.100.1", trusted=()).address, "127.0.0.1")

    def test_rightmost_stranger(self) -> None:
        """Behind several trusted proxies it is the last hop that none of them is."""
        self.assert_address(
            "198.51.100.1", LOOPBACK, "10.0.0.1, 198.51.100.1, 127.0.0.2, 127.0.0.3"
        )
        networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:5::/48")]
        client = self.of(
            ipv4("10.1.2.3"), "192.0.2.66, 203.0.113.5, 2001:db8:5::7, 10.9.9.9", trusted=networks
        )
        self.assertEqual(client.address, "203.0.113.5")

    def test_forged_entries(self) -> None:
        """Entries that the client itself puts to the left are not trusted."""
        for forged in ("10.0.0.1", "127.0.0.1", "1.1.1.1, 127.0.0.1", "garbage", ",,,", "::1"):
            self.assert_address("198.51.100.1", LOOPBACK, f"{forged}, 198.51.100.1")

    def test_all_trusted(self) -> None:
        """Where every hop is trusted it is the first of them."""
        self.assert_address("127.0.0.7", LOOPBACK, "127.0.0.7, 127.0.0.8")

    def test_several_headers(self) -> None:
        """Several headers are read as one, in their order."""
        self.assert_address("198.51.100.2", LOOPBACK, "198.51.100.1", "198.51.100.2")
        self.assert_address("198.51.100.1", LOOPBACK, "198.51.100.1", "127.0.0.1")

    def test_garbage_ends_it(self) -> None:
        """An entry that is no address ends the search at what was certain before it."""
        for garbage in (
            "",
            " ",
            "unknown",
            "_hidden",
            "example.com",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "01.2.3.4",
            "0x7f.1.1.1",
            "[",
            "[]",
            "]",
            ":",
            "::::",
            "1.2.3.4:80:80",
            "1.2.3.4/8",
            "1.2.3.4 5.6.7.8",
            '"198.51.100.1"',
            "for=198.51.100.1",
            "é",
            "\uff11.\uff12.\uff13.\uff14",
            "x" * 5000,
        ):
            self.assert_address("127.0.0.1", LOOPBACK, f"198.51.100.1, {garbage}")
            self.assert_address("127.0.0.5", LOOPBACK, f"198.51.100.1, {garbage}, 127.0.0.5")
            self.assert_address("203.0.113.5", LOOPBACK, f"{garbage}, 203.0.113.5")

    def test_bytes(self) -> None:
        """Bytes that are no text are garbage as well, and no more."""
        for garbage in (b"\xff", b"\xc3", b"198.51.100.1\xff", b"\xed\xa0\x80"):
            self.assert_address("127.0.0.1", LOOPBACK, b"198.51.100.1, " + garbage)
            self.assert_address("203.0.113.5", LOOPBACK, garbage + b", 203.0.113.5")

    def test_ports_and_brackets(self) -> None:
        """Ports, brackets, zones and white space around an address are understood."""
        for given, address in (
            ("198.51.100.1:4711", "198.51.100.1"),
            ("[2001:db8::5]", "2001:db8::5"),
            ("[2001:db8::5]:4711", "2001:db8::5"),
            ("2001:DB8:0:0::5", "2001:db8::5"),
            ("  198.51.100.1\t", "198.51.100.1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%eth0]:80", "fe80::1"),
        ):
            self.assert_address(address, LOOPBACK, given)

    def test_mapped(self) -> None:
        """An IPv4 address in IPv6 clothes is the IPv4 address, as a peer and as a hop."""
        self.assert_address("203.0.113.9", ipv6("::ffff:203.0.113.9"))
        self.assert_address("203.0.113.9", LOOPBACK, "::ffff:203.0.113.9")
        self.assert_address("203.0.113.9", LOOPBACK, "[::ffff:cb00:7109]:80")
        self.assert_address("198.51.100.1", ipv6("::ffff:127.0.0.1"), "198.51.100.1")
        self.assertEqual(self.of(ipv6("::ffff:203.0.113.9")).network, "203.0.113.9")

    def test_network(self) -> None:
        """Addresses of one IPv6 /64 are of one network, IPv4 addresses each of its own."""
        networks = {
            self.of(LOOPBACK, address).network
            for address in ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", "[2001:db8::2]:1")
        }
        self.assertEqual(networks, {"2001:db8::/64"})
        self.assertEqual(self.of(LOOPBACK, "2001:db8:0:1::1").network, "2001:db8:0:1::/64")
        self.assertNotEqual(
            self.of(LOOPBACK, "198.51.100.1").network, self.of(LOOPBACK, "198.51.100.2").network
        )

    def test_zone_is_no_way_around(self) -> None:
        """A zone does not make another address of it."""
        plain, zoned = self.of(LOOPBACK, "fe80::1"), self.of(LOOPBACK, "fe80::1%25x")
        self.assertEqual(plain, zoned)

    def test_unix_peer(self) -> None:
        """A peer on a Unix socket is a proxy of our own; without its word it is just that."""
        for peer in (UNIXAddress(None), UNIXAddress(b"/run/proxy.sock")):
            self.assert_address("198.51.100.1", peer, "192.0.2.1, 198.51.100.1")
            self.assertEqual(self.of(peer), Client("unix", "unix"))
            self.assertEqual(self.of(peer, "garbage"), Client("unix", "unix"))


class ClientAtTests(SynchronousTestCase):
    """A client at an address that another server has found."""

    def test_address(self) -> None:
        """An address is treated as that of a request: IPv6 counts by its network."""
        self.assertEqual(client_at("192.0.2.1"), Client("192.0.2.1", "192.0.2.1"))
        self.assertEqual(client_at("2001:db8::1"), Client("2001:db8::1", "2001:db8::/64"))

    def test_no_address(self) -> None:
        """Text that is no address is replaced."""
        for text in ("", "-", "unknown", "/run/synapse.sock", "1.2.3.4 provider=x", "1" * 5000):
            self.assertEqual(client_at(text), Client("-", "-"), text)


class TokenTests(SynchronousTestCase):
    """The access token of a request."""

    def assert_token(
        self, token: str | None, *authorization: str | bytes, uri: bytes = b"/"
    ) -> None:
        """This token is found."""
        found = optional_token(request(authorization=authorization, uri=uri))
        self.assertEqual(found, token, (authorization, uri))

    def test_header(self) -> None:
        """The token follows ``Bearer``, in upper or lower case."""
        for scheme in ("Bearer", "bearer", "BEARER", "bEaReR"):
            self.assert_token("abc", f"{scheme} abc")
        self.assert_token("abc", "Bearer   abc  ")

    def test_other_schemes(self) -> None:
        """Other schemes and empty tokens are none."""
        for header in ("", "abc", "Bearer", "Bearer ", "Bearer   ", "Basic abc", "Bearerabc"):
            self.assert_token(None, header)

    def test_several_headers(self) -> None:
        """The first token of several headers counts."""
        self.assert_token("abc", "Basic x", "Bearer abc", "Bearer def")

    def test_header_of_odd_bytes(self) -> None:
        """A header with bytes beyond ASCII contains no token that was ever issued."""
        for header in (b"\xff", b"Bearer \xff", b"Bearer \xc3", b"Bearer abc\xfe"):
            found = optional_token(request(authorization=[header]))
            self.assertFalse(found is not None and found.isascii(), found)

    def test_query(self) -> None:
        """Without a header it is the access_token of the query; the first of several."""
        for uri, token in (
            (b"/?access_token=abc", "abc"),
            (b"/x?a=b&access_token=abc&c", "abc"),
            (b"/?access_token=abc&access_token=def", "abc"),
            (b"/?access_token=a%62c", "abc"),
            (b"/?access_token=a+b", "a b"),
            (b"/?access_token=a?b", "a?b"),
            (b"/?access_token=", None),
            (b"/?access_token", None),
            (b"/?Access_Token=abc", None),
            (b"/?", None),
            (b"/", None),
            (b"/access_token=abc", None),
            (b"/?x=%3Faccess_token=abc", None),
        ):
            self.assert_token(token, uri=uri)

    def test_query_of_odd_bytes(self) -> None:
        """A query of bytes that are no text does no harm."""
        for uri in (b"/?access_token=\xff", b"/?\xff=\xfe", b"/?access_token=%ff", b"/?%=%"):
            found = optional_token(request(uri=uri))
            self.assertTrue(found is None or not found.isascii(), (uri, found))

    def test_header_before_query(self) -> None:
        """The header counts before the query."""
        self.assert_token("abc", "Bearer abc", uri=b"/?access_token=def")
        self.assert_token("def", "Basic abc", uri=b"/?access_token=def")

    def test_required(self) -> None:
        """Where a token is required, its absence is a refusal with the 401 of the contract."""
        self.assertEqual(required_token(request(authorization=["Bearer abc"])), "abc")
        refusal = self.assertRaises(ErrorResponse, required_token, request())
        self.assertIs(refusal.response, MISSING_TOKEN)
        self.assertEqual(refusal.response.status, 401)
