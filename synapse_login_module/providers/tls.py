"""Certificates and keys in files; who reads a file says which it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from OpenSSL import SSL, crypto
from twisted.internet.error import VerifyError
from twisted.internet.ssl import Certificate, KeyPair, PrivateCertificate

from synapse_login_module.config.files import read_bytes
from synapse_login_module.errors import ConfigError

T = TypeVar("T")

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def read_authorities(path: Path) -> list[Certificate]:
    """Read the certificates of a PEM file.

    :raise ConfigError: when there are none.
    """
    found = _CERTIFICATE.findall(read_bytes(path))
    if not found:
        raise ConfigError("", "there is no certificate in it")
    return [_parsed(Certificate.loadPEM, pem, "a certificate in it is broken") for pem in found]


def read_certificate(path: Path) -> Certificate:
    """Read the first certificate of a PEM file.

    :raise ConfigError: when there is none.
    """
    return read_authorities(path)[0]


def read_private_key(path: Path, certificate: Certificate) -> PrivateCertificate:
    """Read the key of a certificate, PEM.

    :return: both.
    :raise ConfigError: when it is none, or another's.
    """

    def parse(pem: bytes) -> PrivateCertificate:
        # With a passphrase given nobody is asked for one, who may not be there to answer.
        pair = KeyPair(crypto.load_privatekey(crypto.FILETYPE_PEM, pem, b""))
        both: PrivateCertificate = PrivateCertificate.fromCertificateAndKeyPair(certificate, pair)
        return both

    problem = "it is no private key, or one with a passphrase, or another certificate's"
    return _parsed(parse, read_bytes(path), problem)


def _parsed(parse: Callable[[bytes], T], pem: bytes, problem: str) -> T:
    try:
        return parse(pem)
    except (SSL.Error, crypto.Error, VerifyError, ValueError):
        raise ConfigError("", problem) from None
