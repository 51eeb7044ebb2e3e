"""TLS and mutual TLS over a real socket, with certificates made on the spot and the product's own client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from papa_serving import metrics
from papa_serving.client import AsyncClient, CallFailed, Retry, Tls
from papa_serving.contracts.errors import Unauthenticated
from papa_serving.gateway.auth.tls import open_revocations, server_credentials
from papa_serving.settings import AuthSettings, TlsSettings

from tests.gateway.support.service import Service
from tests.gateway.support.tokens import Authority, Certificates, bearer

ONCE = Retry(attempts=1)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def tls(authority: Certificates, name: str = "gateway", client_ca: Path | None = None) -> TlsSettings:
    certificate, key = authority.issue(name)
    return TlsSettings(certificate=certificate, key=key, client_ca=client_ca)


def trusting(authority: Certificates, name: str = "") -> Tls:
    """The credentials of a caller; with a `name`, including a client certificate."""
    chain, key = (path.read_bytes() for path in authority.issue(name)) if name else (None, None)
    return Tls(authority.ca.read_bytes(), key, chain)


async def likes(service: Service, tls: Tls | None, token: str | None = None) -> int:
    async with AsyncClient(service.gateway.address, tls=tls, token=token, retry=ONCE) as client:
        return (await client.get_user("alice", timeout=5.0)).likes


async def refused(service: Service, tls: Tls | None) -> None:
    with pytest.raises(CallFailed) as failure:
        await likes(service, tls)
    assert failure.value.code is grpc.StatusCode.UNAVAILABLE


async def test_tls(unstarted: Service, certificates: Certificates, tmp_path: Path) -> None:
    await unstarted.start(tls=tls(certificates))
    assert await likes(unstarted, trusting(certificates)) == 0
    await refused(unstarted, None)
    await refused(unstarted, trusting(Certificates(tmp_path, "somebody")))


async def test_mutual_tls(unstarted: Service, certificates: Certificates, tmp_path: Path) -> None:
    await unstarted.start(tls=tls(certificates, client_ca=certificates.ca))
    assert await likes(unstarted, trusting(certificates, "backend")) == 0
    await refused(unstarted, trusting(certificates))
    stranger = trusting(Certificates(tmp_path, "somebody"), "backend")
    await refused(unstarted, Tls(certificates.ca.read_bytes(), stranger.private_key, stranger.certificate_chain))


@pytest.mark.parametrize(
    ("hours", "purpose", "welcome"),
    [
        (1.0, ExtendedKeyUsageOID.CLIENT_AUTH, True),
        (1.0, ExtendedKeyUsageOID.SERVER_AUTH, False),
        (1.0, ExtendedKeyUsageOID.CODE_SIGNING, False),
        (-1.0, None, False),
    ],
)
async def test_a_client_certificate_must_be_valid_and_for_clients(
    unstarted: Service, certificates: Certificates, hours: float, purpose: x509.ObjectIdentifier | None, welcome: bool
) -> None:
    await unstarted.start(tls=tls(certificates, client_ca=certificates.ca))
    chain, key = (path.read_bytes() for path in certificates.issue("backend", hours, purpose))
    shown = Tls(certificates.ca.read_bytes(), key, chain)
    if welcome:
        assert await likes(unstarted, shown) == 0
    else:
        await refused(unstarted, shown)


def shown(authority: Certificates, pair: tuple[Path, Path]) -> Tls:
    return Tls(authority.ca.read_bytes(), pair[1].read_bytes(), pair[0].read_bytes())


async def test_a_revoked_certificate_is_refused_as_soon_as_the_list_says_so(
    unstarted: Service, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    lost, kept = certificates.issue("lost"), certificates.issue("kept")
    listed = certificates.revoke()
    settings = tls(certificates, client_ca=certificates.ca).model_copy(update={"client_crl": listed})
    await unstarted.start(tls=settings)
    async with AsyncClient(unstarted.gateway.address, tls=shown(certificates, lost), retry=ONCE) as client:
        assert (await client.get_user("alice", timeout=5.0)).likes == 0
        certificates.revoke(lost[0])
        for _ in range(2):
            with pytest.raises(Unauthenticated, match="revoked"):
                await client.get_user("alice", timeout=5.0)
        assert not await client.is_serving(), "health is refused as well"
    with pytest.raises(Unauthenticated, match="revoked"):
        await likes(unstarted, shown(certificates, lost))
    assert await likes(unstarted, shown(certificates, kept)) == 0
    listed.write_text("half a list")
    with pytest.raises(Unauthenticated, match="revoked"):
        await likes(unstarted, shown(certificates, lost))


@pytest.mark.parametrize("broken", ["missing", "garbage", "empty", "another's"])
def test_lists_that_cannot_be_used_are_refused_at_the_start(
    certificates: Certificates, tmp_path: Path, broken: str
) -> None:
    listed = certificates.revoke()
    match broken:
        case "missing":
            listed.unlink()
        case "garbage":
            listed.write_text("-----BEGIN X509 CRL-----\nnonsense\n-----END X509 CRL-----\n")
        case "empty":
            listed.write_text("")
        case "another's":
            Certificates(tmp_path, "stranger").revoke()
    with pytest.raises(ValueError, match=r"gateway\.tls"):
        open_revocations(tls(certificates, client_ca=certificates.ca).model_copy(update={"client_crl": listed}))


async def test_handshakes_that_never_end_keep_nobody_out(unstarted: Service, certificates: Certificates) -> None:
    """Sockets that send nothing, and ones that send the beginning of a ClientHello."""
    await unstarted.start(tls=tls(certificates))
    host, _, port = unstarted.gateway.address.rpartition(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(200)]
    for _, writer in silent[::2]:
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
        await writer.drain()
    assert await likes(unstarted, trusting(certificates)) == 0
    for _, writer in silent:
        writer.close()


async def test_a_renewed_certificate_is_taken_up(
    unstarted: Service, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    used = tls(certificates)
    await unstarted.start(tls=used)
    assert await likes(unstarted, trusting(certificates)) == 0
    successor = Certificates(tmp_path, "successor")
    assert tls(successor) == used, "under the same names"
    assert await likes(unstarted, trusting(successor)) == 0
    await refused(unstarted, trusting(certificates))


async def test_probes_that_speak_no_tls_see_health_and_nothing_else(
    unstarted: Service, certificates: Certificates
) -> None:
    await unstarted.start(tls=tls(certificates), health_port=0)
    async with grpc.aio.insecure_channel(unstarted.gateway.health_address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/papa.serving.v1.UserService/GetUser")(b"")
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_token_over_tls(unstarted: Service, certificates: Certificates, tmp_path: Path) -> None:
    authority, keys = Authority(), tmp_path / "key.pem"
    keys.write_bytes(authority.pem())
    auth = AuthSettings(mode="jwt", jwks=str(keys), audience="papa", issuer="https://authority.example")
    await unstarted.start(tls=tls(certificates), auth=auth)
    assert await likes(unstarted, trusting(certificates), authority.token()) == 0
    assert bearer("x") == (("authorization", "Bearer x"),)


async def test_the_expiry_of_the_certificate_is_a_metric(unstarted: Service, certificates: Certificates) -> None:
    used = tls(certificates)
    await unstarted.start(tls=used)
    assert used.certificate is not None
    expiry = x509.load_pem_x509_certificate(used.certificate.read_bytes()).not_valid_after_utc
    (sample,) = next(iter(metrics.CERTIFICATE_EXPIRY.collect())).samples
    assert sample.value == expiry.timestamp()


@pytest.mark.parametrize("broken", ["missing", "garbage", "another key"])
def test_files_that_do_not_fit_are_refused_at_the_start(certificates: Certificates, broken: str) -> None:
    used = tls(certificates)
    assert used.key is not None
    match broken:
        case "missing":
            used.key.unlink()
        case "garbage":
            used.key.write_text("-----BEGIN PRIVATE KEY-----\nsecret\n")
        case "another key":
            used.key.write_bytes(certificates.issue("other")[1].read_bytes())
    with pytest.raises(ValueError, match=r"gateway\.tls") as refusal:
        server_credentials(used)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "given", [{"certificate": "a.pem"}, {"key": "a.key"}, {"client_ca": "ca.pem"}, {"client_crl": "a.crl"}]
)
def test_half_a_configuration_is_refused(given: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"belong together|needs certificate|needs client_ca"):
        TlsSettings(**given)
