"""Verify: what may not be read is told as the store told it, not as missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import layout
from cluster.store import Store
from conf.errors import StoreRefused
from jobs.verify import verify
from tests.small_jobs import SmallJob, run_small_job
from tests.stores import walk

ROWS = [{"prompt": "a red circle"}, {"prompt": ""}]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
REFUSAL = "these credentials may not read there"


class Forbidden(Store):
    """A store that lets nobody read below some prefixes, as a policy on a bucket may."""

    prefixes: tuple[str, ...] = ()

    def get(self, key: str) -> bytes | None:
        if key.startswith(self.prefixes):
            raise StoreRefused(f"cannot read {key}: {REFUSAL}")
        return super().get(key)


def problems(small: SmallJob, *prefixes: str) -> tuple[str, ...]:
    store = Forbidden.of(small.config)
    store.prefixes = prefixes
    found = verify(store)
    assert not any("missing" in sentence for sentence in found.problems)
    return found.problems


@pytest.mark.parametrize("folder", ["images", "metadata", "ledger", "quarantine"])
def test_an_object_that_may_not_be_read_is_no_missing_one(tmp_path: Path, folder: str) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    (key,) = (entry.key for entry in walk(small.store, f"{folder}/"))
    (sentence,) = problems(small, f"{folder}/")
    assert sentence.startswith(f"cannot read {key}: {REFUSAL} (its ")
    assert sentence.endswith(" names it)")


def test_a_container_that_may_not_be_read_is_no_missing_one(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **{**TINY, "output.format": "webdataset"})
    (sentence,) = problems(small, "shards/")
    assert f"{REFUSAL} (its commit commits/" in sentence


def test_a_shard_whose_records_may_not_be_read_is_named(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    assert problems(small, "leases/")[0].startswith("shard 0: cannot read leases/")


def test_a_manifest_that_may_not_be_read_is_a_problem_and_no_unfinished_job(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    small.store.put_if_absent(layout.manifest(0), b"{}")
    store = Forbidden.of(small.config)
    store.prefixes = ("manifests/",)
    found = verify(store)
    assert found.problems == (f"cannot read {layout.manifest(0)}: {REFUSAL}",)
    assert found.finished
