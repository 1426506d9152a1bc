"""What file systems raise, in the words of our error tree.

S3 clients raise three unrelated families (OSError, botocore's, aiohttp's); ``FAILURES`` names them
all, ``store_failure`` tells what each means: wait, give up, or fix something.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Literal

from conf.errors import ImageMillError, StoreFull, StoreRefused, StoreUnavailable
from conf.secrets import without_secrets

Action = Literal["read", "write"]


def _failures() -> tuple[type[Exception], ...]:
    try:
        from aiohttp import ClientError as HttpError
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
    except ImportError:
        return (OSError, EOFError)
    return (OSError, EOFError, ClientError, BotoCoreError, ResponseParserError, HttpError)


FAILURES = _failures()
"""Every way in which a file system says that an operation failed."""

_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED_ERRNOS = (errno.EROFS, errno.ENAMETOOLONG, errno.ENOSYS)
_FULL_CODES = ("XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "507")
_PASSING_CODES = (
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "NoSuchUpload",
)
_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.profile"
_ELSEWHERE = "the bucket lives in another region; set storage.region"
_EXPIRED = "the session token has expired; get a new one and go on"
ANOTHER_PLACE = "choose another place"
"""Said of a place that cannot be written; who knows the key that names it says that instead."""
_MAY_NOT = {
    "read": "these credentials may not read there; allow them the actions s3:GetObject and "
    "s3:ListBucket (docs/storage.md) or use others",
    "write": "these credentials may not write there; allow them the actions s3:PutObject and "
    f"s3:DeleteObject (docs/storage.md), use others, or {ANOTHER_PLACE}",
}
_REFUSED_CODES = {
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key; {_KEYS}",
    "InvalidAccessKeyId": f"the store does not know the access key; {_KEYS}, and "
    "storage.endpoint_url",
    "NoSuchBucket": "the bucket does not exist; create it, or correct the path or "
    "storage.endpoint_url",
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "RequestTimeTooSkewed": "this machine's clock differs from the store's; set it right",
    "PermanentRedirect": _ELSEWHERE,
    "301": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
}
_REFUSED_CLASSES = {
    "ProfileNotFound": "storage.profile or AWS_PROFILE names no profile; give one of "
    "~/.aws/config, or leave it out",
    "NoCredentialsError": "no credentials were found; set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or storage.profile",
    "PartialCredentialsError": f"half of the credentials are missing; {_KEYS}",
    "ParamValidationError": "this is no valid bucket or key",
    "SSLError": "TLS failed; check that storage.endpoint_url begins with the right one of http:// "
    "and https://, and the certificate",
}
_UNREACHABLE = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ConnectionRefusedError",
    "ProxyConnectionError",
)


def store_failure(error: Exception, action: Action, path: str) -> ImageMillError:
    """The error of our tree for a failed operation on ``path``.

    Returns:
        StoreFull: it cannot take more bytes.
        StoreRefused: it would fail again; the message says what to do.
        StoreUnavailable: it may succeed when tried again.
    """
    what = f"cannot {action} {path}"
    code, status = response_of(error)
    if code:
        return _by_response(code, status, what, action, _reason(error))
    for link in _chain(error):
        known = _REFUSED_CLASSES.get(type(link).__name__)
        if known:
            return StoreRefused(f"{what}: {known} ({_reason(error)})")
    for link in _chain(error):
        if type(link).__name__ in _UNREACHABLE:
            return StoreUnavailable(
                f"{what}: the store cannot be reached ({_reason(error)}); check the network, "
                "storage.endpoint_url and AWS_ENDPOINT_URL"
            )
    return _by_errno(error, what, action)


def response_of(error: BaseException) -> tuple[str, int]:
    """The code and the HTTP status that an S3 server answered with; ("", 0) where none did."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict) and "Error" in response:
            status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
            return str(response["Error"].get("Code") or status), status
    return "", 0


def _by_response(code: str, status: int, what: str, action: Action, reason: str) -> ImageMillError:
    if code in _FULL_CODES or status == 507:
        return StoreFull(f"{what}: {reason}")
    if code in _REFUSED_CODES:
        return StoreRefused(f"{what}: {_REFUSED_CODES[code]} ({code})")
    if code in ("NotImplemented", "501") or status == 501:
        return StoreRefused(f"{what}: the store does not know this operation ({reason})")
    passing = status >= 500 or status in (0, 408, 409, 429)
    if passing or code in _PASSING_CODES or code.startswith("SlowDown"):
        return StoreUnavailable(f"{what}: {reason} ({code})")
    if status == 403:
        return StoreRefused(f"{what}: {_MAY_NOT[action]} ({code})")
    return StoreRefused(f"{what}: {reason} ({code})")


def _by_errno(error: Exception, what: str, action: Action) -> ImageMillError:
    number = getattr(error, "errno", None)
    if number in _FULL_ERRNOS:
        return StoreFull(f"{what}: {_reason(error)}")
    lasting = isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError)
    if lasting or number in _REFUSED_ERRNOS:
        next_step = f"; {ANOTHER_PLACE}" if action == "write" else ""
        return StoreRefused(f"{what}: {_reason(error)}{next_step}")
    return StoreUnavailable(f"{what}: {_reason(error)}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, the latest first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _reason(error: BaseException) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return without_secrets(str(reason)).rstrip(".")
