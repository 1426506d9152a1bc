"""What must neither be shown nor stored: credentials in URLs."""

from __future__ import annotations

import re

from conf.errors import ConfigError

_USER_INFO = re.compile(r"(?P<before>\b(?P<protocol>[\w.+-]+)://)[^/@\s]+@")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Azure's protocols: what stands before the @ names a container and is no secret."""

_SIGNATURE = re.compile(
    r"(?P<before>[?&](?:X-(?:Amz|Goog)-[A-Za-z-]+|Signature|AWSAccessKeyId|GoogleAccessId|sig|"
    r"(?:\w*_)?token)=)[^&#\s'\"]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """The text without users, passwords and query signatures of any URL in it."""
    return _SIGNATURE.sub(r"\g<before>…", _USER_INFO.sub(_masked, text))


def _masked(found: re.Match[str]) -> str:
    return found[0] if found["protocol"] in _CONTAINERS else f"{found['before']}…@"


def refuse_secrets(name: str, path: str) -> None:
    """A path that is needed to read or write again is stored as it is, so it must hold no secret.

    Raises:
        ConfigError: it carries credentials; the message does not repeat them.
    """
    shown = without_secrets(path)
    if "://" in path and shown != path:
        raise ConfigError(
            f"{name} {shown} carries credentials, which would be written into the output; leave "
            "them out of the URL and give them as storage.options.* or in the environment of the "
            "store's client; copy a file that only a signed link opens to a store first"
        )
