"""What S3 does beyond what every store does: keys, buckets, endpoints, parts, restarts."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster import s3_objects
from cluster.s3_objects import S3Objects
from cluster.s3_parts import PART_BYTES
from cluster.store import Store
from cluster.store_access import Access
from conf.errors import (
    CommitConflict,
    ConfigError,
    ImageMillError,
    StoreRefused,
    StoreUnavailable,
)
from tests.seaweedfs import FULL, READ_ONLY, UNKNOWN_KEY, WRONG_SECRET, Identity, SeaweedFS
from tests.stores import ONCE

LARGE = PART_BYTES + 1


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of ``LARGE`` bytes go in two parts."""
    monkeypatch.setattr(s3_objects, "LARGEST_PUT_BYTES", PART_BYTES)


def become(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret_key)


def refusals(url: str, access: Access = ONCE) -> dict[str, str]:
    """What each way to touch a store says when it is refused."""
    store = Store(url, access)
    said = {}
    for name, touch in (
        ("get", lambda: store.get("job.json")),
        ("listing", lambda: store.listing("")),
        ("probe", store.probe),
    ):
        try:
            touch()
        except StoreRefused as error:
            said[name] = str(error)
    return said


def test_a_wrong_secret_is_told(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(WRONG_SECRET, monkeypatch)
    said = refusals(s3_url)
    assert set(said) == {"get", "listing", "probe"}
    for message in said.values():
        assert "the secret key does not belong to the access key; check AWS_" in message
        assert WRONG_SECRET.secret_key not in message
        assert WRONG_SECRET.access_key not in message
    assert said["get"].startswith(f"cannot read {s3_url}/job.json: ")
    assert said["probe"].startswith("cannot write ")


def test_an_unknown_access_key_is_told(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(UNKNOWN_KEY, monkeypatch)
    said = refusals(s3_url)
    assert set(said) == {"get", "listing", "probe"}
    for message in said.values():
        assert "the store does not know the access key; check AWS_ACCESS_KEY_ID" in message


def test_a_key_that_may_only_read_is_told_by_the_probe(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(s3_url, ONCE).put_if_absent("key", b"one")
    become(READ_ONLY, monkeypatch)
    assert Store(s3_url, ONCE).get("key") == b"one"
    said = refusals(s3_url)
    assert set(said) == {"probe"}
    assert (
        "these credentials may not write there; allow them the actions s3:PutObject"
        in (said["probe"])
    )


def test_a_missing_bucket_is_told_and_is_no_missing_key(s3_url: str) -> None:
    said = refusals("s3://no-such-bucket/out")
    assert set(said) == {"get", "listing", "probe"}
    for message in said.values():
        assert "the bucket does not exist; create it, or correct the path" in message


def test_an_unreachable_endpoint_is_told_and_is_no_missing_key(s3_url: str) -> None:
    access = Access(endpoint_url="http://127.0.0.1:9", patience_s=0)
    store = Store(s3_url, access)
    for ask in (store.get, store.exists, store.listing, store.open, store.folders):
        with pytest.raises(StoreUnavailable, match="the store cannot be reached") as caught:
            ask("key")
        assert "storage.endpoint_url" in str(caught.value)
    with pytest.raises(StoreRefused, match=r"^cannot write to output\.path .* cannot be reached"):
        store.probe()


def test_no_credentials_at_all_are_told(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    said = refusals(s3_url)
    assert set(said) == {"get", "listing", "probe"}
    for message in said.values():
        assert "no credentials were found; set AWS_ACCESS_KEY_ID and" in message


def test_a_profile_gives_the_keys_and_an_unknown_one_is_told(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(
        f"[mill]\naws_access_key_id={FULL.access_key}\naws_secret_access_key={FULL.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    Store(s3_url, Access(profile="mill", patience_s=0)).probe()
    with pytest.raises(ConfigError, match=r"storage\.profile or AWS_PROFILE names no profile"):
        Store(s3_url, Access(profile="mil", patience_s=0))


def test_the_endpoint_may_come_from_the_configuration(
    s3_url: str, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    access = Access(endpoint_url=seaweedfs.endpoint_url, region="eu-west-1", patience_s=0)
    Store(s3_url, access).probe()


@pytest.mark.parametrize("endpoint", ["127.0.0.1", "https://"])
def test_an_endpoint_that_is_no_url_is_told(s3_url: str, endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"^cannot use .* as a store: Invalid endpoint: "):
        Store(s3_url, Access(endpoint_url=endpoint, patience_s=0))


def test_credentials_in_an_s3_url_are_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match=r"^s3://…@bucket/x carries credentials") as caught:
        Store("s3://key:hunter2@bucket/x", ONCE)
    assert "hunter2" not in str(caught.value)


def test_keys_for_s3_are_refused_for_other_stores() -> None:
    with pytest.raises(ConfigError, match=r"^storage\.profile is for S3 alone, but the path is "):
        Store("memory://x", Access(profile="mill"))


def uploads_begun(store: Store) -> list[Any]:
    objects = store._objects
    assert isinstance(objects, S3Objects)
    answer = objects._call("list_multipart_uploads", Bucket="images")
    return [upload["Key"] for upload in answer.get("Uploads", [])]


@pytest.mark.usefixtures("parts")
def test_an_object_in_parts_is_put_once_and_leaves_no_parts(s3_url: str) -> None:
    store, mine = Store(s3_url, ONCE), s3_url.removeprefix("s3://images/")
    store.put_if_absent("large", b"a" * LARGE)
    store.put_if_absent("large", b"a" * LARGE)
    with pytest.raises(CommitConflict, match="large exists with other content"):
        store.put_if_absent("large", b"b" * LARGE)
    assert store.get("large") == b"a" * LARGE
    store.put("large", b"b" * LARGE)
    assert store.get("large") == b"b" * LARGE
    assert [key for key in uploads_begun(store) if key.startswith(mine)] == []


@pytest.mark.usefixtures("parts")
def test_parts_that_could_not_be_taken_back_are_when_the_store_answers_again(s3_url: str) -> None:
    store = Store(s3_url, ONCE)
    fs = store._objects._fs  # type: ignore[union-attr]
    real, broken = fs.call_s3, threading.Event()

    def network(operation: str, **arguments: Any) -> Any:
        if broken.is_set() or operation == "complete_multipart_upload":
            broken.set()
            raise TimeoutError("no answer")
        return real(operation, **arguments)

    fs.call_s3 = network
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("large", b"a" * LARGE)
    fs.call_s3 = real
    mine = s3_url.removeprefix("s3://images/")
    assert [key for key in uploads_begun(store) if key.startswith(mine)] == [f"{mine}/large"]
    store.put_if_absent("large", b"a" * LARGE)
    assert [key for key in uploads_begun(store) if key.startswith(mine)] == []
    assert store.get("large") == b"a" * LARGE


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("size", [3, LARGE])
def test_a_reply_that_was_lost_after_the_write_landed_is_settled_by_reading(
    s3_url: str, size: int
) -> None:
    store = Store(s3_url, Access(patience_s=60))
    objects, data = store._objects, secrets.token_bytes(size)
    real, replies = objects.create, iter([TimeoutError("the reply was lost")])

    def lossy(path: str, body: bytes) -> None:
        real(path, body)
        for lost in replies:
            raise lost

    objects.create = lossy  # type: ignore[method-assign]
    store.put_if_absent("key", data)
    assert next(replies, None) is None
    assert store.get("key") == data


@pytest.mark.usefixtures("parts")
def test_writes_and_open_files_outlive_a_killed_and_restarted_server(
    tmp_path: Path,
) -> None:
    with SeaweedFS(tmp_path) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        store = Store("s3://images/out", Access(patience_s=120))
        bodies = {f"k{n}": secrets.token_bytes(LARGE if n == 0 else 50_000) for n in range(40)}
        failures: list[ImageMillError] = []
        half = threading.Event()

        def write() -> None:
            for number, (key, body) in enumerate(bodies.items()):
                try:
                    store.put_if_absent(key, body)
                except ImageMillError as error:
                    failures.append(error)
                if number == 20:
                    half.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert half.wait(60)
        with store.open("k0") as file:
            start = file.read(10)
            server.restart()
            assert start + file.read() == bodies["k0"]
        writer.join()
        assert failures == []
        assert {key: store.get(key) for key in bodies} == bodies


def test_a_frozen_server_is_waited_for(tmp_path: Path) -> None:
    with SeaweedFS(tmp_path) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        store = Store("s3://images/out", ONCE)
        store.put_if_absent("key", b"one")
        server.pause()
        with pytest.raises(StoreUnavailable, match=r"cannot read .*/key: .*[Tt]imeout"):
            store.get("key")
        server.go_on()
        assert store.with_patience(60).get("key") == b"one"
