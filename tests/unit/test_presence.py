"""A driver shows that it lives and hears that it has to stop; another sees whether it lives."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.driver_mark import DriverMark, read_mark, write_mark
from cluster.job_log import ask_cancel, write_run_end
from cluster.records import RunRecord
from cluster.store import Store
from conf.errors import OutputTaken
from jobs import presence as presence_module
from jobs.company import refuse_company
from jobs.presence import Presence
from tests.small_jobs import begin_run, begin_run_after, small_config
from tests.stores import ONCE

OFTEN_S = 0.02
PATIENCE_S = 20.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "output"), ONCE)


def begun(store: Store) -> RunRecord:
    return begin_run(store)


def present(tmp_path: Path, record: RunRecord) -> Presence:
    return Presence(small_config(tmp_path), record, every_s=OFTEN_S)


def comes(what: Callable[[], object]) -> bool:
    """Whether it becomes true; another thread sees to that."""
    never = threading.Event()
    for _ in range(int(PATIENCE_S / OFTEN_S)):
        if what():
            return True
        never.wait(OFTEN_S)
    return False


def endless(folder: Path) -> None:
    """Whoever reads or writes there is told of too many links: an error that may pass."""
    folder.symlink_to(folder.name)


def cut_off(folder: Path) -> bool:
    """Make a folder endless in the place of the real one; false: the driver has just made it."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}-{secrets.token_hex(4)}"))
    with suppress(FileExistsError):
        endless(folder)
    return folder.is_symlink()


def test_a_mark_changes_while_the_driver_lives_and_says_who_it_is(
    store: Store, tmp_path: Path
) -> None:
    record = begun(store)
    with present(tmp_path, record):
        assert comes(lambda: read_mark(store, 1))
        first = read_mark(store, 1)
        assert first is not None
        assert comes(lambda: (read_mark(store, 1) or first).seq > first.seq)
    last = read_mark(store, 1)
    assert last is not None
    assert (last.run, last.pid, last.since) == (1, os.getpid(), record.started_at)


def test_a_driver_hears_that_it_was_cancelled_although_it_cannot_show_that_it_lives(
    store: Store, tmp_path: Path
) -> None:
    record = begun(store)
    endless(tmp_path / "output" / "drivers")
    with present(tmp_path, record) as presence:
        assert presence.stop_reason() is None
        ask_cancel(store, record.run)
        assert comes(presence.stop_reason)
        assert presence.stop_reason() == "cancelled"


def test_a_driver_hears_that_a_later_run_has_begun(store: Store, tmp_path: Path) -> None:
    with present(tmp_path, begun(store)) as presence:
        begun(store)
        assert comes(presence.stop_reason)
        assert presence.stop_reason() == "run 2 has taken over"


def test_a_store_that_does_not_answer_stops_no_run_and_is_asked_again(
    store: Store, tmp_path: Path
) -> None:
    record = begun(store)
    endless(tmp_path / "output" / "cancels")
    with present(tmp_path, record) as presence:
        assert comes(lambda: (mark := read_mark(store, 1)) and mark.seq >= 3)
        assert presence.stop_reason() is None
        (tmp_path / "output" / "cancels").unlink()
        ask_cancel(store, record.run)
        assert comes(presence.stop_reason)


def test_a_store_that_is_away_is_told_once_and_so_is_its_return(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence_module, "_SILENCE_S", 0.1)
    caplog.set_level(logging.INFO, "imagemill")
    record = begun(store)
    folders = [tmp_path / "output" / name for name in ("runs", "drivers", "cancels")]
    with present(tmp_path, record):
        assert comes(lambda: read_mark(store, 1))
        for folder in folders:
            assert comes(lambda folder=folder: cut_off(folder))
        assert comes(lambda: "the store has not answered for" in caplog.text)
        for folder in folders:
            folder.unlink()
        assert comes(lambda: "the store answers again" in caplog.text)
    assert caplog.text.count("the store has not answered for") == 1
    assert "the run goes on once it does, within storage.patience_s=" in caplog.text


def test_an_output_is_refused_while_its_driver_shows_that_it_lives(
    store: Store, tmp_path: Path
) -> None:
    with present(tmp_path, begun(store)), pytest.raises(OutputTaken) as raised:
        refuse_company(store, watch_s=PATIENCE_S)
    assert str(raised.value).startswith(f"run 1 is at work on {store.url} since 20")
    assert f"as process {os.getpid()}; nothing was started; wait for its end" in str(raised.value)


def test_an_output_whose_driver_shows_nothing_is_free_as_one_that_ended_is(store: Store) -> None:
    refuse_company(store, watch_s=0.05)
    record = begun(store)
    write_mark(store, DriverMark(run=1, seq=7, host="gone", pid=1, since=record.started_at))
    refuse_company(store, watch_s=0.05)
    write_run_end(store, 1, "interrupted")
    refuse_company(store, watch_s=1e9)


def test_of_two_drivers_that_begin_the_same_run_one_is_refused(store: Store) -> None:
    """Both watched the dead one before them, and found it dead."""
    begun(store)
    after = [refuse_company(store, watch_s=0.05) for _ in range(2)]
    assert after == [1, 1]
    assert begin_run_after(store, after[0]).run == 2
    with pytest.raises(OutputTaken, match=r"^run 2 has begun on .* nothing was started;"):
        begin_run_after(store, after[1])


def test_a_mark_that_cannot_be_read_is_none(store: Store) -> None:
    assert read_mark(store, 1) is None
    store.put("drivers/000001.json", b'{"run": 1')
    assert read_mark(store, 1) is None
    store.put("drivers/000001.json", b'{"run": 1}')
    assert read_mark(store, 1) is None
