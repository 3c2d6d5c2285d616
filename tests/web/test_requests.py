"""Tests for parsing request bodies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.model import EmailIdentifier
from synapse_login_module.web import requests


class AddressTests(SynchronousTestCase):
    """E-mail addresses as identifiers."""

    def test_canonical(self) -> None:
        """Addresses are made canonical. Text that is no address is only stripped."""
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
