from __future__ import annotations

import socket
import ssl
import threading
import warnings
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from edge_agent.api import certificate


def ensure(folder: Path, now: datetime, **names: list[str]) -> certificate.ServerCertificate:
    return certificate.ensure(folder, name="gw-1", hostnames=names.get("hostnames", []), now=now)


def test_the_certificate_stays_until_it_nears_its_end(tmp_path: Path, now: datetime) -> None:
    first = ensure(tmp_path, now)
    assert ensure(tmp_path, now + timedelta(days=366)).fingerprint == first.fingerprint
    assert ensure(tmp_path, now + timedelta(days=368)).fingerprint != first.fingerprint


def test_a_new_hostname_makes_a_new_certificate_under_the_same_authority(tmp_path: Path, now: datetime) -> None:
    first = ensure(tmp_path, now)
    authority = (tmp_path / "ca.pem").read_bytes()
    second = ensure(tmp_path, now, hostnames=["gate.example"])
    assert first.fingerprint != second.fingerprint
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_private_keys_are_readable_by_their_owner_alone(tmp_path: Path, now: datetime) -> None:
    ensure(tmp_path, now)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}


def test_the_fingerprint_is_the_one_a_browser_shows(tmp_path: Path, now: datetime) -> None:
    made = ensure(tmp_path, now)
    server = x509.load_pem_x509_certificate(made.chain_file.read_bytes())
    assert made.fingerprint.replace(":", "").lower() == server.fingerprint(hashes.SHA256()).hex()


@pytest.mark.parametrize(
    ("version", "accepted"),
    [(ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)],
)
def test_only_tls_1_2_and_1_3_are_spoken(tmp_path: Path, version: ssl.TLSVersion, accepted: bool) -> None:
    made = ensure(tmp_path, datetime.now().astimezone())
    context = certificate.tls_context(made)
    client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    client.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.1 is what we are refusing
        client.minimum_version = client.maximum_version = version
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            context.wrap_socket(ours, server_side=True).close()
        except (ssl.SSLError, OSError):
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if accepted:
            with client.wrap_socket(theirs, server_hostname="localhost") as secured:
                assert secured.version() in {"TLSv1.2", "TLSv1.3"}
        else:
            with pytest.raises((ssl.SSLError, OSError)):
                client.wrap_socket(theirs, server_hostname="localhost")
    finally:
        theirs.close()
        thread.join(5)
