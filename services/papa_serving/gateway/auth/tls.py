"""TLS of the public server. Certificates come from files and are reloaded when the files change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from papa_serving import metrics
from papa_serving.gateway.auth.watched_file import WatchedFile
from papa_serving.settings import TlsSettings


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
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(chain)
        fits = load_pem_private_key(private, None).public_key() == certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("gateway.tls: certificate or key is not a PEM file that can be used") from None
    if not fits:
        raise ValueError("gateway.tls: the key is not the certificate's")
    return certificate.not_valid_after_utc.timestamp()
