"""Client certificates that their authority has withdrawn, from a file of revocation lists (CRL).

gRPC's Python server checks a chain and its dates, and offers no list of what was withdrawn. So each call asks here,
before anything else is done for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from papa_serving.contracts.errors import Unauthenticated
from papa_serving.gateway.auth.watched_file import WatchedFile
from papa_serving.settings import TlsSettings

AuthContext = Mapping[str, Iterable[bytes]]
"""What gRPC knows of the peer: its own certificate under CERTIFICATE, nothing without TLS."""

CERTIFICATE = "x509_pem_cert"
_BEGIN = b"-----BEGIN X509 CRL-----"

Withdrawn = frozenset[tuple[bytes, int]]
"""Issuer (DER) and serial number of each certificate."""


class Revocations:
    """The newest lists; the file is read again when it, or that of the authorities, has changed."""

    def __init__(self, lists: Path, authorities: Path) -> None:
        """Raises ValueError for a file that holds no list, or one that none of the authorities has signed."""
        try:
            self._withdrawn = WatchedFile(
                (lists, authorities), lambda: _withdrawn(lists.read_bytes(), authorities.read_bytes())
            )
        except OSError as error:
            raise ValueError(f"gateway.tls: {error.filename} cannot be read: {error.strerror}") from error

    def check(self, peer: AuthContext) -> None:
        """Raises Unauthenticated for a peer whose certificate was withdrawn."""
        withdrawn = self._withdrawn.value()
        if any(_identity(shown) in withdrawn for shown in peer.get(CERTIFICATE, ())):
            raise Unauthenticated("the client certificate was revoked")


def open_revocations(tls: TlsSettings) -> Revocations | None:
    """The lists of the settings; None without. Raises ValueError for files that cannot be used."""
    if tls.client_crl is None or tls.client_ca is None:
        return None
    return Revocations(tls.client_crl, tls.client_ca)


@lru_cache(maxsize=1024)
def _identity(certificate: bytes) -> tuple[bytes, int]:
    parsed = x509.load_pem_x509_certificate(certificate)
    return parsed.issuer.public_bytes(), parsed.serial_number


def _withdrawn(lists: bytes, authorities: bytes) -> Withdrawn:
    try:
        signers = x509.load_pem_x509_certificates(authorities)
        found = [x509.load_pem_x509_crl(_BEGIN + part) for part in lists.split(_BEGIN)[1:]]
    except ValueError:
        raise ValueError("gateway.tls: client_crl is not a PEM file of revocation lists") from None
    if not found:
        raise ValueError("gateway.tls: client_crl holds no revocation list")
    for each in found:
        if not any(_signed(each, signer) for signer in signers):
            raise ValueError("gateway.tls: client_crl holds a list that no authority of client_ca has signed")
    return frozenset((each.issuer.public_bytes(), entry.serial_number) for each in found for entry in each)


def _signed(found: x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    if found.issuer != signer.subject:
        return False
    try:
        return found.is_signature_valid(signer.public_key())  # type: ignore[arg-type]  # others are refused below
    except (InvalidSignature, UnsupportedAlgorithm, TypeError):
        return False
