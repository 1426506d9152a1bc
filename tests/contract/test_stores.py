"""What every store must do: the same suite over a local folder, memory and S3."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from cluster.names import Names
from cluster.store import Entry, Store
from cluster.store_access import Access
from cluster.traffic import Requests
from conf.errors import CommitConflict, ConfigError, CorruptOutput, StoreRefused
from tests.stores import ONCE, walk


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh root."""
    if request.param == "s3":
        yield request.getfixturevalue("s3_url")
        return
    if request.param == "local":
        yield str(tmp_path / "out")
        return
    root = f"/contract-{secrets.token_hex(4)}"
    yield f"memory:/{root}"
    fs = fsspec.filesystem("memory")
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture
def store(url: str) -> Store:
    return Store(url, ONCE)


def fill(store: Store, *keys: str) -> None:
    for key in keys:
        store.put_if_absent(key, key.encode())


def test_what_was_put_is_got(store: Store) -> None:
    store.put_if_absent("a/b/c.bin", b"\x00\xff")
    assert store.get("a/b/c.bin") == b"\x00\xff"
    assert store.exists("a/b/c.bin")
    with store.open("a/b/c.bin") as file:
        file.seek(1)
        assert file.read() == b"\xff"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put_if_absent("empty", b"")
    assert store.get("empty") == b""
    assert store.exists("empty")
    assert store.listing("") == [Entry(key="empty", bytes=0)]


def test_a_missing_object_is_none_and_a_folder_is_no_object(store: Store) -> None:
    fill(store, "folder/x")
    assert store.get("nowhere") is None
    assert store.get("folder/x/below") is None
    assert not store.exists("nowhere")
    assert not store.exists("folder")


def test_the_same_bytes_again_are_no_error(store: Store) -> None:
    store.put_if_absent("key", b"one")
    store.put_if_absent("key", b"one")
    assert store.get("key") == b"one"


def test_other_bytes_are_a_conflict_and_change_nothing(store: Store) -> None:
    store.put_if_absent("key", b"one")
    with pytest.raises(CommitConflict, match=r"key exists with other content$"):
        store.put_if_absent("key", b"two")
    assert store.get("key") == b"one"


def test_put_replaces(store: Store) -> None:
    store.put("report.html", b"one")
    store.put("report.html", b"two")
    assert store.get("report.html") == b"two"


def test_a_listing_has_keys_in_order_sizes_and_no_folders(store: Store) -> None:
    fill(store, "a/10", "a/2", "a/1", "a/deep/x", "ab/y", "b")
    assert (
        store.listing("a/")
        == store.listing("a")
        == [
            Entry(key="a/1", bytes=3),
            Entry(key="a/10", bytes=4),
            Entry(key="a/2", bytes=3),
        ]
    )
    assert [entry.key for entry in store.listing("")] == ["b"]
    assert store.listing("nowhere/") == []


def test_folders_are_listed_by_name(store: Store) -> None:
    fill(store, "w/b/1", "w/a/1", "w/a/2", "w/file")
    assert store.folders("w/") == ["a", "b"]
    assert store.folders("nowhere/") == []


def test_walk_finds_everything_below_and_nothing_beside(store: Store) -> None:
    fill(store, "a/1", "a/b/2", "a/b/c/3", "ab/4", "5")
    assert [entry.key for entry in walk(store, "a/")] == ["a/1", "a/b/2", "a/b/c/3"]
    assert {e.key for e in walk(store, "") if not e.key.startswith(".")} == {
        "5",
        "a/1",
        "a/b/2",
        "a/b/c/3",
        "ab/4",
    }


def test_a_listing_sees_a_write_that_just_landed(store: Store) -> None:
    for number in range(5):
        fill(store, f"n/{number}")
        assert len(store.listing("n/")) == number + 1


def test_delete_removes_and_a_second_delete_is_no_error(store: Store) -> None:
    fill(store, "a/x")
    store.delete("a/x")
    store.delete("a/x")
    store.delete("never/was")
    assert store.get("a/x") is None


def test_a_probe_passes_and_leaves_nothing(store: Store) -> None:
    store.probe()
    assert [e.key for e in walk(store, "") if not e.key.startswith(".tmp")] == []


def test_keys_may_hold_spaces_and_letters_of_any_script(store: Store) -> None:
    key = "images/ein Bild 图像 #1?.png"
    store.put_if_absent(key, b"x")
    assert store.get(key) == b"x"
    assert [entry.key for entry in store.listing("images/")] == [key]


def test_a_second_store_sees_at_once_what_the_first_one_wrote(url: str) -> None:
    first, second = Store(url, ONCE), Store(url, ONCE)
    for turn in range(3):
        assert len(second.listing("n/")) == turn
        assert not second.exists(f"n/{turn}")
        assert second.get(f"n/{turn}") is None
        first.put_if_absent(f"n/{turn}", b"x")
        first.put_if_absent(f"n/folder-{turn}/x", b"x")
        assert second.exists(f"n/{turn}")
        assert second.folders("n/") == [f"folder-{n}" for n in range(turn + 1)]
    first.delete("n/0")
    assert [entry.key for entry in second.listing("n/")] == ["n/1", "n/2"]


def test_sixteen_writers_of_one_key_have_one_winner(url: str) -> None:
    stores = [Store(url, Access(patience_s=60)) for _ in range(4)]
    for turn in range(2):
        won: list[int] = []
        lost: list[int] = []
        at_once(16, lambda n, k=f"k/{turn}", w=won, x=lost: contend(stores[n % 4], k, n, w, x))
        assert len(won) == 1
        assert len(lost) == 15
        assert stores[0].get(f"k/{turn}") == str(won[0]).encode()


def contend(store: Store, key: str, number: int, won: list[int], lost: list[int]) -> None:
    try:
        store.put_if_absent(key, str(number).encode())
        won.append(number)
    except CommitConflict:
        lost.append(number)


def at_once(count: int, one: Callable[[int], None]) -> None:
    """Run ``one(n)`` for each n below ``count``, all in the same moment."""
    gate = threading.Barrier(count)

    def wait_and_run(number: int) -> None:
        gate.wait()
        one(number)

    threads = [threading.Thread(target=wait_and_run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_large_object_is_put_once_and_read_back_in_place(store: Store) -> None:
    large = secrets.token_bytes(2**20) * 20
    store.put_if_absent("large.bin", large)
    store.put_if_absent("large.bin", large)
    with pytest.raises(CommitConflict):
        store.put_if_absent("large.bin", large[:-1] + bytes([large[-1] ^ 1]))
    assert store.listing("") == [Entry(key="large.bin", bytes=len(large))]
    assert store.get("large.bin") == large
    with store.open("large.bin") as file:
        file.seek(-5_000_000, 2)
        assert file.read() == large[-5_000_000:]
        file.seek(17)
        assert file.read(3) == large[17:20]
        assert file.tell() == 20


def test_an_object_that_is_not_there_cannot_be_opened(store: Store) -> None:
    with pytest.raises(CorruptOutput, match=r"nowhere/at-all is missing$"):
        store.open("nowhere/at-all")


def test_a_listing_of_more_than_a_page_is_whole(store: Store) -> None:
    names = [f"{number:04}" for number in range(1100)]
    at_once(8, lambda n: fill(store, *(f"many/{name}" for name in names[n::8])))
    assert [entry.key for entry in store.listing("many")] == [f"many/{name}" for name in names]


def test_a_listing_of_some_names_holds_these_alone(store: Store) -> None:
    """More objects and folders than a page lie before, between and behind them."""
    keys = [f"many/{number:04}{end}" for number in range(1100) for end in ("", "-1/x")]
    at_once(8, lambda n: fill(store, *keys[n::8]))
    names = Names(after="0499-9", before="0503", wanted=lambda name: not name.startswith("0501"))
    entries, folders = store.inside("many/", names)
    assert entries == [Entry(key=key, bytes=9) for key in ("many/0500", "many/0502")]
    assert folders == ["0500-1", "0502-1"]
    rest = Names(after="1098", before="2", wanted=lambda name: "-" in name)
    assert store.inside("many", rest) == ([], ["1098-1", "1099-1"])


def test_a_bucket_is_not_asked_for_the_pages_before_and_behind_the_names(s3_url: str) -> None:
    store = Store(s3_url, ONCE)
    names = [f"{number:04}" for number in range(2100)]
    at_once(8, lambda n: fill(store, *(f"many/{name}" for name in names[n::8])))
    asked: list[str] = []
    fs = store._objects._fs  # type: ignore[union-attr]
    fs.s3.meta.events.register("before-call.s3.ListObjectsV2", lambda **_: asked.append("page"))
    few = Names(after="1049", before="1052", wanted=lambda name: True)
    assert [entry.key for entry in store.inside("many", few)[0]] == ["many/1050", "many/1051"]
    assert len(asked) == 1


def test_a_store_with_another_patience_holds_the_same_objects(store: Store) -> None:
    store.with_patience(5).put_if_absent("key", b"one")
    assert store.get("key") == b"one"


def test_an_unknown_kind_of_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"^cannot use 'gopher://x' as a store: "):
        Store("gopher://x")


def test_a_store_that_overwrites_is_refused_with_the_reason() -> None:
    class Careless(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            self.put(key, data)

    with pytest.raises(StoreRefused, match="overwrote an existing object although asked not to"):
        Careless("memory://careless", ONCE).probe()


def test_requests_are_counted_where_a_store_charges_for_them(store: Store) -> None:
    hasty = store.with_patience(0)
    hasty.put_if_absent("a", b"12345")
    store.put("b", b"1")
    assert store.get("a") == b"12345"
    assert not store.exists("c")
    store.listing("")
    store.delete("b")
    charged = Requests(writes=3, reads=2, read_bytes=5)
    assert store.traffic.now == (charged if store.local_root is None else Requests())


def test_a_request_that_is_tried_again_counts_again(store: Store) -> None:
    tries = []

    def read() -> bytes:
        tries.append(1)
        if len(tries) < 3:
            raise TimeoutError
        return b"x"

    patient = store.with_patience(30)
    assert patient._retrying("read", "a", read) == b"x"
    assert store.traffic.now.reads == (3 if store.local_root is None else 0)
