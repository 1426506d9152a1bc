"""How a store is reached: where it answers, as whom, and how long it is asked again.

Owns the options of the fsspec file systems. Holds credentials only inside ``options``, which are
never shown nor written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fsspec.utils import get_protocol

from conf.errors import ConfigError
from conf.schema import StorageConfig
from conf.secrets import without_secrets

LOOK_S = 10.0
"""How long commands that only look, and all that comes before a job is claimed, ask again."""
_CONNECT_S = (2.0, 5.0)
_READ_S = (5.0, 30.0)
"""Shortest and longest that one request waits; between them a share of the patience."""
_CONNECTIONS = 32
S3_PROTOCOLS = ("s3", "s3a")
_LOCAL_PROTOCOLS = ("file", "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Everything besides the URL; what is None comes from the usual places of the store's client.

    ``patience_s``: how long an operation is tried again before the store counts as unavailable;
    0 tries once.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    endpoint_url: str | None = None
    profile: str | None = None
    region: str | None = None
    patience_s: float = 120.0

    @classmethod
    def of(cls, storage: StorageConfig) -> Self:
        """What the configuration says."""
        return cls(
            options=storage.options,
            endpoint_url=storage.endpoint_url,
            profile=storage.profile,
            region=storage.region,
            patience_s=storage.patience_s,
        )

    def file_system_options(self, url: str) -> dict[str, Any]:
        """What the fsspec file system of ``url`` is made with.

        Raises:
            ConfigError: credentials in an S3 URL, or S3 keys for a store of another kind.
        """
        if get_protocol(url) not in S3_PROTOCOLS:
            given = {"endpoint_url": self.endpoint_url, "profile": self.profile}
            for name, value in {**given, "region": self.region}.items():
                if value is not None:
                    raise ConfigError(
                        f"storage.{name} is for S3 alone, but the path is "
                        f"{without_secrets(url)}; leave it out or use storage.options.*"
                    )
            return dict(self.options)
        if "@" in url.split("://", 1)[1].split("/", 1)[0]:
            raise ConfigError(
                f"{without_secrets(url)} carries credentials, which S3 URLs cannot; give them as "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or as storage.profile"
            )
        return self._s3_options()

    def _s3_options(self) -> dict[str, Any]:
        """No caches (others write too), bounded requests, and no retries but ours."""
        options = dict(self.options)
        for name, value in (("endpoint_url", self.endpoint_url), ("profile", self.profile)):
            if value is not None:
                options[name] = value
        if self.region is not None:
            client = dict(options.get("client_kwargs") or {})
            options["client_kwargs"] = {**client, "region_name": self.region}
        bounds = {
            "connect_timeout": min(_CONNECT_S[1], max(_CONNECT_S[0], self.patience_s / 5)),
            "read_timeout": min(_READ_S[1], max(_READ_S[0], self.patience_s / 2)),
            "max_pool_connections": _CONNECTIONS,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        }
        options["config_kwargs"] = {**bounds, **(options.get("config_kwargs") or {})}
        return {**options, "use_listings_cache": False, "skip_instance_cache": True}


def is_local(url: str) -> bool:
    """Whether it is that of a folder, which charges nothing for what it is asked."""
    return get_protocol(url) in _LOCAL_PROTOCOLS
