"""The black-box conformance suite: tests the login service as a client sees it, on real sockets.

Run it with ``python -m twisted.trial tests.conformance`` from the root of the repository. It starts
the standalone server itself, unless ``CONFORMANCE_BASE_URL`` names a homeserver to test instead;
see :mod:`tests.conformance.target` for the variables.
"""
