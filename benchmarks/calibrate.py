"""Measure the denoiser's seconds per step by batch size, for conf/engine/simulated.yaml.

    python benchmarks/calibrate.py --model package:models/shapes/weights

Prints the mapping for ``simulated_seconds``: the median of several steps, after a warm-up, at
64 x 64 pixels (``operators.engines.simulated.CALIBRATED_PIXELS``). A batch is counted in rows of
the forward pass: an image with guidance is two.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from operators.families import load_family
from operators.families.family import GUIDANCE, Family
from operators.model_files import describe_model

SIDE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="package:models/shapes/weights")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    files = describe_model(arguments.model)
    family = load_family(files, dtype=torch.float32, device=device)
    measured = {
        batch: round(step_seconds(family, batch, arguments.repeats), 6)
        for batch in arguments.batches
    }
    print(f"# {files.path.name} {files.revision}, {device}, {torch.get_num_threads()} CPU threads")
    print("simulated_seconds: {" + ", ".join(f"{b}: {s}" for b, s in measured.items()) + "}")


@torch.inference_mode()
def step_seconds(family: Family, batch: int, repeats: int) -> float:
    """Median seconds of one denoiser call."""
    latents = torch.randn(batch, *family.latent_shape(SIDE, SIDE), device=family.device)
    timesteps = torch.linspace(1, 999, batch, device=family.device)
    told = torch.ones(batch, device=family.device)
    conditioning = {**family.embed(["a red circle"] * batch), GUIDANCE: told}
    spent = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        family.predict(latents, timesteps, conditioning, (SIDE, SIDE))
        if family.device.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent[2:])


if __name__ == "__main__":
    main()
