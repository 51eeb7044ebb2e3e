"""An authority that signs tokens, and certificates made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm

AUDIENCE, ISSUER = "papa", "https://authority.example"
ALL = "generate feedback admin"


class Authority:
    """One signing key."""

    def __init__(self, kid: str = "first") -> None:
        self.kid, self.key = kid, ec.generate_private_key(ec.SECP256R1())

    def jwk(self) -> dict[str, Any]:
        return {**ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": self.kid, "use": "sig"}

    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def token(self, *, without: tuple[str, ...] = (), headers: dict[str, Any] | None = None, **claims: Any) -> str:
        payload = {"aud": AUDIENCE, "iss": ISSUER, "exp": time.time() + 600, "tenant": "shop", "scope": ALL, **claims}
        payload = {name: value for name, value in payload.items() if name not in without}
        return jwt.encode(payload, self.key, "ES256", headers={"kid": self.kid, **(headers or {})})


def jwks(*authorities: Authority) -> str:
    return json.dumps({"keys": [each.jwk() for each in authorities]})


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


class Certificates:
    """A certificate authority and what it signs, as PEM files in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca = self._written(f"{name}.pem", self._signed(self._subject, self._key, 1.0, ca=True))

    def issue(self, name: str, hours: float = 1.0, purpose: x509.ObjectIdentifier | None = None) -> tuple[Path, Path]:
        """Certificate and key of a peer on this machine, valid until in `hours`; for all purposes without one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self._written(f"{name}.pem", self._signed(subject, key, hours, purpose)), self._written(
            f"{name}.key", pem
        )

    def revoke(self, *certificates: Path, name: str = "revoked.crl") -> Path:
        """The authority's list with these certificates on it."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._subject)
        builder = builder.last_update(now).next_update(now + datetime.timedelta(hours=1))
        for path in certificates:
            number = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return self._written(name, builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _written(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(data)
        return path

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        hours: float,
        purpose: x509.ObjectIdentifier | None = None,
        ca: bool = False,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=2))
            .not_valid_after(now + datetime.timedelta(hours=hours))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(names, critical=False)
        )
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
