"""TLS of the public server. Certificates and revocation lists (CRL) are files, and are read again when they change.

gRPC's Python server checks the chain and the dates of a client certificate, but not whether it was revoked. So each
call asks `Revocations` before anything else is done for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from papa_serving import metrics
from papa_serving.contracts.errors import Unauthenticated
from papa_serving.settings import TlsSettings
from papa_serving.watched_file import WatchedFile

AuthContext = Mapping[str, Iterable[bytes]]
"""gRPC's properties of the peer: its certificate under CERTIFICATE, nothing without TLS."""

CERTIFICATE = "x509_pem_cert"
_BEGIN = b"-----BEGIN X509 CRL-----"

Withdrawn = frozenset[tuple[bytes, int]]
"""Issuer (DER) and serial number of each certificate."""


def server_credentials(tls: TlsSettings) -> grpc.ServerCredentials | None:
    """Returns the credentials of the settings; None without TLS.

    With `client_ca`, a handshake needs a client certificate that this authority has signed. Handshakes check the files
    for changes, once a second at most, so that a renewed certificate needs no restart. Raises ValueError for files that
    cannot be used.
    """
    if tls.certificate is None or tls.key is None:
        return None
    certificate, key, authority = tls.certificate, tls.key, tls.client_ca
    paths = (certificate, key) if authority is None else (certificate, key, authority)
    try:
        files = WatchedFile(paths, lambda: _configuration(certificate, key, authority))
    except OSError as error:
        raise ValueError(f"gateway.tls: {error.filename} cannot be read: {error.strerror}") from error
    seen = files.value()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen
        newest = files.value()
        if newest is seen:
            return None
        seen = newest
        return newest

    # None for "no change" is what grpc documents and its types forget.
    fetch: Any = changed
    return grpc.dynamic_ssl_server_credentials(seen, fetch, require_client_authentication=authority is not None)


def _configuration(certificate: Path, key: Path, authority: Path | None) -> grpc.ServerCertificateConfiguration:
    """Raises ValueError where the key is not the certificate's: grpc would accept both and fail every handshake."""
    chain, private = certificate.read_bytes(), key.read_bytes()
    metrics.CERTIFICATE_EXPIRY.set(_check_pair(chain, private))
    roots = None if authority is None else authority.read_bytes()
    return grpc.ssl_server_certificate_configuration([(private, chain)], roots)


def _check_pair(chain: bytes, private: bytes) -> float:
    """The Unix time at which the certificate expires."""
    try:
        certificate = x509.load_pem_x509_certificate(chain)
        fits = load_pem_private_key(private, None).public_key() == certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("gateway.tls: certificate or key is not a PEM file that can be used") from None
    if not fits:
        raise ValueError("gateway.tls: the key is not the certificate's")
    return certificate.not_valid_after_utc.timestamp()


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
