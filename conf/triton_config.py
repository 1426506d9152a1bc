"""The configuration group ``triton``: which Triton servers make the images, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from conf.config_key import key
from conf.errors import ConfigError
from conf.secrets import without_secrets

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_EXPECTED = (
    "expected grpc://host:port, or grpcs://host:port with TLS, several separated by commas "
    "(Triton answers gRPC on port 8001 unless told otherwise; its HTTP port is another)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonConfig:
    """Where the Triton servers of ``engine=triton`` are, and what they cost this job."""

    url: str | None = key(
        "Triton servers that make the images, grpc://host:port or grpcs://host:port (TLS), several "
        "separated by commas"
    )
    model: str | None = key("the model's name in their repository; null: model.name")
    timeout_s: float = key(
        "how long one image may take, waiting included, before it is asked for again", low=0.1
    )
    patience_s: float = key(
        "how long servers that do not answer are tried before a worker gives its rows back", low=0
    )
    max_in_flight: int | None = key(
        "images that a worker asks of one server at a time; null: as many as keep the server's "
        "batches full, found by its statistics",
        low=1,
    )
    shared_memory: str = key(
        "auto: a server that sees this machine's /dev/shm writes images there instead of sending "
        "them; off: all are sent",
        choices=("auto", "off"),
    )
    owned: bool = key(
        "true: the servers work for this job alone, which pays for them from its worker's start to "
        "its end; false: it pays for the GPU time of its images"
    )
    headers: dict[str, str] = key(
        "headers of every request by name; the value is the name of an environment variable that "
        "holds the header's value, on the driver and on the workers"
    )
    root_certificates: str | None = key(
        "grpcs: file of the certificate authorities to trust; null: gRPC's own"
    )
    private_key: str | None = key("grpcs: file of this client's key, where servers ask for one")
    certificate_chain: str | None = key("grpcs: file of this client's certificates")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where a server answers gRPC: ``host:port``."""

    target: str
    tls: bool

    def __str__(self) -> str:
        return f"{'grpcs' if self.tls else 'grpc'}://{self.target}"

    @property
    def host(self) -> str:
        return self.target.rpartition(":")[0].strip("[]")


def addresses_of(config: TritonConfig) -> tuple[ServerAddress, ...]:
    """The servers that ``triton.url`` names, each once.

    Raises:
        ConfigError: there are none, or one is no address of a gRPC server.
    """
    texts = [text.strip() for text in (config.url or "").split(",") if text.strip()]
    if not texts:
        raise ConfigError(f"engine=triton needs triton.url; {_EXPECTED}")
    return tuple(dict.fromkeys(_address(text) for text in texts))


def _address(text: str) -> ServerAddress:
    shown = without_secrets(text)
    if shown != text:
        raise ConfigError(
            f"triton.url {shown} carries credentials, which would be written into the output; give "
            "a token as triton.headers.authorization=NAME_OF_AN_ENVIRONMENT_VARIABLE"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"triton.url is '{text}': {error}; {_EXPECTED}") from error
    if parts.scheme not in ("grpc", "grpcs") or not parts.hostname or port is None:
        raise ConfigError(f"triton.url is '{text}'; {_EXPECTED}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"triton.url is '{text}', which names more than a server; {_EXPECTED}")
    return ServerAddress(target=parts.netloc, tls=parts.scheme == "grpcs")


def is_variable(text: str) -> bool:
    """Whether it may name an environment variable, which is how headers are given."""
    return _VARIABLE.fullmatch(text) is not None


def check_triton(config: TritonConfig) -> None:
    """Check what ``engine=triton`` needs and one key alone cannot tell.

    Raises:
        ConfigError: the key, what was expected and what was found.
    """
    addresses = addresses_of(config)
    for name, variable in config.headers.items():
        if not is_variable(variable):
            raise ConfigError(
                f"triton.headers.{name} is no name of an environment variable; expected capital "
                "letters, digits and underscores, such as TRITON_TOKEN. The header's value itself "
                "belongs in that variable: what is given here is written into the output"
            )
    files = ("root_certificates", "private_key", "certificate_chain")
    given = [name for name in files if getattr(config, name) is not None]
    if given and not any(address.tls for address in addresses):
        raise ConfigError(
            f"triton.{given[0]} is for servers with TLS, and triton.url has none; give "
            f"grpcs://{addresses[0].target}"
        )
    if (config.private_key is None) != (config.certificate_chain is None):
        lacking = "private_key" if config.private_key is None else "certificate_chain"
        raise ConfigError(
            f"triton.{lacking} is not set; expected triton.private_key and "
            "triton.certificate_chain together"
        )
