"""What local folders do beyond what every store does."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import local_files
from cluster.store import Store
from conf.errors import CommitConflict, StoreFull, StoreRefused
from tests.stores import ONCE

Disk = Callable[[str], Path]


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"), ONCE)


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
    local.put_if_absent("a", b"a")
    local.put("a2", b"x")
    with pytest.raises(CommitConflict):
        local.put_if_absent("a", b"other")
    assert list((tmp_path / "out" / ".tmp").iterdir()) == []


def test_an_output_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreRefused, match=rf"^cannot write.*{path}"):
            Store(str(path), ONCE).probe()
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_file_system_that_takes_no_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match=r"^cannot write.*/proc/imagemill"):
        Store("/proc/imagemill", ONCE).probe()


def test_a_full_disk_is_store_full_and_keeps_what_was_there(disk: Disk) -> None:
    small_disk = disk("size=256k")
    store = Store(str(small_disk))
    store.put_if_absent("first", b"kept")
    with pytest.raises(StoreFull, match=r"^cannot write .*/second: No space left on device$"):
        store.put_if_absent("second", b"x" * 1_000_000)
    assert store.get("second") is None
    assert store.get("first") == b"kept"
    assert list((small_disk / ".tmp").iterdir()) == []
    store.put_if_absent("third", b"fits again")


def test_a_probe_of_a_full_disk_says_that_it_is_full(disk: Disk) -> None:
    small_disk = disk("size=256k")
    (small_disk / "ballast").write_bytes(b"x" * (256 * 1024 - 4096))
    (small_disk / "more").write_bytes(b"x" * 4096) if os.statvfs(small_disk).f_bavail else None
    with pytest.raises(StoreRefused, match=r"^output\.path .* is full: cannot write"):
        Store(str(small_disk), ONCE).probe()


def test_a_read_only_disk_is_refused(disk: Disk) -> None:
    folder = disk("ro,size=64k")
    with pytest.raises(StoreRefused, match="Read-only file system"):
        Store(str(folder), ONCE).probe()


@pytest.mark.parametrize("passing", [errno.EIO, errno.ESTALE, errno.EAGAIN])
@pytest.mark.parametrize("call", ["link", "replace", "fsync"])
def test_a_local_write_that_fails_in_passing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, passing: int
) -> None:
    store = Store(str(tmp_path / "out"))
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


@pytest.mark.parametrize(
    ("lasting", "expected"),
    [(errno.ENOSPC, StoreFull), (errno.EACCES, StoreRefused), (errno.EROFS, StoreRefused)],
)
def test_a_local_write_that_cannot_succeed_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: int, expected: type[Exception]
) -> None:
    store = Store(str(tmp_path))
    tries: list[object] = []

    def refused(*arguments: object) -> object:
        tries.append(arguments)
        raise OSError(lasting, os.strerror(lasting))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(expected):
        store.put_if_absent("key", b"one")
    assert len(tries) == 1


def test_a_taken_local_key_is_found_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
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
    monkeypatch.setattr(local_files, "_sync_folder", synced.append)
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
    store = Store(str(tmp_path), ONCE)
    store.put_if_absent("a/key", b"one")
    assert store.get("a/key") == b"one"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, who may write everywhere."""
    before = os.geteuid()
    if before:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_folder_without_the_right_to_write_is_told_without_writing() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder, hidden = Path(made) / "folder", Path(made) / "hidden"
        for place, mode in ((Path(made), 0o755), (folder, 0o555), (hidden, 0o000)):
            place.mkdir(exist_ok=True)
            place.chmod(mode)
        for place in (folder / "a" / "b", folder, hidden / "x"):
            where = hidden if place.parent == hidden else folder
            store = Store(str(place), ONCE)
            said = f"this user may not write in {where}; choose another output.path"
            with as_nobody(), pytest.raises(StoreRefused, match=said):
                store.refuse_unwritable()
        folder.chmod(0o777)
        with as_nobody():
            Store(str(folder / "a"), ONCE).refuse_unwritable()
        assert list(folder.iterdir()) == []
        hidden.chmod(0o700)
