"""The larger networks that a client's network is part of, and how much looser their limits are.

One customer may have an IPv6 /48, which holds 65,536 networks of 64 bits, and anyone can rent an
IPv4 /24. So attempts are counted by these larger networks too. Their limits are looser, by the
factors below, since more people share one. Many internet providers give a /56 to a household. A
/48 is a company, or a region of a mobile carrier. A carrier may translate thousands of customers to
each address of a /24.

The factors are large enough that users do not notice the limits. Only wrong passwords are counted,
since a right one is refunded, and none from a network that the user has logged in from before. With
the default rates, 16 times ``address`` is 4,147 wrong passwords a day from one /48, and 32 times is
8,294 from one /24. If one login in three is mistyped once, 12,000 and 25,000 people can log in from
there for the first time each day. The failures of one account are those of one person, so small
factors are enough for ``failed_attempts``.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

_REMEMBERED = 4096


class Prefix(NamedTuple):
    """A size of networks.

    :param version: the version of the Internet Protocol, 4 or 6.
    :param bits: the length of the prefix.
    :param address_factor: the factor of ``address``, compared with a client's own network.
    :param failures_factor: the same for ``failed_attempts``. For all networks together it is 10.
    :param shared: how widely such a network is shared, see
        :class:`~synapse_login_module.model.Bucket`.
    """

    version: int
    bits: int
    address_factor: int
    failures_factor: int
    shared: int


PREFIXES = (
    Prefix(6, 56, address_factor=4, failures_factor=2, shared=1),
    Prefix(6, 48, address_factor=16, failures_factor=4, shared=2),
    Prefix(4, 24, address_factor=32, failures_factor=6, shared=2),
)
"""The smallest networks of each version first."""


class LargerNetwork(NamedTuple):
    """A network that a client's network is part of.

    :param network: the network as text, ``2001:db8::/48``.
    :param prefix: its size.
    """

    network: str
    prefix: Prefix


@lru_cache(_REMEMBERED)
def larger_networks(network: str) -> tuple[LargerNetwork, ...]:
    """List the networks that a client's network is part of, the smallest first.

    :param network: an IPv4 address or an IPv6 /64, as in
        :class:`~synapse_login_module.model.Client`. Any other text is part of none.
    """
    try:
        own = ipaddress.ip_network(network)
    except ValueError:
        return ()
    return tuple(
        LargerNetwork(str(own.supernet(new_prefix=prefix.bits)), prefix)
        for prefix in PREFIXES
        if prefix.version == own.version and prefix.bits < own.prefixlen
    )
