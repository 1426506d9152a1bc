"""The shipped model through the whole path: pictures equal to diffusers' own in every format."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from PIL import Image

from operators.model_files import resolve_model_path
from operators.samplers import make_scheduler
from tests.cluster.job_process import imagemill, write_prompts

ROWS = [
    {
        "id": f"row.{number}/x",
        "prompt": text,
        "seed": 100 + number,
        "steps": steps,
        "guidance_scale": guidance,
        "sampler": sampler,
        "width": width,
        "height": height,
        "mine": {"n": [number]},
    }
    for number, (text, steps, guidance, sampler, width, height) in enumerate(
        [
            ("a small red circle on a black background", 6, 4.0, "ddim", 64, 64),
            ("a large blue star on a white background", 9, 1.0, "euler", 64, 64),
            ("a small red circle left of a large green square", 7, 6.5, "euler_ancestral", 96, 64),
            ("a large yellow triangle", 8, 4.0, "dpmpp_2m", 64, 96),
            ("a large yellow triangle", 5, 3.0, "unipc", 64, 64),
            ("emoji \N{GRINNING FACE} and " + "many words " * 200, 6, 4.0, "pndm", 64, 64),
            ("a small cyan star", 4, 1.5, "lcm", 96, 64),
            ("a large gray square", 7, 4.0, "dpmpp_2m_karras", 64, 64),
        ]
    )
]


def reference(pipeline: DiffusionPipeline, row: dict[str, object]) -> np.ndarray:
    pipeline.scheduler = make_scheduler(pipeline.scheduler.config, row["sampler"])
    made = pipeline(
        row["prompt"],
        generator=torch.Generator("cpu").manual_seed(row["seed"]),
        num_inference_steps=row["steps"],
        guidance_scale=row["guidance_scale"],
        width=row["width"],
        height=row["height"],
    )
    return np.asarray(made.images[0]).astype(int)


@pytest.fixture(scope="module")
def references() -> list[np.ndarray]:
    folder = resolve_model_path("package:models/shapes/weights")
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    first = dict(pipeline.scheduler.config)
    made = []
    for row in ROWS:
        pipeline.scheduler = make_scheduler(first, "ddim")
        made.append(reference(pipeline, row))
    return made


def read_image(output: Path, row: dict[str, object]) -> bytes:
    if row["member"] is None:
        return (output / row["object"]).read_bytes()
    if row["object"].endswith(".tar"):
        with tarfile.open(output / row["object"]) as tar:
            return tar.extractfile(row["member"]).read()
    images = pq.read_table(output / row["object"])["image"].to_pylist()
    return next(image["bytes"] for image in images if image["path"] == row["member"])


@pytest.mark.parametrize("output_format", ["files", "webdataset", "parquet"])
def test_the_pictures_are_those_of_diffusers_in_every_format(
    output_format: str, references: list[np.ndarray], tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path / "prompts.parquet", ROWS)
    output = tmp_path / "out"
    status, text = imagemill(
        "run", f"input.path={prompts}", f"output.path={output}", f"output.format={output_format}"
    )
    assert status == 0, text
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    (metadata,) = (output / "metadata").glob("*.parquet")
    rows = pq.read_table(metadata).to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert [row["mine"] for row in rows] == [row["mine"] for row in ROWS]
    assert [row["truncated_tokens"] > 0 for row in rows] == [n == 5 for n in range(len(ROWS))]
    for row, expected in zip(rows, references, strict=True):
        with Image.open(io.BytesIO(read_image(output, row))) as image:
            found = np.asarray(image).astype(int)
            assert "imagemill" in image.text
        assert np.abs(found - expected).max() <= 1, row["sampler"]
