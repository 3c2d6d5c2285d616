"""Certificates and keys in files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from OpenSSL import SSL, crypto
from twisted.internet.error import VerifyError
from twisted.internet.ssl import Certificate, PrivateCertificate

from synapse_login_module.errors import ConfigError

T = TypeVar("T")

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def read_authorities(path: Path) -> list[Certificate]:
    """Read the certificates of a PEM file.

    :raise ConfigError: when there are none.
    """
    found = _CERTIFICATE.findall(read_bytes(path))
    if not found:
        raise ConfigError("", f"{path}: there is no certificate in it")
    parse: Callable[[bytes], Certificate] = Certificate.loadPEM
    return [_parsed(path, parse, pem) for pem in found]


def read_own_certificate(certificate: Path, private_key: Path) -> PrivateCertificate:
    """Read a certificate and its key, both PEM.

    :raise ConfigError: when they are no such things, or do not fit.
    """
    parse: Callable[[bytes], PrivateCertificate] = PrivateCertificate.loadPEM
    pem = read_bytes(certificate) + b"\n" + read_bytes(private_key)
    return _parsed(certificate, parse, pem)


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    :raise ConfigError: when it cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file has that name"
        raise ConfigError("", f"{path}: cannot read it: {reason}") from None


def _parsed(path: Path, parse: Callable[[bytes], T], pem: bytes) -> T:
    try:
        return parse(pem)
    except (SSL.Error, crypto.Error, VerifyError, ValueError):
        raise ConfigError("", f"{path}: what is in it is broken, or does not fit") from None
