"""Tests for :mod:`synapse_login_module.web.responses`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import AccountRefused
from synapse_login_module.web.responses import response_to


class RefusedTests(SynchronousTestCase):
    """What the homeserver refuses."""

    def test_more(self) -> None:
        """All that the homeserver says of it is in the answer."""
        more = {"limit_type": "monthly_active_user", "admin_contact": "mailto:a@b.example"}
        answer = response_to(AccountRefused(403, "M_RESOURCE_LIMIT_EXCEEDED", "full", more))
        assert answer is not None
        expected = {"errcode": "M_RESOURCE_LIMIT_EXCEEDED", "error": "full", **more}
        self.assertEqual((answer.status, answer.payload()), (403, expected))
        self.assertNotIn(b"Retry-After", answer.headers)

    def test_retry_after(self) -> None:
        """When to try again stands in the header too, in whole seconds."""
        problem = AccountRefused(429, "M_LIMIT_EXCEEDED", "wait", {"retry_after_ms": 1200})
        answer = response_to(problem)
        assert answer is not None
        self.assertEqual(answer.headers[b"Retry-After"], b"2")
