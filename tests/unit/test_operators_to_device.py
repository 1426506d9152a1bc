"""What families give to the device goes there without the host waiting for work before it."""

from __future__ import annotations

import sys

import pytest
import torch

from operators.device import to_device
from operators.engine import ImageResult
from operators.families import FAMILIES
from tests.stepwise_rows import ask, load, run
from tests.tiny_families import TINY_FAMILIES
from tests.tiny_sdxl import build_tiny_sdxl

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MEANS = {"latents_mean": [0.1] * 4, "latents_std": [0.9] * 4}


def test_what_goes_to_a_gpu_is_pinned_and_not_waited_for(monkeypatch):
    told = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: told.append("pinned") or self)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, where, **how: told.append((where, how)) or self
    )
    to_device(torch.zeros(2), GPU)
    assert told == ["pinned", (GPU, {"non_blocking": True})]


def test_what_goes_to_the_cpu_is_there_already():
    given = torch.zeros(2)
    assert to_device(given, CPU) is given


def test_every_family_is_tried():
    assert {f"operators.families.{name}" for name in TINY_FAMILIES} == set(FAMILIES.values())


def model_of(name, path):
    if name == "sdxl":
        return build_tiny_sdxl(path, vae_options=MEANS)
    build, _ = TINY_FAMILIES[name]
    return build(path)


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_families_use_no_other_way_to_the_device(name, tmp_path, monkeypatch):
    engine = load(model_of(name, tmp_path))
    blocking = []

    def watch(owner, method, blocks):
        original = getattr(owner, method)

        def spy(*args, **how):
            module = sys._getframe(1).f_globals["__name__"]
            if module.startswith("operators.families") and blocks(args, how):
                blocking.append((module, method))
            return original(*args, **how)

        monkeypatch.setattr(owner, method, spy)

    def to_a_place(args, how):
        return any(isinstance(given, torch.device) for given in (*args, *how.values()))

    for maker in ("tensor", "as_tensor"):
        watch(torch, maker, to_a_place)
    watch(torch.Tensor, "to", to_a_place)
    # by places that are a list, which is copied there first
    watch(torch.Tensor, "__setitem__", lambda args, how: isinstance(args[1], list))
    made = run(engine, [ask(0, steps=2, sampler=TINY_FAMILIES[name][1][0])])
    assert isinstance(made[0], ImageResult)
    engine._family.embed(["a fox", None])
    assert blocking == []


def test_the_sizes_that_sdxl_was_told_are_kept_but_not_all_of_them(tmp_path):
    family = load(build_tiny_sdxl(tmp_path))._family
    first = family._time_ids_of((8, 16))
    assert family._time_ids_of((8, 16)) is first
    assert first.tolist() == [8, 16, 0, 0, 8, 16]
    for side in range(1000):
        family._time_ids_of((side, side))
    assert len(family._time_ids) == 256
    assert family._time_ids_of((8, 16)).tolist() == first.tolist()
