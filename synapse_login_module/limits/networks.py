"""The larger networks that a client's network is part of, and how much looser their limits are.

An IPv6 /48 holds 65,536 networks of 64 bits, and is one customer's; an IPv4 /24 is let to anybody.
So attempts of the larger networks are counted too. Their limits are looser, by the factors below,
since more people share one: a /56 is what many a provider gives to a household, a /48 is a company
or the customers of a mobile carrier's region, and behind each address of a /24 may stand thousands,
whom a carrier translates to it.

With these factors people do not notice the limits. Wrong passwords alone are counted (a right one
is refunded), and none from where the user has logged in before. Of the default rates, 16 times
``address`` is 4,147 wrong passwords a day from one /48, and 32 times is 8,294 from one /24: where
one login in three is mistyped once, 12,000 and 25,000 people may log in there anew each day. The
failures of one account are those of one person, so that small factors do.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

_REMEMBERED = 4096


class Prefix(NamedTuple):
    """A size of networks.

    :param version: of the Internet Protocol.
    :param bits: of the address that its members have in common.
    :param address_factor: how much looser than for a client's own network ``address`` is.
    :param failures_factor: the same for ``failed_attempts``, of which 10 hold from everywhere.
    :param shared: how widely it is shared, see :class:`~synapse_login_module.model.Bucket`.
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
"""From the smallest to the largest of each version."""


class LargerNetwork(NamedTuple):
    """A network that a client's is part of.

    :param network: as text, ``2001:db8::/48``.
    """

    network: str
    prefix: Prefix


@lru_cache(_REMEMBERED)
def larger_networks(network: str) -> tuple[LargerNetwork, ...]:
    """The networks that a client's network is part of, the smallest first.

    :param network: an IPv4 address or an IPv6 /64, as in
        :class:`~synapse_login_module.model.Client`; whatever else is part of none.
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
