"""What is read from gRPC's words about a connection that does not come about."""

from __future__ import annotations

import pytest

from conf.triton_config import ServerAddress
from operators.triton_client.connection import tls_advice

PLAIN = ServerAddress(target="gpu-1:8001", tls=False)
SECRET = ServerAddress(target="gpu-1:443", tls=True)
NO_CONNECTION = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:443: "


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (PLAIN, NO_CONNECTION + "Failed to connect to remote host: Connection refused"),
        (SECRET, NO_CONNECTION + "Failed to connect to remote host: Connection refused"),
        (PLAIN, "Socket closed"),
        (SECRET, "Socket closed"),
        (PLAIN, NO_CONNECTION + "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_a_server_that_is_away_or_dies_is_no_matter_of_tls(
    address: ServerAddress, said: str
) -> None:
    assert tls_advice(address, said) is None


@pytest.mark.parametrize("address", [PLAIN, SECRET])
def test_a_closed_connection_may_be_a_server_that_is_ending(address: ServerAddress) -> None:
    advice = tls_advice(address, NO_CONNECTION + "Socket closed")
    assert advice is not None
    assert not advice.certain


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("SSL_ERROR_SSL: WRONG_VERSION_NUMBER", "its port answers without TLS"),
        ("CERTIFICATE_VERIFY_FAILED: self signed", "none of the authorities that are trusted"),
        ("BAD_SIGNATURE: certificate signature failure", "none of the authorities that are"),
        ("Hostname Verification Check failed.", "for another name than gpu-1; give the name"),
    ],
)
def test_a_handshake_that_will_fail_again_is_told_for_certain(said: str, expected: str) -> None:
    advice = tls_advice(SECRET, NO_CONNECTION + said)
    assert advice is not None
    assert advice.certain
    assert expected in advice.text
