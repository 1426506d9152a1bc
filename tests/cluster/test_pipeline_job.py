"""A model from the hub that has no adapter, through the whole path."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from tests.cluster.job_process import imagemill, write_prompts
from tests.hub_server import running_hub
from tests.tiny_model import SIZE
from tests.tiny_others import build_tiny_latent_diffusion

ROWS = [
    {"prompt": "a fox", "seed": 1, "sampler": None, "negative_prompt": None},
    {"prompt": "a dog", "seed": 2, "sampler": "euler_ancestral", "negative_prompt": None},
    {"prompt": "a cat", "seed": 3, "sampler": None, "negative_prompt": "ugly"},
]


def test_a_hub_model_without_adapter_is_run_from_the_commit_that_the_job_began_with(
    tmp_path: Path,
) -> None:
    prompts = write_prompts(tmp_path / "prompts.parquet", ROWS)
    output = tmp_path / "out"
    with running_hub() as hub:
        commit = hub.push("tiny/ldm", build_tiny_latent_diffusion(tmp_path / "first"))
        status, text = imagemill(
            "run",
            f"input.path={prompts}",
            f"output.path={output}",
            "model=tiny/ldm",
            "model.needs_gpu=false",
            f"sampling.width={SIZE}",
            f"sampling.height={SIZE}",
            "sampling.steps=3",
            "job.max_quarantined=0.5",
            environment={"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")},
        )
        assert status == 0, text
        assert "engine pipeline: LDMTextToImagePipeline has no adapter" in text
        job = json.loads((output / "job.json").read_text())
        assert job["config"]["engine"]["name"] == "pipeline"
        assert job["config"]["model"]["path"] == "hf://tiny/ldm"
        assert job["config"]["model"]["revision"] == commit
    (metadata,) = (output / "metadata").glob("*.parquet")
    rows = pq.read_table(metadata).to_pylist()
    assert [row["sampler"] for row in rows] == ["default", "euler_ancestral"]
    assert {row["engine"] for row in rows} == {"pipeline"}
    assert {row["model_revision"] for row in rows} == {job["model_revision"]}
    (quarantine,) = (output / "quarantine").glob("*.parquet")
    (refused,) = pq.read_table(quarantine).to_pylist()
    assert (refused["row_id"], refused["reason"]) == (2, "not_supported")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    status, text = imagemill("retry", str(output), environment=offline)
    assert (status, "does not answer" in text) == (0, False), text
    assert json.loads((output / "job.json").read_text()) == job
