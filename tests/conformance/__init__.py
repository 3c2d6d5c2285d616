"""The black-box conformance suite: what a client can see of the login service, over real sockets.

Run it with ``python -m twisted.trial tests.conformance`` from the root of the repository. It starts
the standalone server itself, unless ``CONFORMANCE_BASE_URL`` names a homeserver to look at instead;
see :mod:`tests.conformance.target` for the variables.
"""
