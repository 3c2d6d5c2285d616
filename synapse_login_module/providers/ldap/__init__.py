"""A provider of accounts in an LDAP directory.

From the wire upwards: ``messages`` encodes and decodes, ``tls`` verifies certificates, a
``connection`` sends requests with timeouts and bounds, a ``pool`` keeps connections, ``failover``
chooses among servers, and the ``directory`` searches and binds. The ``provider`` makes accounts
from the ``entries`` that its ``searches`` find, with their ``statuses`` and ``groups``, by the
rules of ``config``: ``localparts`` and ``subjects`` say what an entry's local part and id are, and
``naming`` whose entry was found. ``binding`` tries passwords, and ``bind_answers`` says what the
answers mean.
"""

from synapse_login_module.providers.ldap.provider import LDAPProvider

__all__ = ["LDAPProvider"]
