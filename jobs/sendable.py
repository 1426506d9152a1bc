"""What of a command line may be handed to a cluster: no path that means another folder there, and
no secret, since others read it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from conf.alert_target import is_url
from conf.errors import ConfigError
from conf.secrets import without_secrets
from conf.triton_config import is_variable

_SECRET = re.compile(r"key|secret|token|passw|passphrase|credential|sas|auth", re.IGNORECASE)
"""Options of a store's client that may be secrets, by their names."""
_READ_BY_OTHERS = "whoever looks at the cluster's jobs or at a manifest reads the command line"


def refuse_secrets(overrides: Sequence[str]) -> None:
    """A command line is read by whoever may look at the cluster's jobs or at a manifest.

    Raises:
        ConfigError: a key may hold a secret; its value is not shown.
    """
    for one in overrides:
        name, _, given = one.lstrip("+").partition("=")
        value = given.strip("'\"")
        _, _, option = name.partition("storage.options")
        if (option and _SECRET.search(option)) or (
            name == "storage.options" and _SECRET.search(value)
        ):
            where = "the store's client reads it in the environment of the cluster's nodes (AWS_*)"
        elif name == "budget.alert" and is_url(value):
            where = "give a command that the head has, which reads the URL from its environment"
        elif name.startswith("triton.headers") and not is_variable(value):
            where = (
                "give triton.headers.NAME=VARIABLE, where VARIABLE is the name, in capital "
                "letters, of an environment variable that the cluster's nodes have"
            )
        else:
            refuse_credentials(name, value)
            continue
        raise ConfigError(f"{name} may be a secret, and {_READ_BY_OTHERS}; {where}")


def refuse_credentials(name: str, value: str) -> None:
    """Refuse users, passwords and signatures in a URL.

    Raises:
        ConfigError: it has some; they are not shown.
    """
    shown = without_secrets(value)
    if "://" in value and shown != value:
        raise ConfigError(
            f"{name} {shown} carries credentials, and {_READ_BY_OTHERS}; leave them out of the "
            "URL: the store's client reads them in the environment of the cluster's nodes (AWS_*)"
        )


def refuse_relative(overrides: Sequence[str]) -> None:
    """Refuse paths of this machine in the keys that name one.

    Raises:
        ConfigError: which one.
    """
    for one in overrides:
        name, _, value = one.partition("=")
        if name in ("input.path", "output.path"):
            refuse_relative_path(name, value)
        elif name in ("model", "model.path", "model.config", "pricing", "pricing.book"):
            refuse_relative_path(name, value, plain_names=True)


def refuse_relative_path(name: str, value: str, *, plain_names: bool = False) -> None:
    """``plain_names``: what looks like no path is a name that the cluster knows too.

    Raises:
        ConfigError: it is relative.
    """
    if "://" in value or value.startswith("/"):
        return
    if plain_names and not value.startswith((".", "~")):
        return
    raise ConfigError(
        f"{name}={value} is relative to a folder of this machine; the cluster has others. Give a "
        "URL such as s3://bucket/folder, or an absolute path that the cluster's nodes share"
    )
