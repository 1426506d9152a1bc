"""Memory for images: whose it is, and that each place of it is lent once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from operators.triton_client import memory_owner, memory_region
from operators.triton_client.memory_owner import MemoryOwner, is_abandoned, remove_abandoned
from operators.triton_client.memory_region import REGION_BYTES, MemoryRegion

KIB = 1024
_DIES = """
import os
from operators.triton_client.memory_owner import MemoryOwner
from operators.triton_client.memory_region import MemoryRegion
owner = MemoryOwner()
print(MemoryRegion(owner.name()).name, flush=True)
input()
"""


@pytest.fixture
def owner() -> Iterator[MemoryOwner]:
    with closing(MemoryOwner()) as made:
        yield made


@pytest.fixture
def region(owner: MemoryOwner) -> Iterator[MemoryRegion]:
    with closing(MemoryRegion(owner.name())) as made:
        made.hide()
        yield made


def resident(region: MemoryRegion) -> int:
    """Bytes of memory behind a region."""
    return os.fstat(region._file).st_blocks * 512


def test_names_are_new_and_their_owners_while_it_lives(owner: MemoryOwner) -> None:
    with closing(MemoryOwner()) as other:
        names = {owner.name(), owner.name(), other.name(), other.name()}
        assert len(names) == 4
        assert not any(map(is_abandoned, names))
    assert sum(map(is_abandoned, names)) == 2


def test_names_of_others_and_of_other_networks_are_nobodys_to_judge(owner: MemoryOwner) -> None:
    name = owner.name()
    owner.close()
    assert is_abandoned(name)
    _, kernel, network, token, number = name.split("-")
    assert not is_abandoned(f"imagemill-{kernel}-{int(network) + 1}-{token}-{number}")
    another = f"{int(kernel, 16) ^ 1:08x}"
    assert not is_abandoned(f"imagemill-{another}-{network}-{token}-{number}"), "same number there"
    assert not is_abandoned("output_data")
    assert not is_abandoned(f"{name}-more")


def test_the_file_of_a_process_that_was_killed_is_removed_and_no_other(owner: MemoryOwner) -> None:
    with (
        closing(MemoryRegion(owner.name())) as ours,
        subprocess.Popen(
            [sys.executable, "-c", _DIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as dying,
    ):
        assert dying.stdout is not None
        name = dying.stdout.readline().strip()
        remove_abandoned()
        assert (memory_owner.FOLDER / name).exists()
        dying.kill()
        dying.wait()
        remove_abandoned()
        assert not (memory_owner.FOLDER / name).exists()
        assert (memory_owner.FOLDER / ours.name).exists()
        ours.hide()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_file_that_another_user_left_keeps_nobody_from_shared_memory(owner: MemoryOwner) -> None:
    with closing(MemoryRegion(owner.name())) as left, ExitStack() as ours:
        ours.callback(left.hide)
        owner.close()
        ours.callback(os.seteuid, os.geteuid())
        os.seteuid(65534)
        remove_abandoned()
        assert (memory_owner.FOLDER / left.name).exists()


def test_no_byte_is_lent_twice(region: MemoryRegion) -> None:
    sizes = [1, 4096, 4097, 3 * KIB, 100 * KIB]
    lent: set[int] = set()
    for size in sizes * 3:
        place = region.lend(size)
        assert place is not None
        wanted = set(range(place.offset, place.offset + size))
        assert not lent & wanted
        lent |= wanted
        region.take_back(place, answered=bool(size % 2))
    assert region.out == 0
    assert not region.holds(REGION_BYTES)


def test_memory_is_taken_when_it_is_lent_and_goes_with_the_answer(region: MemoryRegion) -> None:
    assert resident(region) == 0
    answered, lost = region.lend(64 * KIB), region.lend(32 * KIB)
    assert answered is not None
    assert lost is not None
    assert resident(region) == 96 * KIB
    region.take_back(answered, answered=True)
    region.take_back(lost, answered=False)
    assert resident(region) == 32 * KIB, "the server may still write there"


def test_half_of_the_memory_is_left_to_others(
    disk: Callable[[str], Path], owner: MemoryOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_region, "FOLDER", disk("size=512k"))
    with closing(MemoryRegion(owner.name())) as region:
        assert region.lend(200 * KIB) is not None
        assert region.lend(200 * KIB) is None
        assert region.lend(40 * KIB) is not None
        assert region.out == 2


def test_memory_without_a_limit_has_room(
    disk: Callable[[str], Path], owner: MemoryOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_region, "FOLDER", disk("size=0"))
    with closing(MemoryRegion(owner.name())) as region:
        assert region.lend(KIB) is not None


def test_where_no_file_can_be_made_there_is_no_region(
    disk: Callable[[str], Path], owner: MemoryOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_region, "FOLDER", disk("ro"))
    with pytest.raises(OSError, match="Read-only file system"):
        MemoryRegion(owner.name())
