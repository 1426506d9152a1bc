"""What the store makes of each answer that an S3 server may give; the answers are canned, the
client is the real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cluster.store import Store
from cluster.store_access import Access
from conf.errors import ImageMillError, StoreFull, StoreRefused, StoreUnavailable

Answer = tuple[int, str]
"""HTTP status and error code."""


class Canned(ThreadingHTTPServer):
    """Gives ``answers`` one after another, the last one for ever; 200 where there are none."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []
        self.asked = 0

    def next_answer(self) -> Answer:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else (self.answers or [(200, "")])[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Canned

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        status, code = self.server.next_answer()
        body = (
            b""
            if status == 200
            else f"<Error><Code>{code}</Code><Message>canned</Message></Error>".encode()
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Canned]:
    with Canned() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def canned(server: Canned, monkeypatch: pytest.MonkeyPatch) -> Canned:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server.answers, server.asked = [], 0
    return server


def store_at(server: Canned, patience_s: float) -> Store:
    endpoint = f"http://127.0.0.1:{server.server_port}"
    return Store("s3://bucket/out", Access(endpoint_url=endpoint, patience_s=patience_s))


@pytest.mark.parametrize(
    "answer",
    [
        (500, "InternalError"),
        (502, "BadGateway"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (429, "TooManyRequests"),
        (409, "ConditionalRequestConflict"),
        (409, "OperationAborted"),
        (400, "RequestTimeout"),
    ],
)
def test_an_answer_that_may_pass_is_waited_out(canned: Canned, answer: Answer) -> None:
    canned.answers = [answer, answer, (200, "")]
    store_at(canned, 60).put("key", b"one")
    assert canned.asked == 3
    canned.answers = [answer]
    with pytest.raises(StoreUnavailable, match=r"^cannot write s3://bucket/out/key: "):
        store_at(canned, 0).put("key", b"one")


@pytest.mark.parametrize(
    ("answer", "expected", "sentence"),
    [
        ((507, "InsufficientStorage"), StoreFull, "^cannot write s3://bucket/out/key: .*canned"),
        ((507, "XMinioStorageFull"), StoreFull, "canned"),
        ((400, "QuotaExceeded"), StoreFull, "canned"),
        ((403, "AccessDenied"), StoreRefused, "may not write there; allow them the actions"),
        ((403, "ExpiredToken"), StoreRefused, "the session token has expired"),
        ((403, "RequestTimeTooSkewed"), StoreRefused, "this machine's clock differs"),
        ((301, "PermanentRedirect"), StoreRefused, "another region; set storage.region"),
        ((400, "AuthorizationHeaderMalformed"), StoreRefused, "set storage.region"),
        ((501, "NotImplemented"), StoreRefused, "does not know this operation"),
        ((400, "EntityTooLarge"), StoreRefused, r"canned \(EntityTooLarge\)"),
    ],
)
def test_an_answer_that_will_not_pass_is_told_at_once(
    canned: Canned, answer: Answer, expected: type[ImageMillError], sentence: str
) -> None:
    canned.answers = [answer]
    with pytest.raises(expected, match=sentence):
        store_at(canned, 60).put_if_absent("key", b"one")
    assert canned.asked <= 2


def test_a_denied_read_is_told_as_a_read(canned: Canned) -> None:
    canned.answers = [(403, "AccessDenied")]
    for touch in ("get", "listing"):
        with pytest.raises(StoreRefused, match=r"^cannot read .* may not read there; allow them"):
            getattr(store_at(canned, 60), touch)("key")


def test_a_store_that_takes_every_write_is_refused_by_the_probe(canned: Canned) -> None:
    with pytest.raises(StoreRefused, match="overwrote an existing object although asked not to"):
        store_at(canned, 0).probe()
