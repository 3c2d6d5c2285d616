"""Tests for reading request bodies: what the rest of the service is told of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.model import EmailIdentifier
from synapse_login_module.web import requests


class AddressTests(SynchronousTestCase):
    """E-mail addresses that a client names its user by."""

    def test_canonical(self) -> None:
        """They come in the form that they are compared in; what is none stays, and is nobody's."""
        for given, read in (
            ("alice@example.com", "alice@example.com"),
            (" Alice@Example.COM ", "alice@example.com"),
            ("Straße@X.Example", "strasse@x.example"),
            (" Alice ", "Alice"),
            ("a@b@C", "a@b@C"),
            ("", ""),
        ):
            modern = {"type": "m.id.thirdparty", "medium": "email", "address": given}
            for naming in ({"medium": "email", "address": given}, {"identifier": modern}):
                login = requests.password({**naming, "password": "x"}, "example.com")
                self.assertEqual(login.identifier, EmailIdentifier(read))
