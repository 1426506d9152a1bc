"""Why no connection to a server comes about, and what to do: read from gRPC's words. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from conf.triton_config import ServerAddress

_PLAIN_PORT = "wrong_version_number"
_UNTRUSTED = ("certificate_verify_failed", "bad_signature", "self signed", "unknown_ca")
_OTHER_NAME = "hostname verification check failed"
_CLOSED = "socket closed"
_NO_CONNECTION = "failed to connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What is wrong and what to do. ``certain``: it will be so the next time; else a server that is
    ending may have said the same."""

    text: str
    certain: bool


def tls_advice(address: ServerAddress, said: str) -> Advice | None:
    """What is wrong with how TLS is asked for; None where nothing of the kind can be seen."""
    lowered = said.lower()
    if _NO_CONNECTION not in lowered:
        return None
    if _CLOSED in lowered:
        return Advice(text=_closed(address), certain=False)
    found = _refused(address, lowered) if address.tls else None
    return None if found is None else Advice(text=found, certain=True)


def _closed(address: ServerAddress) -> str:
    if address.tls:
        return (
            "it closed the connection when TLS had begun, as a server does that wants another "
            "certificate of its clients, or any; if so, give triton.private_key and "
            "triton.certificate_chain, signed by an authority that it trusts"
        )
    return (
        "it closed the connection at once, as a port with TLS does that is asked without; if it "
        f"has TLS, give grpcs://{address.target}"
    )


def _refused(address: ServerAddress, lowered: str) -> str | None:
    if _PLAIN_PORT in lowered:
        return f"its port answers without TLS; expected TLS; give grpc://{address.target}"
    if _OTHER_NAME in lowered:
        return (
            f"its certificate is for another name than {address.host}; give the name that it is "
            "for in triton.url, or a certificate for this one to the server"
        )
    if any(text in lowered for text in _UNTRUSTED):
        return (
            "its certificate is signed by none of the authorities that are trusted here; give the "
            "file of the one that signed it as triton.root_certificates"
        )
    return None
