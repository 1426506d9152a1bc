"""How Triton servers are entered: headers from the environment, certificates from files."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conf.errors import OptionRefused
from conf.triton_config import TritonConfig


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Access:
    """``headers`` and ``private_key`` are secrets: they are never shown or written. Certificates
    are PEM; None: gRPC's own, or none at all."""

    headers: Mapping[str, str]
    root_certificates: bytes | None
    private_key: bytes | None
    certificate_chain: bytes | None


def access_of(config: TritonConfig, environment: Mapping[str, str]) -> Access:
    """What ``triton.*`` refers to, as this machine has it.

    Raises:
        OptionRefused: a variable is not set here, or a file cannot be read or holds something else.
    """
    headers = {}
    for name, variable in config.headers.items():
        if variable not in environment:
            raise OptionRefused(
                f"triton.headers.{name} is in the environment variable {variable}, which is not "
                "set here; expected the header's value; set it for the command and for all workers"
            )
        # gRPC knows header names in lower case only
        headers[name.lower()] = environment[variable]
    found = Access(
        headers=headers,
        root_certificates=_content("root_certificates", config.root_certificates),
        private_key=_content("private_key", config.private_key),
        certificate_chain=_content("certificate_chain", config.certificate_chain),
    )
    _check_pem(config)
    return found


def _content(name: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise OptionRefused(
            f"triton.{name}={path} cannot be read here ({error.strerror}); expected a PEM file, "
            "under the same path on every worker"
        ) from error


def _check_pem(config: TritonConfig) -> None:
    """gRPC would only say that there is no handshake."""
    context = ssl.create_default_context()
    if config.root_certificates is not None:
        try:
            context.load_verify_locations(Path(config.root_certificates).expanduser())
        except ssl.SSLError as error:
            raise OptionRefused(
                f"triton.root_certificates={config.root_certificates} holds no certificate "
                f"({error}); expected those of the authorities to trust, in PEM"
            ) from error
    if config.private_key is None or config.certificate_chain is None:
        return
    chain, key = Path(config.certificate_chain), Path(config.private_key)
    try:
        context.load_cert_chain(chain.expanduser(), key.expanduser(), password="")
    except (ssl.SSLError, ValueError) as error:
        raise OptionRefused(
            f"triton.private_key={config.private_key} and triton.certificate_chain="
            f"{config.certificate_chain} cannot be used together ({error}); expected a key without "
            "a password and the certificate that was made of it, in PEM"
        ) from error
