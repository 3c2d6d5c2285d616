"""Tests for the larger networks that a client's is part of."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.limits.networks import PREFIXES, larger_networks
from synapse_login_module.web.client import client_at


class LargerNetworksTests(SynchronousTestCase):
    """The larger networks of addresses."""

    def named(self, network: str) -> list[str]:
        """Return the names of the larger networks."""
        return [each.network for each in larger_networks(network)]

    def test_ipv6(self) -> None:
        """A /64 is part of a /56 and of a /48."""
        self.assertEqual(
            self.named("2001:db8:1:2345::/64"), ["2001:db8:1:2300::/56", "2001:db8:1::/48"]
        )

    def test_ipv4(self) -> None:
        """An address is part of a /24."""
        self.assertEqual(self.named("192.0.2.77"), ["192.0.2.0/24"])

    def test_no_network(self) -> None:
        """A text that is not a network is part of none."""
        for network in ("unix", "-", ""):
            self.assertEqual(self.named(network), [])

    @given(st.ip_addresses())
    def test_any_address(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        """Each larger network of an address holds it, is part of the next, and is looser."""
        larger = larger_networks(client_at(str(address)).network)
        self.assertTrue(larger)
        held = ipaddress.ip_address(client_at(str(address)).address)
        networks = [ipaddress.ip_network(each.network) for each in larger]
        self.assertTrue(all(held in network for network in networks))
        sizes = [network.num_addresses for network in networks]
        self.assertEqual(sizes, sorted(sizes))
        factors = [(p.address_factor, p.failures_factor, p.shared) for _, p in larger]
        self.assertEqual(factors, sorted(factors))
        self.assertGreater(min(factors), (1, 1, 0))

    def test_looser_than_everywhere(self) -> None:
        """No network may have as many failures of one account as all networks together."""
        self.assertTrue(all(prefix.failures_factor < 10 for prefix in PREFIXES))
