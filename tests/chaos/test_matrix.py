"""A few faults of the matrix, so that every test run proves the protocol on S3; all of them are
``make chaos``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.chaos.bucket import s3_client
from tests.chaos.fault import FAULTS, Fault
from tests.chaos.faults import load_all
from tests.chaos.matrix import perform
from tests.chaos.scene import BUCKET, Scene
from tests.chaos.stage import Stage, stage
from tests.seaweedfs import FULL

load_all()
SOME = (
    "commit-lands-after-the-next-opening",
    "driver-killed-before-the-manifest",
    "replies-to-commits-lost",
    "every-write-arrives-twice",
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with stage(seed=0) as shared:
        yield shared


@pytest.mark.parametrize("name", SOME)
def test_a_fault_is_survived(shared: Stage, name: str) -> None:
    outcome, verdict = perform(FAULTS[name], shared, None)
    assert outcome.problems == ()
    assert verdict is not None
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert len(verdict.images) == verdict.rows == verdict.committed > 0


def test_an_image_and_a_line_that_are_lost_make_the_matrix_fail(shared: Stage) -> None:
    def lose(scene: Scene) -> None:
        scene.ends(scene.run(), 0)
        key = next(iter(scene.bucket().listing("images/")))
        store = s3_client(scene.store.endpoint_url, FULL.access_key, FULL.secret_key)
        store.delete_object(Bucket=BUCKET, Key=f"{scene.name}/out/{key}")
        ledger = f"{scene.name}/out/ledger/workers.parquet"
        table = pq.read_table(io.BytesIO(scene.bucket().read("ledger/workers.parquet") or b""))
        sink = io.BytesIO()
        pq.write_table(table.filter(pc.field("kind") != "idle"), sink)
        store.put_object(Bucket=BUCKET, Key=ledger, Body=sink.getvalue())

    spoiled = Fault(name="an-image-is-lost", sentence="An image is removed.", cause=lose)
    outcome, _ = perform(spoiled, shared, None)
    assert outcome.lost == 1
    assert any("it is missing" in problem for problem in outcome.problems)
    assert any("ns; its lines hold" in problem for problem in outcome.problems), "by closing.py"
    assert any("ns; its lines say" in problem for problem in outcome.problems), "by books.py"


def test_there_are_at_least_25_faults_and_the_docs_tell_of_each() -> None:
    assert len(FAULTS) >= 25
    assert len({fault.sentence for fault in FAULTS.values()}) == len(FAULTS)
    told = (Path(__file__).parents[2] / "docs/reliability.md").read_text()
    lines = [f"| `{fault.name}` | {fault.sentence} |" for fault in FAULTS.values()]
    assert [line for line in lines if line not in told] == []
