"""A provider of accounts in an LDAP directory.

From the wire upwards: ``messages`` encodes and decodes, ``tls`` verifies certificates, a
``connection`` sends requests with timeouts and bounds, a ``pool`` keeps connections, ``failover``
chooses among servers, and the ``directory`` searches and binds. The ``provider`` makes accounts
from the entries that its ``searches`` find, by the rules of ``config``: ``localparts`` and
``subjects`` say what an entry's local part and id are, and ``naming`` whose entry was found.
"""

from synapse_login_module.providers.ldap.provider import LDAPProvider

__all__ = ["LDAPProvider"]
