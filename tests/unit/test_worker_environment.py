"""What a worker's process finds in its environment."""

from __future__ import annotations

import pytest

from cluster.worker_environment import worker_environment


def test_a_worker_without_a_gpu_keeps_freed_memory_and_does_not_spin() -> None:
    assert worker_environment({"HOME": "/root"}, gpus=0, threads=2) == {
        "OMP_NUM_THREADS": "2",
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "2147483648",
        "MALLOC_TOP_PAD_": "268435456",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def test_a_worker_with_a_gpu_grows_its_segments() -> None:
    assert worker_environment({}, gpus=0.5, threads=8) == {
        "OMP_NUM_THREADS": "8",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


def test_a_worker_that_knows_its_node_only_later_is_given_no_number_of_threads() -> None:
    assert "OMP_NUM_THREADS" not in worker_environment({}, gpus=0, threads=None)


@pytest.mark.parametrize("name", ["MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "OMP_WAIT_POLICY"])
def test_what_the_user_set_goes_to_the_cpu_workers(name: str) -> None:
    assert worker_environment({name: "mine"}, gpus=0, threads=1)[name] == "mine"


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_the_users_allocator_goes_to_the_gpu_workers(name: str) -> None:
    asked = {name: "backend:cudaMallocAsync"}
    assert worker_environment(asked, gpus=1, threads=1) == {"OMP_NUM_THREADS": "1", **asked}
