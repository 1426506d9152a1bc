"""How Triton servers are entered: headers from the environment, certificates from files."""

from __future__ import annotations

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
        OptionRefused: a variable is not set here, or a file cannot be read.
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
    return Access(
        headers=headers,
        root_certificates=_content("root_certificates", config.root_certificates),
        private_key=_content("private_key", config.private_key),
        certificate_chain=_content("certificate_chain", config.certificate_chain),
    )


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
