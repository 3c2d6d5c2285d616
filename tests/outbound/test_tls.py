"""The verification of certificates, in memory, and ways that could bypass it."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate as AuthorityCertificate
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.outbound import server_certificate, tls
from synapse_login_module.outbound.tls import BadCertificate, VerifiedTLS
from tests.support.certificates import Authority, Certificate


class Refused:
    """Stands for the protocol of a connection, and notes why it is refused."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def failVerification(self, failure: Any) -> None:
        """Note why."""
        failure.trap(BadCertificate)
        self.reasons.append(str(failure.value))


class Raises:
    """A protocol that raises when it is told of the failure."""

    def failVerification(self, failure: Any) -> None:
        """Fail."""
        raise RuntimeError("the reason gets lost")


class VerifiedTLSTests(SynchronousTestCase):
    """Every handshake is verified, and any error in that rejects the server."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.verified = self.trusting(self.authority)

    def trusting(self, authority: Authority) -> VerifiedTLS:
        """Make a client for ``localhost`` that trusts one authority."""
        return VerifiedTLS("localhost", [AuthorityCertificate.loadPEM(authority.certificate)])

    def refuses(self, connection: SSL.Connection, server: SSL.Context) -> bool:
        """Say whether a client ends the handshake with a server."""
        connection.set_connect_state()
        other = SSL.Connection(server, None)
        other.set_accept_state()
        for _ in range(10):
            for one, another in ((connection, other), (other, connection)):
                try:
                    one.do_handshake()
                except SSL.WantReadError:
                    pass
                except SSL.Error:
                    return True
                with contextlib.suppress(SSL.WantReadError):
                    another.bio_write(one.bio_read(1 << 16))
        return connection.get_state_string() != b"SSL negotiation finished successfully"

    def test_reason(self) -> None:
        """A good certificate is accepted; for another one the protocol gets the reason."""
        protocol = Refused()
        connection = self.verified.clientConnectionForTLS(protocol)
        self.assertFalse(self.refuses(connection, context(self.authority.sign("localhost"))))
        self.assertEqual(protocol.reasons, [])
        connection = self.verified.clientConnectionForTLS(protocol)
        self.assertTrue(self.refuses(connection, context(self.authority.sign("elsewhere"))))
        (reason,) = protocol.reasons
        self.assertIn("not for localhost", reason)

    def test_protocol_is_gone(self) -> None:
        """A connection whose protocol is gone already rejects the server all the same."""
        connection = self.verified.clientConnectionForTLS(Refused())
        gc.collect()
        self.assertTrue(self.refuses(connection, context(self.authority.sign("elsewhere"))))

    def test_exceptions(self) -> None:
        """An exception in the verification rejects the server."""
        connection = self.verified.clientConnectionForTLS(Raises())
        self.assertTrue(self.refuses(connection, context(self.authority.sign("elsewhere"))))

        def stumbles(*_: object) -> None:
            raise RuntimeError

        self.patch(tls, "name_problem", stumbles)
        protocol = Refused()
        connection = self.verified.clientConnectionForTLS(protocol)
        self.assertTrue(self.refuses(connection, context(self.authority.sign("localhost"))))
        self.assertEqual(protocol.reasons, ["its certificate cannot be read: RuntimeError"])

    def test_each_handshake(self) -> None:
        """No session is resumed: a server that had a good certificate is checked again."""
        seen: list[int] = []
        real = server_certificate.name_problem

        def counted(*arguments: Any) -> str | None:
            seen.append(1)
            return real(*arguments)

        self.patch(tls, "name_problem", counted)
        server = context(self.authority.sign("localhost"))
        for expected in (1, 2):
            connection = self.verified.clientConnectionForTLS(Refused())
            self.assertFalse(self.refuses(connection, server))
            self.assertEqual(len(seen), expected)

    def test_no_anonymous_ciphers(self) -> None:
        """A server that would show no certificate finds no cipher in common."""
        connection = self.verified.clientConnectionForTLS(Refused())
        for cipher in connection.get_cipher_list():
            self.assertNotRegex(cipher, "^(ADH|AECDH|NULL|PSK)|-(anon|NULL)|PSK")
        server = SSL.Context(SSL.TLS_METHOD)
        server.set_cipher_list(b"aNULL:@SECLEVEL=0")
        server.set_options(SSL.OP_NO_TLSv1_3)
        self.assertTrue(self.refuses(connection, server))

    def test_name_constraints(self) -> None:
        """A certificate that violates its authority's name constraints is rejected."""
        within = x509.NameConstraints([x509.DNSName("example.com")], None)
        authority = Authority(constraints=within)
        protocol = Refused()
        connection = self.trusting(authority).clientConnectionForTLS(protocol)
        self.assertTrue(self.refuses(connection, context(authority.sign("localhost"))))
        (reason,) = protocol.reasons
        self.assertIn("its certificate is not good: ", reason)


def context(pair: Certificate) -> SSL.Context:
    """A server that shows a certificate."""
    server = SSL.Context(SSL.TLS_METHOD)
    server.use_certificate(crypto.load_certificate(crypto.FILETYPE_PEM, pair.certificate))
    server.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, pair.key))
    server.set_session_id(b"tests")
    return server
