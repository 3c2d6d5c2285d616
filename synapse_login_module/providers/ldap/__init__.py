"""Accounts of an LDAP directory, one job a module.

From the wire upwards: ``messages`` are encoded and read, ``tls`` says whose certificates are good,
a ``connection`` asks in time and in bounds, a ``pool`` keeps connections, ``failover`` chooses
among servers, and the ``directory`` searches and binds. The ``provider`` makes accounts of what is
found, as ``config`` has it, by the ``searches`` that it makes.
"""

from synapse_login_module.providers.ldap.provider import LDAPProvider

__all__ = ["LDAPProvider"]
