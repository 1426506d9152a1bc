"""How many workers of which shape a connected cluster can have, and what it can never have."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import ray

from cluster.nodes import Shape, nodes_now
from cluster.ray_session import Resources, resources
from cluster.ray_start import patiently
from conf.errors import ConfigError, OptionRefused
from jobs.configure import compose


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    begin = partial(
        ray.init,
        "local",
        num_cpus=4,
        resources={"accelerator_type:L4": 1},
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 1024 * 1024,
    )
    patiently(begin)
    yield
    ray.shutdown()


def sized(*given: str) -> Resources:
    return resources(compose(["input.path=x", "output.path=y", *given]))


def crew(size: Resources) -> dict[str, Any]:
    names = ("least", "most", "per_node", "workers", "threads")
    return {name: getattr(size, name) for name in names}


def test_without_gpus_a_node_gets_one_worker_with_all_its_threads(cluster: None) -> None:
    size = sized()
    assert size.shape == Shape(gpus=0.0)
    assert crew(size) == {"least": 1, "most": None, "per_node": 1, "workers": 1, "threads": 4}


def test_a_range_is_filled_as_far_as_it_fits(cluster: None) -> None:
    assert crew(sized("cluster.min_workers=2", "cluster.max_workers=3")) == {
        "least": 2,
        "most": 3,
        "per_node": None,
        "workers": 3,
        "threads": 1,
    }
    assert sized("cluster.max_workers=9").workers == 4


def test_an_exact_number_is_cut_to_what_fits_and_that_is_said(
    cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "imagemill"):
        assert crew(sized("cluster.workers=4"))["least"] == 4
        assert caplog.messages == []
        size = sized("cluster.workers=9")
    assert (size.least, size.most, size.workers) == (4, 9, 4)
    assert caplog.messages == [
        "of cluster.workers=9 the cluster can hold 4: each needs 1 CPU on one node; there are "
        "4 CPU, 0 GPU on 1 node"
    ]


def test_where_nodes_are_still_to_come_threads_are_counted_by_the_node(cluster: None) -> None:
    size = sized("cluster.address=auto", "cluster.autoscaled=true", "cluster.max_workers=2")
    (node,) = nodes_now()
    assert (size.grows, size.threads, size.threads_on(node)) == (True, None, 2)


def test_which_gpus_the_nodes_have_is_as_ray_says(cluster: None) -> None:
    (node,) = nodes_now()
    assert node.accelerator == "L4"
    assert sized().accelerators == {"L4"}
    waiting = sized("cluster.address=auto", "cluster.autoscaled=true", "cluster.gpus_per_worker=1")
    assert waiting.accelerators == frozenset(), "no node of theirs is there"


def test_a_model_that_needs_a_gpu_is_refused_where_there_is_none(cluster: None) -> None:
    with pytest.raises(ConfigError) as raised:
        sized("model.needs_gpu=true")
    assert str(raised.value) == (
        "the model shapes needs a GPU (model.needs_gpu); the cluster has none: 4 CPU, 0 GPU on 1 "
        "node; nothing was started; add a node with GPUs, choose another model, give "
        "model.needs_gpu=false where it is small enough for a CPU, or cluster.autoscaled=true "
        "where an autoscaler adds such nodes"
    )
    assert sized("model.needs_gpu=true", "engine=simulated").shape == Shape(gpus=0.0)


def test_ray_says_what_is_free_and_that_nobody_is_going(cluster: None) -> None:
    (node,) = nodes_now()
    assert (node.cpus, node.free_cpus, node.gpus, node.draining) == (4, 4, 0, False)


def test_weights_are_not_kept_out_of_a_gpu_that_no_worker_gets(cluster: None) -> None:
    with pytest.raises(
        OptionRefused, match=r"engine\.offload=model .* no worker gets a GPU"
    ) as told:
        sized("engine.offload=model")
    assert "nothing was started; give engine.offload=off" in str(told.value)
    assert sized("engine.offload=model", "engine=simulated").shape == Shape(gpus=0.0)
