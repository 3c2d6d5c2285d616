"""Describing in words what is wrong with a server's certificate.

This module makes no connections. It gets certificates that are parsed, and OpenSSL's error numbers
for their chain.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from synapse_login_module.model import fold

_MOST_NAMES = 5
_LONGEST_NAME = 64

_USES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
}

# OpenSSL's error numbers (openssl/x509_vfy.h). pyOpenSSL has names for them from 23.2 on.
_NO_ISSUER = (2, 20, 21)
_BAD_SIGNATURE = 7
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_UNKNOWN_ROOT = 19
_NO_AUTHORITY = (24, 79)
_WRONG_PURPOSE = 26


class Host(NamedTuple):
    """The host that a certificate has to be for.

    :param name: the host name in ASCII, lower case and without a dot at its end; or the address as
        text.
    :param address: the address; ``None`` for a host name.
    """

    name: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None

    @classmethod
    def parse(cls, text: str) -> Host:
        """Parse the host of a URL.

        :param text: a host name, internationalized or in ASCII, or an address.
        :raise ValueError: when it is neither.
        """
        try:
            # An IPv6 address may have a zone after a "%": the interface by which it is reached.
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            name = fold(_to_ascii(text).removesuffix("."))
            if not name or not all(_is_label(label) for label in name.split(".")):
                raise ValueError(f"{text!r} is no host name") from None
            return cls(name, None)
        return cls(str(address), address)


def chain_problem(certificate: x509.Certificate, error: int, depth: int) -> str:
    """Describe OpenSSL's error about a certificate or one of its authorities.

    :param certificate: the certificate that the error is about.
    :param error: OpenSSL's error number.
    :param depth: 0 for the server's own certificate, more for those of authorities.
    :return: a text that begins with "its certificate".
    """
    if depth == 0 or error == _UNKNOWN_ROOT:
        return f"its certificate {_problem(certificate, error)}"
    authority = _text(_name_of(certificate.subject))
    return f"its certificate is signed by {authority}, whose own {_problem(certificate, error)}"


def name_problem(certificate: x509.Certificate, host: Host) -> str | None:
    """Check that a certificate is for a host; return the problem, or ``None`` when it is.

    Only host names and addresses in its subjectAltName count. A wildcard stands for the whole first
    label of a name with three labels or more, and never for an internationalized label. Source: RFC
    9525, sections 6.3 to 6.5, in the narrower reading, as in service-identity.

    :return: a text that begins with "its certificate".
    """
    try:
        names, addresses = _host_names(certificate)
    except ValueError:
        return "its certificate names nobody: its subjectAltName cannot be read"
    if not names and not addresses:
        common_name = _common_name(certificate.subject)
        hint = f" (its common name {_text(common_name)} does not count)" if common_name else ""
        return f"its certificate names nobody: it has no host name and no address{hint}"
    if host.address is not None:
        is_hosts = host.address in addresses
    else:
        is_hosts = any(_matches(name, host.name) for name in names)
    if is_hosts:
        return None
    others = _listed([*names, *map(str, addresses)])
    return f"its certificate is not for {host.name}, but for other names: {others}"


def _problem(certificate: x509.Certificate, error: int) -> str:
    issuer = _text(_name_of(certificate.issuer))
    if error in _NO_ISSUER:
        return f"is not signed by a known authority (its issuer: {issuer})"
    if error == _BAD_SIGNATURE:
        return f"is not signed by a known authority (one named {issuer} has another key)"
    if error == _SELF_SIGNED:
        return "is not signed by a known authority (it is self-signed)"
    if error == _UNKNOWN_ROOT:
        return f"is not signed by a known authority (its authority: {issuer})"
    if error == _EXPIRED:
        return f"expired on {_moment(certificate, 'not_valid_after')}"
    if error == _NOT_YET_VALID:
        return f"is not valid before {_moment(certificate, 'not_valid_before')}"
    if error == _WRONG_PURPOSE:
        return f"has the wrong purpose: it is not for TLS servers{_uses(certificate)}"
    if error in _NO_AUTHORITY:
        return "has the wrong purpose: it is no authority's"
    return f"is not good: {_openssl_name(error)}"


def _host_names(
    certificate: x509.Certificate,
) -> tuple[list[str], list[ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """Return the host names and the addresses that a certificate is for.

    :raise ValueError: when its subjectAltName cannot be read.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    addresses = names.get_values_for_type(x509.IPAddress)
    return (
        names.get_values_for_type(x509.DNSName),
        [
            each
            for each in addresses
            if isinstance(each, ipaddress.IPv4Address | ipaddress.IPv6Address)
        ],
    )


def _matches(presented: str, name: str) -> bool:
    """Say whether a name in a certificate matches the name of a host.

    :param presented: the name in the certificate, which may have a wildcard.
    :param name: the host name, as in :class:`Host`.
    """
    presented = fold(presented)
    first, _, rest = presented.partition(".")
    if first != "*":
        return presented == name
    label, _, tail = name.partition(".")
    return "." in rest and tail == rest and not label.startswith("xn--")


def _to_ascii(text: str) -> str:
    if text.isascii():
        return text
    try:
        # Twisted resolves names by idna too, if it is installed.
        import idna
    except ImportError:
        return text.encode("idna").decode("ascii")
    return idna.encode(text).decode("ascii")


def _is_label(label: str) -> bool:
    return 0 < len(label) <= 63 and all(each.isalnum() or each in "-_" for each in label)


def end_of(certificate: x509.Certificate) -> datetime:
    """Return the moment at which a certificate expires."""
    return _time_of(certificate, "not_valid_after")


def _moment(certificate: x509.Certificate, which: str) -> str:
    return f"{_time_of(certificate, which):%Y-%m-%d %H:%M} UTC"


def _time_of(certificate: x509.Certificate, which: str) -> datetime:
    # From 42 on, cryptography has both with a time zone, and deprecates those without one.
    moment: datetime | None = getattr(certificate, f"{which}_utc", None)
    if moment is None:
        moment = getattr(certificate, which).replace(tzinfo=timezone.utc)
    assert moment is not None
    return moment


def _uses(certificate: x509.Certificate) -> str:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return f" (it is for: {_listed([_USES.get(each, each.dotted_string) for each in usage])})"


def _name_of(name: x509.Name) -> str:
    return _common_name(name) or name.rfc4514_string() or "an unnamed authority"


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _openssl_name(error: int) -> str:
    known = vars(getattr(SSL, "X509VerificationCodes", object))
    names = [name for name, value in known.items() if value == error and name.isupper()]
    words = names[0].removeprefix("ERR_").replace("_", " ").lower() if names else "not verified"
    return f"{words} (OpenSSL's error {error})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(_text(name) for name in names[:_MOST_NAMES]) + more


def _text(name: str) -> str:
    """Make a text from a certificate safe for a line of the log: printable, and not too long."""
    name = name if name.isprintable() else ascii(name)[1:-1]
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
