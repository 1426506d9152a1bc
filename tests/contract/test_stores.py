"""What every store must do, and what local folders do beyond it."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cluster import store as store_module
from cluster.store import Entry, Store
from conf.errors import (
    CommitConflict,
    CommitUnknown,
    ConfigError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield Store(str(tmp_path / "out"), attempts=1)
        return
    root = f"/contract-{secrets.token_hex(4)}"
    yield Store(f"memory:/{root}", attempts=1)
    fs = fsspec.filesystem("memory")
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"), attempts=1)


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
    assert [entry.key for entry in store.walk("a/")] == ["a/1", "a/b/2", "a/b/c/3"]
    assert {e.key for e in store.walk("") if not e.key.startswith(".")} == {
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
    assert [e.key for e in store.walk("") if not e.key.startswith(".tmp")] == []


def test_keys_may_hold_spaces_and_letters_of_any_script(store: Store) -> None:
    key = "images/ein Bild 图像 #1?.png"
    store.put_if_absent(key, b"x")
    assert store.get(key) == b"x"
    assert [entry.key for entry in store.listing("images/")] == [key]


def race(count: int, one: object) -> None:
    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_sixteen_writers_of_one_key_have_one_winner(local: Store) -> None:
    for turn in range(20):
        gate = threading.Barrier(16)
        won: list[int] = []
        lost: list[int] = []

        def write(
            number: int, key: str, gate: threading.Barrier, won: list[int], lost: list[int]
        ) -> None:
            gate.wait()
            try:
                local.put_if_absent(key, str(number).encode())
                won.append(number)
            except CommitConflict:
                lost.append(number)

        race(16, lambda n, k=f"k/{turn}", g=gate, w=won, x=lost: write(n, k, g, w, x))
        assert len(won) == 1
        assert len(lost) == 15
        assert local.get(f"k/{turn}") == str(won[0]).encode()


def test_a_reader_never_sees_a_part(local: Store) -> None:
    whole = os.urandom(2_000_000)
    ready, stop = threading.Barrier(2), threading.Event()
    seen: list[int] = []

    def read() -> None:
        ready.wait()
        while not stop.is_set():
            for number in range(5):
                data = local.get(f"big/{number}")
                if data is not None:
                    seen.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    ready.wait()
    for number in range(5):
        local.put_if_absent(f"big/{number}", whole)
    stop.set()
    reader.join()
    assert set(seen) <= {len(whole)}


def test_writers_leave_no_scratch_files(local: Store, tmp_path: Path) -> None:
    fill(local, "a", "b")
    local.put("a2", b"x")
    with pytest.raises(CommitConflict):
        local.put_if_absent("a", b"other")
    assert list((tmp_path / "out" / ".tmp").iterdir()) == []


def test_an_output_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreRefused, match=rf"^cannot write.*{path}"):
            Store(str(path), attempts=1).probe()
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_file_system_that_takes_no_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match=r"^cannot write.*/proc/imagemill"):
        Store("/proc/imagemill", attempts=1).probe()


def test_a_store_that_overwrites_is_refused_with_the_reason() -> None:
    class Careless(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            self.put(key, data)

    with pytest.raises(StoreRefused, match="overwrote an existing object although asked not to"):
        Careless("memory://careless", attempts=1).probe()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let the test mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_store_full_and_keeps_what_was_there(small_disk: Path) -> None:
    store = Store(str(small_disk), attempts=3)
    store.put_if_absent("first", b"kept")
    with pytest.raises(StoreFull, match=r"^cannot write .*/second: No space left on device$"):
        store.put_if_absent("second", b"x" * 1_000_000)
    assert store.get("second") is None
    assert store.get("first") == b"kept"
    assert list((small_disk / ".tmp").iterdir()) == []
    store.put_if_absent("third", b"fits again")


def test_a_probe_of_a_full_disk_says_that_it_is_full(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * (256 * 1024 - 4096))
    (small_disk / "more").write_bytes(b"x" * 4096) if os.statvfs(small_disk).f_bavail else None
    with pytest.raises(StoreRefused, match=r"^output\.path .* is full: cannot write"):
        Store(str(small_disk), attempts=1).probe()


def test_a_read_only_disk_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let the test mount a read-only disk")
    try:
        with pytest.raises(StoreRefused, match="Read-only file system"):
            Store(str(folder), attempts=1).probe()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_an_unknown_kind_of_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"^cannot use 'gopher://x' as a store: "):
        Store("gopher://x")


class Failing(Store):
    """A remote store whose creating write fails as ``fail`` says, before or after it landed."""

    fail = errno.ETIMEDOUT
    lands = False
    readable = True

    def __init__(self) -> None:
        super().__init__(f"memory://failing-{secrets.token_hex(4)}", attempts=2)
        owner, fs = self, self._fs

        class Fs:
            """The file system with a network in front of it."""

            def __getattr__(self, name: str) -> object:
                return getattr(fs, name)

            def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
                if owner.lands:
                    fs.pipe_file(path, data, mode=mode)
                raise OSError(owner.fail, os.strerror(owner.fail))

            def cat_file(self, path: str) -> bytes:
                if not owner.readable:
                    raise OSError(errno.ETIMEDOUT, "no answer")
                data: bytes = fs.cat_file(path)
                return data

        self._fs = Fs()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    monkeypatch.setattr(store_module, "_FIRST_PAUSE_S", 0.0)
    return Failing()


def test_a_write_that_landed_and_lost_its_reply_succeeds(failing: Failing) -> None:
    failing.lands = True
    failing.put_if_absent("key", b"one")
    assert failing.get("key") == b"one"


def test_a_write_that_was_not_seen_to_land_is_store_unavailable(failing: Failing) -> None:
    with pytest.raises(StoreUnavailable, match="key: Connection timed out"):
        failing.put_if_absent("key", b"one")
    assert failing.get("key") is None


def test_a_write_that_nobody_can_tell_about_is_commit_unknown(failing: Failing) -> None:
    failing.lands, failing.readable = True, False
    with pytest.raises(CommitUnknown, match="key: the write may have landed"):
        failing.put_if_absent("key", b"one")


def test_a_refused_write_whose_holder_cannot_be_read_is_a_conflict(failing: Failing) -> None:
    failing.fail, failing.readable = errno.EEXIST, False
    with pytest.raises(CommitConflict, match="key exists; its content could not be read"):
        failing.put_if_absent("key", b"one")


def test_a_remote_store_that_is_full_is_store_full(failing: Failing) -> None:
    failing.fail = errno.EDQUOT
    with pytest.raises(StoreFull, match=r"^cannot write .*key: Disk quota exceeded"):
        failing.put_if_absent("key", b"one")


def test_a_read_that_gets_no_answer_is_store_unavailable(failing: Failing) -> None:
    failing.readable = False
    with pytest.raises(StoreUnavailable, match="no answer"):
        failing.get("key")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_FIRST_PAUSE_S", 0.0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("passing", [errno.EIO, errno.ESTALE, errno.EAGAIN])
@pytest.mark.parametrize("call", ["link", "replace", "fsync"])
def test_a_local_write_that_fails_in_passing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, passing: int
) -> None:
    store = Store(str(tmp_path / "out"), attempts=3)
    real, fails = getattr(os, call), iter([True, True])

    def flaky(*arguments: object) -> object:
        if next(fails, False):
            raise OSError(passing, os.strerror(passing))
        return real(*arguments)

    monkeypatch.setattr(os, call, flaky)
    put = store.put if call == "replace" else store.put_if_absent
    put("folder/key", b"one")
    assert next(fails, None) is None
    assert store.get("folder/key") == b"one"
    assert list((tmp_path / "out" / ".tmp").iterdir()) == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("lasting", "expected"),
    [(errno.ENOSPC, StoreFull), (errno.EACCES, StoreRefused), (errno.EROFS, StoreRefused)],
)
def test_a_local_write_that_cannot_succeed_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: int, expected: type[Exception]
) -> None:
    store = Store(str(tmp_path), attempts=3)
    tries: list[object] = []

    def refused(*arguments: object) -> object:
        tries.append(arguments)
        raise OSError(lasting, os.strerror(lasting))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(expected):
        store.put_if_absent("key", b"one")
    assert len(tries) == 1


@pytest.mark.usefixtures("quick")
def test_a_taken_local_key_is_found_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path), attempts=3)
    store.put_if_absent("key", b"one")
    tries: list[object] = []
    real = os.link

    def counted(*arguments: object) -> None:
        tries.append(arguments)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", counted)
    with pytest.raises(CommitConflict):
        store.put_if_absent("key", b"two")
    assert len(tries) == 1


@pytest.mark.parametrize("verb", ["put", "put_if_absent"])
def test_new_local_names_are_made_to_last_in_every_folder_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(store_module, "_sync_folder", synced.append)
    getattr(Store(str(tmp_path / "out")), verb)("a/b/key", b"one")
    assert synced == [tmp_path, tmp_path / "out", tmp_path / "out/a", tmp_path / "out/a/b"]


def test_a_file_system_that_cannot_sync_folders_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    store = Store(str(tmp_path), attempts=1)
    store.put_if_absent("a/key", b"one")
    assert store.get("a/key") == b"one"
