"""A login service for Matrix homeservers, on Twisted.

It serves ``POST /login`` and ``POST /tokenrefresh`` of the Matrix client-server API, and what
clients need around them: inside Synapse as a module, or alone as ``twistd -n synapse-login
--config FILE``.
"""

__version__ = "0.1.0"
