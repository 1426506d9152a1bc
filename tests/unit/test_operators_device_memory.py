"""Whether a larger batch fits is told from what the process took and what is free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from operators import device_memory
from operators.device import HostDevice
from operators.device_memory import Headroom


def container(folder: Path, *, limit: str, used: int) -> Path:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used))
    return folder


def test_a_small_growth_may_double_on_a_machine_with_room():
    assert Headroom(HostDevice()).may_double()


def test_what_came_on_top_of_the_model_must_fit_once_more(tmp_path, monkeypatch):
    headroom = Headroom(HostDevice())
    grown = np.ones(96 << 20, dtype=np.uint8)
    used = 1 << 30
    group = container(tmp_path, limit=str(used + (300 << 20)), used=used)
    monkeypatch.setattr(device_memory, "_GROUP", group)
    assert headroom.may_double()
    container(tmp_path, limit=str(used + (50 << 20)), used=used)
    assert not headroom.may_double()
    assert grown.any()


@pytest.mark.parametrize("limit", ["max", "unreadable"])
def test_a_container_without_a_limit_leaves_it_to_the_machine(tmp_path, monkeypatch, limit):
    group = container(tmp_path, limit=limit, used=1)
    monkeypatch.setattr(device_memory, "_GROUP", group)
    assert Headroom(HostDevice()).may_double()


def test_a_machine_that_tells_nothing_is_not_filled_up(tmp_path, monkeypatch):
    headroom = Headroom(HostDevice())
    grown = np.ones(64 << 20, dtype=np.uint8)
    monkeypatch.setattr(device_memory, "_MEMINFO", tmp_path / "absent")
    assert not headroom.may_double()
    assert grown.any()
