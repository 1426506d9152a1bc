"""The proxy against a real S3 server: what it forwards arrives as it was sent, and each rule does
what it says and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.chaos.bucket import S3Bucket, s3_client
from tests.chaos.proxy import Proxy
from tests.chaos.rules import (
    Action,
    Answer,
    Delay,
    Duplicate,
    Hold,
    LoseReply,
    LoseRequest,
    Match,
    Rule,
)
from tests.chaos.traffic import Seen, made_again, overwritten
from tests.seaweedfs import FULL, SeaweedFS

ONE_TRY = Config(retries={"total_max_attempts": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A client behind the proxy, and the bucket as it is."""

    proxy: Proxy
    client: Any
    bucket: S3Bucket

    def put(self, key: str, body: bytes, **more: str) -> int:
        """Put through the proxy; returns the status of the answer."""
        try:
            answer = self.client.put_object(Bucket="images", Key=f"t/{key}", Body=body, **more)
        except ClientError as error:
            answer = error.response
        status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
        return status

    def rule(self, action: Action, method: str = "PUT", **more: Any) -> None:
        """Act on everything of a method."""
        self.proxy.rules.add(Rule(match=Match(method=method, key="^t/"), action=action, **more))

    def seen(self) -> list[tuple[str, str, int | None, str]]:
        """Everything that went through."""
        return [(s.method, s.key, s.status, s.action) for s in self.proxy.traffic.below("t/")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def line(server: SeaweedFS) -> Iterator[Line]:
    direct = s3_client(server.endpoint_url, FULL.access_key, FULL.secret_key)
    bucket = S3Bucket(direct, "images", "t")
    for key in bucket.listing():
        direct.delete_object(Bucket="images", Key=f"t/{key}")
    with Proxy(server.endpoint_url) as proxy:
        client = s3_client(proxy.url, FULL.access_key, FULL.secret_key, ONE_TRY)
        yield Line(proxy=proxy, client=client, bucket=bucket)
    direct.close()


@pytest.mark.parametrize("key", ["plain", "a folder/with blanks", "über+&=%20.json"])
@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 20_000])
def test_what_is_put_and_got_through_the_proxy_is_what_was_sent(
    line: Line, key: str, body: bytes
) -> None:
    assert line.put(key, body) == 200
    assert line.bucket.read(key) == body
    got = line.client.get_object(Bucket="images", Key=f"t/{key}")
    assert got["Body"].read() == body
    head = line.client.head_object(Bucket="images", Key=f"t/{key}")
    assert head["ContentLength"] == len(body)
    listed = line.client.list_objects_v2(Bucket="images", Prefix="t/")
    assert [item["Key"] for item in listed["Contents"]] == [f"t/{key}"]
    assert [name for _, name, _, _ in line.seen()] == [f"t/{key}"] * 3


def test_a_key_is_taken_once_through_the_proxy_too(line: Line) -> None:
    assert line.put("once", b"one", IfNoneMatch="*") == 200
    assert line.put("once", b"two", IfNoneMatch="*") == 412
    assert line.bucket.read("once") == b"one"


def test_an_answer_of_the_proxy_does_not_reach_the_store(line: Line) -> None:
    line.rule(Answer(status=503, code="SlowDown"), times=1)
    assert line.put("a", b"x") == 503
    assert line.bucket.read("a") is None
    assert line.put("a", b"x") == 200, "the rule was for one request"
    assert line.seen() == [("PUT", "t/a", None, "Answer"), ("PUT", "t/a", 200, "")]


def test_a_lost_request_did_not_land(line: Line) -> None:
    line.rule(LoseRequest())
    with pytest.raises(ConnectionClosedError):
        line.put("a", b"x")
    assert line.bucket.read("a") is None


def test_a_lost_reply_landed(line: Line) -> None:
    line.rule(LoseReply())
    with pytest.raises(ConnectionClosedError):
        line.put("a", b"x")
    assert line.bucket.read("a") == b"x"
    assert line.seen() == [("PUT", "t/a", 200, "LoseReply")]


def test_a_repeated_write_arrives_twice_and_the_second_answer_comes_back(line: Line) -> None:
    line.rule(Duplicate())
    assert line.put("a", b"x", IfNoneMatch="*") == 412
    assert line.bucket.read("a") == b"x"
    assert [status for _, _, status, _ in line.seen()] == [200, 412]


def test_a_delayed_request_lands(line: Line) -> None:
    line.rule(Delay(seconds=0.01))
    assert line.put("a", b"x") == 200
    assert line.seen() == [("PUT", "t/a", 200, "Delay")]


@pytest.mark.parametrize("forward", [True, False])
def test_a_held_request_waits_until_somebody_decides(line: Line, forward: bool) -> None:
    barrier = Hold()
    line.rule(barrier, times=1)
    ended: list[object] = []

    def put() -> None:
        try:
            ended.append(line.put("a", b"x"))
        except ConnectionClosedError as error:
            ended.append(type(error))

    writer = threading.Thread(target=put)
    writer.start()
    assert barrier.caught().key == "t/a"
    assert line.bucket.read("a") is None
    assert not ended
    if forward:
        barrier.forward()
    else:
        barrier.drop()
    writer.join(10)
    assert ended == ([200] if forward else [ConnectionClosedError])
    assert line.bucket.read("a") == (b"x" if forward else None)


def test_a_held_request_goes_on_after_its_client_has_hung_up(line: Line, server: SeaweedFS) -> None:
    barrier = Hold()
    line.rule(barrier, times=1)
    hasty = Config(read_timeout=0.1, retries={"total_max_attempts": 1})
    client = s3_client(line.proxy.url, FULL.access_key, FULL.secret_key, hasty)
    with pytest.raises(Exception, match="Read timeout"):
        client.put_object(Bucket="images", Key="t/a", Body=b"x")
    client.close()
    barrier.forward()
    line.proxy.traffic.await_count(lambda seen: seen.landed, 1, "the held PUT", 10)
    assert line.bucket.read("a") == b"x"


def test_a_store_that_is_down_looks_like_a_broken_connection() -> None:
    with Proxy("http://127.0.0.1:9") as proxy:
        client = s3_client(proxy.url, "key", "secret", ONE_TRY)
        with pytest.raises(ConnectionClosedError):
            client.put_object(Bucket="images", Key="t/a", Body=b"x")
        client.close()
        (seen,) = proxy.traffic.below("t/")
    assert (seen.status, seen.action) == (None, "")


def seen(key: str, content: str, status: int | None = 200, method: str = "PUT") -> Seen:
    return Seen(
        number=1, method=method, key=key, query="", sha256=content, status=status, action=""
    )


def test_a_committed_object_that_is_written_anew_is_found_out() -> None:
    key = "job/out/commits/00000/00000001/000001-000000.json"
    assert overwritten([seen(key, "one"), seen(key, "two")]) == [
        f"{key} was written twice, with other content"
    ]
    assert overwritten([seen(key, "one"), seen(key, "one")]) == []
    assert overwritten([seen(key, "one"), seen(key, "two", 412), seen(key, "two", None)]) == []
    assert overwritten([seen(key, "one"), seen(key, "two", method="GET")]) == []


@pytest.mark.parametrize(
    "key",
    [
        "workers/w.json",
        "drivers/000001.json",
        "ledger/workers.parquet",
        "costs/000000.parquet",
        "manifest.json",
    ],
)
def test_what_is_derived_may_be_written_anew(key: str) -> None:
    assert overwritten([seen(f"job/out/{key}", "one"), seen(f"job/out/{key}", "two")]) == []


def test_an_image_that_two_epochs_uploaded_was_made_again() -> None:
    one, two = "job/out/images/00000000-000001/", "job/out/images/00000000-000002/"
    twice = [seen(f"{folder}000000003-0_cat.png", "x") for folder in (one, two, two)]
    other = [seen(f"{one}000000004-0.png", "x"), seen(f"{two}000000005-0.png", "x", 503)]
    assert made_again([*twice, *other]) == 1
