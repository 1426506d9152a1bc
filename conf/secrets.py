"""What must not be shown: credentials in URLs."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")


def without_secrets(text: str) -> str:
    """The text without the user and password of any URL in it."""
    return _USER_INFO.sub("…@", text)
